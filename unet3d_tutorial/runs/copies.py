"""Folders copied from and to a store: whole and checked, and never taken for whole otherwise."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

from ..config import Config, RemoteConfig
from ..files.whole import is_temporary, written_whole
from .processes import ALONE, Group
from .store import Entry, Store, open_store

#: the list of a copy on this machine, and of one in a store (which has its twin here)
COPIED, UPLOADED = ".copied.jsonl", ".uploaded.jsonl"
COPIES_MADE = (UPLOADED, ".uploaded.json")  #: what an upload leaves here, version 0.1.0 included
#: not part of any copy: the lists, those of version 0.1.0, which are no longer read, and the lock
LEFT_OUT = (COPIED, UPLOADED, ".downloaded.json", ".uploaded.json", "lock", "lock.process")

TRIES = 4  #: what fails is tried again after 1, 2 and 4 seconds

Result = TypeVar("Result")


class CopyList:
    """The list of the files of a copy, kept in the folder of the copy itself.

    A file of JSON: one line for each file that is there whole, and a last line once none is
    missing. So an interrupted copy can be continued, and nobody takes it for a whole one. Lines
    that cannot be read, cut short by a crash or of another version, count as absent.
    """

    END = "complete"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, Entry] = {}
        self.is_complete = False
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._read(line)

    def start(self) -> None:
        """Keep the files that are listed, but no longer say that none is missing."""
        self.is_complete = False
        self._write()

    def add(self, name: str, entry: Entry) -> None:
        """List one more file, at once."""
        self.files[name] = entry
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(name, entry))

    def finish(self, files: dict[str, Entry]) -> None:
        """List exactly these files, and say that none is missing."""
        self.files, self.is_complete = files, True
        self._write()

    def _read(self, line: str) -> None:
        try:
            content = json.loads(line)
            if content == self.END:
                self.is_complete = True
            else:
                name, entry = content
                self.files[name] = Entry(**entry)
        except (ValueError, TypeError):
            pass

    def _write(self) -> None:
        lines = [_line(name, entry) for name, entry in self.files.items()]
        if self.is_complete:
            lines.append(json.dumps(self.END) + "\n")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(self.path) as part:
            part.write_text("".join(lines), encoding="utf-8")


# ----------------------------------------------------------------------------------- of a whole run


def copy_data(config: Config, group: Group = ALONE) -> None:
    """Copy ``remote.data_url``, if there is one, to ``data.data_path``.

    One process of each host does, the others wait for it.
    """
    if config.remote.data_url:
        if group.local_rank == 0:
            store = open_store(config.remote.data_url, config.remote)
            copy_from_store(store, Path(config.data.data_path))
        group.wait()


def copy_run(config: Config, folder: Path) -> None:
    """Copy the folder of a run to ``remote.train_url``, if there is one."""
    if config.remote.train_url:
        copy_to_store(folder, open_store(config.remote.train_url, config.remote))


# ------------------------------------------------------------------------------- from and to stores


def copy_from_store(store: Store, folder: Path) -> int:
    """Make ``folder`` hold every file of the store; return the number of files that were copied.

    A file that is there as it was copied, and that the store still has so, is not copied again: an
    interrupted copy is continued, and a file that was replaced in the store is noticed, even if it
    kept its size. Raises ``OSError`` if the store cannot be listed or a file not be copied whole;
    :func:`is_complete_copy` tells a whole copy from a partial one.
    """
    files = {path: entry for path, entry in _list(store).items() if path not in LEFT_OUT}
    if not files:
        raise FileNotFoundError(f"{folder}: the remote folder is empty or does not exist")
    if is_complete_copy(folder, files):
        return 0
    copied = CopyList(folder / COPIED)
    copied.start()
    missing = []
    for path, entry in files.items():
        if copied.files.get(path) != entry or not _is_there(folder / path, entry):
            missing.append(path)
    for path in missing:
        _get(store, path, files[path].bytes, folder / path)
        copied.add(path, files[path])
    copied.finish(files)
    return len(missing)


def copy_file_from_store(url: str, folder: Path, options: RemoteConfig) -> Path:
    """Copy one file into ``folder``, whole or not at all; return its path here.

    Raises ``OSError`` if that fails.
    """
    parent, _, name = url.rpartition("/")
    store = open_store(parent, options)
    entries = _list(store)
    if name not in entries:
        raise FileNotFoundError(f"remote.checkpoint_url: no such file: {url}")
    _get(store, name, entries[name].bytes, folder / name)
    return folder / name


def is_complete_copy(folder: Path, files: dict[str, Entry] | None = None) -> bool:
    """Whether ``folder`` is a whole copy: its list says so, and each file has the size listed.

    With ``files``, those that are in the store now, also whether it is a copy of these.
    """
    copied = CopyList(folder / COPIED)
    if not copied.is_complete or not copied.files:
        return False
    if files is not None and files != copied.files:
        return False
    return all(_is_there(folder / path, entry) for path, entry in copied.files.items())


def copy_to_store(folder: Path, store: Store) -> int:
    """Copy every file of ``folder`` that the store lacks or has otherwise; return how many.

    A file that somebody else replaced in the store is copied again. Temporary files stay here.
    The list goes last, so that whoever reads the store can tell a whole copy from one that is being
    made. Raises ``OSError`` if the store cannot be listed or a file not be copied whole.
    """
    sums = {str(path.relative_to(folder)): _sha256(path) for path in _files_to_copy(folder)}
    uploaded, there = CopyList(folder / UPLOADED), _list(store)
    changed = []
    for path, sha256 in sums.items():
        if path not in there or uploaded.files.get(path) != replace(there[path], sha256=sha256):
            changed.append(path)
    for path in changed:
        _put(folder / path, store, path)
    if changed:
        there = _list(store)
        uploaded.finish({path: replace(there[path], sha256=sums[path]) for path in sums})
        _put(folder / UPLOADED, store, UPLOADED)
    return len(changed)


def _files_to_copy(folder: Path) -> list[Path]:
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in LEFT_OUT and not is_temporary(path):
            files.append(path)
    return files


def _list(store: Store) -> dict[str, Entry]:
    return _try_again(store.entries, "listing the store")


def _get(store: Store, path: str, size: int, target: Path) -> None:
    def copy() -> None:
        store.get(path, part)
        _check_size(part.stat().st_size, size)

    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target) as part:
        _try_again(copy, f"copying {path} from the store")


def _put(source: Path, store: Store, path: str) -> None:
    def copy() -> None:
        store.put(source, path)
        entry = store.entries().get(path)
        _check_size(entry.bytes if entry else -1, size)

    size = source.stat().st_size
    _try_again(copy, f"copying {path} to the store")


def _check_size(size: int, expected: int) -> None:
    if size != expected:
        raise OSError(f"expected {expected} bytes, found {size}")


def _try_again(action: Callable[[], Result], what: str) -> Result:
    """What ``action`` returns, once it raises nothing.

    Raises ``OSError`` after :data:`TRIES` attempts.
    """
    for attempt in range(TRIES):
        if attempt:
            time.sleep(2 ** (attempt - 1))
        try:
            return action()
        except Exception as error:  # each store raises its own kinds
            problem = f"{type(error).__name__}: {error}"
    raise OSError(f"{what} failed {TRIES} times: {problem}")


def _is_there(path: Path, entry: Entry) -> bool:
    return path.is_file() and path.stat().st_size == entry.bytes


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(name: str, entry: Entry) -> str:
    return json.dumps([name, asdict(entry)]) + "\n"
