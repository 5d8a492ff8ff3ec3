"""Files that are complete or absent: written under a temporary name, then renamed."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = ".part"  #: in every temporary name, so that code that lists a folder can skip these files


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; at the end of the block it is renamed to ``path``.

    The temporary file is in the same folder, has a name that no other writer uses, and has the
    suffix of ``path``, because some writers depend on it. If the block raises, ``path`` stays as it
    was and nothing is left behind. A writer that was killed leaves its temporary file: the next
    writer of the same path on this machine removes it.

        with written_whole("mask.nii.gz") as part:
            nibabel.save(image, part)
    """
    path = Path(path)
    _remove_abandoned(path)
    part = path.with_name(_temporary_name(path.name, secrets.token_hex(4)))
    try:
        # Exclusive creation: never through a link or over a file that somebody else put there.
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield part
        _flush(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def is_temporary(path: str | Path) -> bool:
    """Whether a file has one of the temporary names of :func:`written_whole`."""
    name = Path(path).name
    return name.startswith(".") and f"{MARK}-" in name


def _temporary_name(name: str, token: str) -> str:
    """Return ``.mask.part-HOST-PROCESS-TOKEN.nii.gz`` for ``mask.nii.gz``."""
    start, end = _name_parts(name)
    return f"{start}{os.getpid()}-{token}{end}"


def _name_parts(name: str) -> tuple[str, str]:
    """The beginning of all temporary names of a file, up to the process ID, and their end."""
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
        os.kill(process, 0)  # signal 0 is not sent: this only checks whether one could be
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's process; not a valid ID
        return True
    return True


def _host() -> str:
    """The machine's name as letters and digits, because machines may share a folder."""
    return "".join(c for c in socket.gethostname() if c.isalnum())[:24] or "host"


def _flush(path: Path) -> None:
    """Write through to the disk, so that a power cut cannot leave a name without its content."""
    with path.open("r+b") as file:  # Windows flushes only files that are open for writing
        os.fsync(file.fileno())
