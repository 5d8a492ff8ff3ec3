"""Files that are whole or not there: written to a temporary name next to them, then renamed."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = ".part"  #: in every temporary name, so that whatever lists a folder can leave them aside


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to, which at the end of the block becomes ``path``.

    The temporary file is in the same folder, has a name that no other writer has, and ends as
    ``path`` does, for writers that go by the suffix. If the block raises, ``path`` stays what it
    was and nothing is left behind. A writer that was killed leaves its file: the next one that
    writes the same path on this machine removes it.

        with written_whole("mask.nii.gz") as part:
            nibabel.save(image, part)
    """
    path = Path(path)
    _remove_abandoned(path)
    part = path.with_name(_temporary_name(path.name, secrets.token_hex(4)))
    try:
        # Exclusively: never through a link or onto a file that somebody else put there.
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield part
        _flush(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def is_temporary(path: str | Path) -> bool:
    """Whether a name is one of those that :func:`written_whole` writes to."""
    name = Path(path).name
    return name.startswith(".") and f"{MARK}-" in name


def _temporary_name(name: str, token: str) -> str:
    """Return ``.mask.part-HOST-PROCESS-TOKEN.nii.gz`` for ``mask.nii.gz``."""
    start, end = _name_parts(name)
    return f"{start}{os.getpid()}-{token}{end}"


def _name_parts(name: str) -> tuple[str, str]:
    """How all temporary names of a file begin, up to the process's number, and how they end."""
    stem, dot, suffixes = name.partition(".")
    return f".{stem}{MARK}-{_host()}-", dot + suffixes


def _remove_abandoned(path: Path) -> None:
    """Remove temporary files of ``path`` whose writer, a process of this machine, has ended."""
    start, end = _name_parts(path.name)
    for other in path.parent.glob(f".*{MARK}-*"):
        if not (other.name.startswith(start) and other.name.endswith(end)):
            continue
        process, _, _ = other.name.removeprefix(start).partition("-")
        if process.isdecimal() and not _is_running(int(process)):
            other.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # os.kill would end it there
        return True
    try:
        os.kill(process, 0)  # 0 is no signal: only whether one could be sent is looked at
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # it runs, and belongs to somebody else; no number
        return True
    return True


def _host() -> str:
    """The machine's name as letters and digits: folders may be shared between machines."""
    return "".join(c for c in socket.gethostname() if c.isalnum())[:24] or "host"


def _flush(path: Path) -> None:
    """Write through to the disk, so that a power cut leaves no name without its content."""
    with path.open("r+b") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())
