"""Data and results that lie in a store such as S3 or OBS: copied whole, checked, and never taken
for whole otherwise.

Addresses are those of fsspec: ``s3://bucket/folder``, ``file:///folder``, ``sftp://...``. OBS
speaks the S3 protocol. Keys and end points come from the environment of the store's own library,
such as ``AWS_ACCESS_KEY_ID`` and ``AWS_ENDPOINT_URL``.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import fsspec

from ..config import RemoteConfig

#: written last in a copy on this machine: size and version of each of its files
DOWNLOADED = ".downloaded.json"
COPIED = ".copied.jsonl"  #: the same of a copy that is being made, one line a file
#: written last in the store: size, SHA-256 sum and version of what was copied there
UPLOADED = ".uploaded.json"
#: a copy that fails or comes out short is made again, after 1, 2 and 4 s; so is a list of what is
#: there
TRIES = 4
#: what stores call that which changes with a file's content, the best first: a sum over it, or the
#: time it was written
VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "LastModified",
    "last_modified",
    "updated",
    "modified",
    "mtime",
    "created",
)


@dataclass(frozen=True)
class Entry:
    """What a store tells about a file without reading it."""

    bytes: int
    version: str | None = (
        #: changes when the file is replaced, even by one of the same size; None if nobody can tell
        None
    )


class Store(Protocol):
    """What a store must be able to do;

    ``path`` is relative to the folder that the store was made for.
    """

    def entries(self) -> dict[str, Entry]:
        """Each file below the folder, by relative path."""

    def get(self, path: str, target: Path) -> None:
        """Copy one file from the store."""

    def put(self, source: Path, path: str) -> None:
        """Copy one file to the store, in place of what is there."""


class FsspecStore:
    """A folder in any store that fsspec knows."""

    def __init__(self, url: str):
        self.files, self.root = fsspec.url_to_fs(
            url.rstrip("/"), use_listings_cache=False, skip_instance_cache=True
        )

    def entries(self) -> dict[str, Entry]:
        found = self.files.find(self.root, detail=True)
        return {
            name[len(self.root) :].lstrip("/"): Entry(int(about["size"]), _version(about))
            for name, about in found.items()
        }

    def get(self, path: str, target: Path) -> None:
        self.files.get_file(f"{self.root}/{path}", str(target))

    def put(self, source: Path, path: str) -> None:
        self.files.makedirs(f"{self.root}/{path}".rpartition("/")[0], exist_ok=True)
        self.files.put_file(str(source), f"{self.root}/{path}")


class MoxingStore:
    """A folder in OBS, by the library that the ModelArts service brings along."""

    def __init__(self, url: str):
        try:
            import moxing
        except ImportError as error:
            raise ValueError(
                "remote.enable_modelarts: expected the module moxing, which only ModelArts has; "
                "set it to false to copy with fsspec"
            ) from error
        self.files = moxing.file
        self.root = url.rstrip("/")

    def entries(self) -> dict[str, Entry]:
        names = self.files.list_directory(self.root, recursive=True)
        found = {name: self.files.stat(f"{self.root}/{name}") for name in names}
        return {
            name: Entry(int(about.length), str(about.mtime_nsec))
            for name, about in found.items()
            if not about.is_directory
        }

    def get(self, path: str, target: Path) -> None:
        self.files.copy(f"{self.root}/{path}", str(target))

    def put(self, source: Path, path: str) -> None:
        self.files.copy(str(source), f"{self.root}/{path}")


def open_store(url: str, options: RemoteConfig) -> Store:
    """The store for a folder's address.

    Raises ``ValueError`` for an address that nobody here can read.
    """
    if options.enable_modelarts:
        return MoxingStore(url)
    try:
        return FsspecStore(url)
    except (ValueError, ImportError) as error:
        raise ValueError(f"remote: {url} cannot be opened: {error}") from error


def download(store: Store, folder: Path) -> int:
    """Make ``folder`` hold every file of the store; return the number of files that were copied.

    A file that is there as it was copied, and that the store still has so, is not copied again: an
    interrupted copy goes on, and a file that was replaced in the store is noticed, even if it kept
    its size. Raises ``OSError`` if the store cannot be listed or a file not be copied whole, and
    leaves no marker then; :func:`is_complete` tells a whole copy from a partial one.
    """
    wanted = {path: entry for path, entry in _list(store).items() if path != UPLOADED}
    if not wanted:
        raise FileNotFoundError(f"{folder}: the remote folder is empty or does not exist")
    if is_complete(folder, wanted):
        return 0
    had = _read_entries(folder / DOWNLOADED) | _read_copied(folder / COPIED)
    (folder / DOWNLOADED).unlink(missing_ok=True)
    _write_copied(folder / COPIED, had)
    missing = [
        path
        for path, entry in wanted.items()
        if had.get(path) != entry or not _has(folder / path, entry)
    ]
    for path in missing:
        _fetch(store, path, wanted[path].bytes, folder / path)
        _note_copied(folder / COPIED, path, wanted[path])
    _write_json(folder / DOWNLOADED, {path: asdict(entry) for path, entry in wanted.items()})
    (folder / COPIED).unlink(missing_ok=True)
    return len(missing)


def download_file(url: str, folder: Path, options: RemoteConfig) -> Path:
    """Copy one file into ``folder``, whole or not at all; return its path here.

    Raises ``OSError`` if that fails.
    """
    parent, _, name = url.rpartition("/")
    store = open_store(parent, options)
    if name not in (entries := _list(store)):
        raise FileNotFoundError(f"remote.checkpoint_url: no such file: {url}")
    _fetch(store, name, entries[name].bytes, folder / name)
    return folder / name


def is_complete(folder: Path, wanted: dict[str, Entry] | None = None) -> bool:
    """Whether ``folder`` is a whole copy: the marker is there, and every file that it names, and
    with its size.

    With ``wanted``, the files as they are in the store now, also whether it is a copy of these.
    """
    copied = _read_entries(folder / DOWNLOADED)
    return (
        bool(copied)
        and wanted in (None, copied)
        and all(_has(folder / path, entry) for path, entry in copied.items())
    )


def upload(folder: Path, store: Store, *, skip: tuple[str, ...] = ("lock",)) -> int:
    """Copy every file of ``folder`` that the store lacks or has otherwise; return how many.

    A file that somebody else replaced in the store is copied again. Temporary files stay here.
    After the files :data:`UPLOADED` is written, so that whoever reads the store can tell a whole
    copy from one that is being made. Raises ``OSError`` if the store cannot be listed or a file not
    be copied whole.
    """
    sums = {
        str(path.relative_to(folder)): _sum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in (*skip, UPLOADED, DOWNLOADED, COPIED)
        and ".part" not in path.name
    }
    before, there = _read_json(folder / UPLOADED), _list(store)
    changed = [
        path
        for path, found in sums.items()
        if path not in there or before.get(path) != found | asdict(there[path])
    ]
    for path in changed:
        _send(folder / path, store, path, sums[path]["bytes"])
    if changed:
        there = _list(store)
        _write_json(
            folder / UPLOADED, {path: found | asdict(there[path]) for path, found in sums.items()}
        )
        _send(folder / UPLOADED, store, UPLOADED, (folder / UPLOADED).stat().st_size)
    return len(changed)


def _version(about: Mapping[str, Any]) -> str | None:
    """The version in what fsspec tells about a file."""
    return next((str(about[name]) for name in VERSIONS if about.get(name)), None)


def _list(store: Store) -> dict[str, Entry]:
    return _try(store.entries, "listing the store")


def _fetch(store: Store, path: str, size: int, target: Path) -> None:
    part = target.with_name(target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)

    def copy() -> None:
        store.get(path, part)
        _check_size(part.stat().st_size, size)

    try:
        _try(copy, f"copying {path} from the store")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _send(source: Path, store: Store, path: str, size: int) -> None:
    def copy() -> None:
        store.put(source, path)
        _check_size(entry.bytes if (entry := store.entries().get(path)) else -1, size)

    _try(copy, f"copying {path} to the store")


def _check_size(found: int, size: int) -> None:
    if found != size:
        raise OSError(f"expected {size} bytes, found {found}")


def _try(action: Callable[[], Any], what: str) -> Any:
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


def _has(path: Path, entry: Entry) -> bool:
    return path.is_file() and path.stat().st_size == entry.bytes


def _sum(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        return {
            "bytes": os.fstat(file.fileno()).st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _read_entries(path: Path) -> dict[str, Entry]:
    """The marker; empty if there is none, or one of another version of this package."""
    try:
        return {name: Entry(**about) for name, about in _read_json(path).items()}
    except TypeError:
        return {}


def _read_copied(path: Path) -> dict[str, Entry]:
    """The lines about files that were copied so far; a last line that was cut short is left aside."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            name, about = json.loads(line)
            found[name] = Entry(**about)
        except (ValueError, TypeError):
            continue
    return found


def _note_copied(path: Path, name: str, entry: Entry) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps([name, asdict(entry)]) + "\n")


def _write_copied(path: Path, copied: dict[str, Entry]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(
        "".join(json.dumps([name, asdict(entry)]) + "\n" for name, entry in copied.items()),
        encoding="utf-8",
    )
    part.replace(path)


def _write_json(path: Path, content: dict) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")
    part.replace(path)
