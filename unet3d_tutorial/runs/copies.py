"""Copy folders from and to a store; a partial copy is never mistaken for a complete one."""

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

#: file list of a copy on this machine, and of a copy in a store (which is also kept here)
COPIED, UPLOADED = ".copied.jsonl", ".uploaded.jsonl"
COPIES_MADE = (UPLOADED, ".uploaded.json")  #: what an upload leaves here, also in version 0.1.0
#: never copied: the lists, those of version 0.1.0 (no longer read) and the lock
LEFT_OUT = (COPIED, UPLOADED, ".downloaded.json", ".uploaded.json", "lock", "lock.process")

TRIES = 4  #: a failed action is repeated after 1, 2 and 4 seconds

Result = TypeVar("Result")


class CopyList:
    """The list of the files of a copy, stored in the folder of the copy itself.

    It is a file of JSON lines: one for each file that is complete, and a last line once no file is
    missing. So an interrupted copy can be continued, and is never mistaken for a complete one.
    Lines that cannot be read (truncated by a crash, or of another version) are ignored.
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
        """Mark the copy as incomplete; the listed files stay listed."""
        self.is_complete = False
        self._write()

    def add(self, name: str, entry: Entry) -> None:
        """Add one file, and write it to the list at once."""
        self.files[name] = entry
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(name, entry))

    def finish(self, files: dict[str, Entry]) -> None:
        """List exactly these files, and mark the copy as complete."""
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


# ---------------------------------------------------------------------------- copies of a whole run


def copy_data(config: Config, group: Group = ALONE) -> None:
    """Copy ``remote.data_url``, if there is one, to ``data.data_path``.

    One process on each host copies; the others wait for it.
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
    """Copy every file of the store to ``folder``; return the number of files copied.

    A file is skipped if an earlier call copied it and neither side has changed since. So an
    interrupted copy is continued, and a file that was replaced in the store is copied again, even
    if its size is the same. Raises ``FileNotFoundError`` if the store's folder is empty, and
    ``OSError`` if the store cannot be listed or a file cannot be copied completely;
    :func:`is_complete_copy` tells a complete copy from a partial one.
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
    """Copy one file into ``folder``, completely or not at all; return its local path.

    Raises ``FileNotFoundError`` if the store has no such file, and ``OSError`` if copying fails.
    """
    parent, _, name = url.rpartition("/")
    store = open_store(parent, options)
    entries = _list(store)
    if name not in entries:
        raise FileNotFoundError(f"remote.checkpoint_url: no such file: {url}")
    _get(store, name, entries[name].bytes, folder / name)
    return folder / name


def is_complete_copy(folder: Path, files: dict[str, Entry] | None = None) -> bool:
    """Whether ``folder`` is a complete copy: marked as such, with each file of the listed size.

    ``files`` are those that are in the store now; if given, the list must also be equal to them.
    """
    copied = CopyList(folder / COPIED)
    if not copied.is_complete or not copied.files:
        return False
    if files is not None and files != copied.files:
        return False
    return all(_is_there(folder / path, entry) for path, entry in copied.files.items())


def copy_to_store(folder: Path, store: Store) -> int:
    """Copy the files of ``folder`` that are missing or different in the store; return how many.

    A file that somebody else replaced in the store is copied again. Temporary files are not copied.
    The list is copied last, so that readers of the store can tell a complete copy from one in
    progress. Raises ``OSError`` if the store cannot be listed or a file cannot be copied
    completely.
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
    """Repeat ``action`` until it succeeds, and return its result.

    Raises ``OSError``, naming ``what``, after :data:`TRIES` attempts.
    """
    for attempt in range(TRIES):
        if attempt:
            time.sleep(2 ** (attempt - 1))
        try:
            return action()
        except Exception as error:  # each store raises its own exceptions
            problem = f"{type(error).__name__}: {error}"
    raise OSError(f"{what} failed {TRIES} times: {problem}")


def _is_there(path: Path, entry: Entry) -> bool:
    return path.is_file() and path.stat().st_size == entry.bytes


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(name: str, entry: Entry) -> str:
    return json.dumps([name, asdict(entry)]) + "\n"
