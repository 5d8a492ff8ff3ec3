"""Data and results that lie in a store such as S3 or OBS: copied whole, checked, and never taken for whole otherwise.

Addresses are those of fsspec: ``s3://bucket/folder``, ``file:///folder``, ``sftp://...``. OBS speaks the S3 protocol.
Keys and end points come from the environment of the store's own library, such as ``AWS_ACCESS_KEY_ID`` and
``AWS_ENDPOINT_URL``.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import fsspec

from .config import RemoteConfig

DOWNLOADED = ".downloaded.json"  #: written last in a copy on this machine: names and sizes of its files
UPLOADED = ".uploaded.json"  #: written last in the store: names, sizes and SHA-256 sums of what was copied there
TRIES = 4  #: a copy that fails or comes out short is made again, after 1, 2 and 4 s


class Store(Protocol):
    """What a store must be able to do; ``path`` is relative to the folder that the store was made for."""

    def sizes(self) -> dict[str, int]:
        """Bytes of each file below the folder, by relative path."""

    def get(self, path: str, target: Path) -> None:
        """Copy one file from the store."""

    def put(self, source: Path, path: str) -> None:
        """Copy one file to the store, in place of what is there."""


class FsspecStore:
    """A folder in any store that fsspec knows."""

    def __init__(self, url: str):
        self.files, self.root = fsspec.url_to_fs(url.rstrip("/"), use_listings_cache=False, skip_instance_cache=True)

    def sizes(self) -> dict[str, int]:
        found = self.files.find(self.root, detail=True)
        return {name[len(self.root):].lstrip("/"): int(entry["size"]) for name, entry in found.items()}

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
            raise ValueError("remote.enable_modelarts: expected the module moxing, which only ModelArts has; "
                             "set it to false to copy with fsspec") from error
        self.files, self.root = moxing.file, url.rstrip("/")

    def sizes(self) -> dict[str, int]:
        names = self.files.list_directory(self.root, recursive=True)
        return {name: int(self.files.get_size(f"{self.root}/{name}")) for name in names
                if not self.files.is_directory(f"{self.root}/{name}")}

    def get(self, path: str, target: Path) -> None:
        self.files.copy(f"{self.root}/{path}", str(target))

    def put(self, source: Path, path: str) -> None:
        self.files.copy(str(source), f"{self.root}/{path}")


def open_store(url: str, options: RemoteConfig) -> Store:
    """The store for a folder's address. Raises ``ValueError`` for an address that nobody here can read."""
    if options.enable_modelarts:
        return MoxingStore(url)
    try:
        return FsspecStore(url)
    except (ValueError, ImportError) as error:
        raise ValueError(f"remote: {url} cannot be opened: {error}") from error


def download(store: Store, folder: Path) -> int:
    """Make ``folder`` hold every file of the store; return the number of files that were copied.

    A file that is there with the right size is not copied again, so an interrupted copy goes on. Raises ``OSError`` if a
    file cannot be copied whole, and leaves no marker then; :func:`is_complete` tells a whole copy from a partial one.
    """
    wanted = {path: size for path, size in store.sizes().items() if path != UPLOADED}
    if not wanted:
        raise FileNotFoundError(f"{folder}: the remote folder is empty or does not exist")
    if is_complete(folder, wanted):
        return 0
    (folder / DOWNLOADED).unlink(missing_ok=True)
    missing = [path for path, size in wanted.items() if not _has(folder / path, size)]
    for path in missing:
        _fetch(store, path, wanted[path], folder / path)
    _write_json(folder / DOWNLOADED, wanted)
    return len(missing)


def download_file(url: str, folder: Path, options: RemoteConfig) -> Path:
    """Copy one file into ``folder``, whole or not at all; return its path here. Raises ``OSError`` if that fails."""
    parent, _, name = url.rpartition("/")
    store = open_store(parent, options)
    if name not in (sizes := store.sizes()):
        raise FileNotFoundError(f"remote.checkpoint_url: no such file: {url}")
    _fetch(store, name, sizes[name], folder / name)
    return folder / name


def is_complete(folder: Path, wanted: dict[str, int] | None = None) -> bool:
    """Whether ``folder`` is a whole copy: the marker is there, and every file that it names, and with its size."""
    try:
        sizes = json.loads((folder / DOWNLOADED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (wanted is None or sizes == wanted) and all(_has(folder / path, size) for path, size in sizes.items())


def upload(folder: Path, store: Store, *, skip: tuple[str, ...] = ("lock",)) -> int:
    """Copy every file of ``folder`` that the store lacks or has otherwise; return how many.

    Temporary files stay here. After the files :data:`UPLOADED` is written, so that whoever reads the store can tell a whole
    copy from one that is being made.
    """
    sums = {str(path.relative_to(folder)): _sum(path) for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in (*skip, UPLOADED, DOWNLOADED) and ".part" not in path.name}
    before = _read_json(folder / UPLOADED)
    there = store.sizes()
    changed = [path for path, found in sums.items() if before.get(path) != found or there.get(path) != found["bytes"]]
    for path in changed:
        _send(folder / path, store, path, sums[path]["bytes"])
    if changed:
        _write_json(folder / UPLOADED, sums)
        _send(folder / UPLOADED, store, UPLOADED, (folder / UPLOADED).stat().st_size)
    return len(changed)


def _fetch(store: Store, path: str, size: int, target: Path) -> None:
    part = target.with_name(target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)

    def copy() -> int:
        store.get(path, part)
        return part.stat().st_size

    try:
        _try(copy, size, f"{path} from the store")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _send(source: Path, store: Store, path: str, size: int) -> None:
    def copy() -> int:
        store.put(source, path)
        return store.sizes().get(path, -1)

    _try(copy, size, f"{path} to the store")


def _try(copy: Callable[[], int], size: int, what: str) -> None:
    """Copy until as many bytes arrive as should. Raises ``OSError`` after :data:`TRIES` attempts."""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(2 ** (attempt - 1))
        try:
            found = copy()
        except Exception as error:  # each store raises its own kinds
            problem = f"{type(error).__name__}: {error}"
            continue
        if found == size:
            return
        problem = f"expected {size} bytes, found {found}"
    raise OSError(f"copying {what} failed {TRIES} times: {problem}")


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _sum(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_json(path: Path, content: dict) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")
    part.replace(path)
