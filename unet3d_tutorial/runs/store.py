"""Remote stores such as S3 or OBS, as folders: list their files, and copy one from or to them.

Addresses are those of fsspec: ``s3://bucket/folder``, ``file:///folder``, ``sftp://...``. OBS
supports the S3 protocol. Keys and end points come from environment variables of the store's
library, such as ``AWS_ACCESS_KEY_ID`` and ``AWS_ENDPOINT_URL``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import fsspec

from ..config import RemoteConfig

#: Names that stores use for a value that changes with a file's content, the most reliable first: a
#: checksum of the content, or the time when it was written.
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
    """What is known about a file without reading it."""

    bytes: int
    #: changes when the file is replaced, even by one of the same size; None if unknown
    version: str | None = None
    #: checksum of the content, noted when the file was copied; stores do not give it
    sha256: str | None = None


class Store(Protocol):
    """A folder in a store; ``path`` is relative to this folder."""

    def entries(self) -> dict[str, Entry]:
        """Return each file below the folder, by relative path."""

    def get(self, path: str, target: Path) -> None:
        """Copy one file from the store."""

    def put(self, source: Path, path: str) -> None:
        """Copy one file to the store, replacing an existing one."""


class FsspecStore:
    """A folder in any store that fsspec supports."""

    def __init__(self, url: str) -> None:
        self.files, self.root = fsspec.url_to_fs(
            url.rstrip("/"), use_listings_cache=False, skip_instance_cache=True
        )

    def entries(self) -> dict[str, Entry]:
        entries = {}
        for name, details in self.files.find(self.root, detail=True).items():
            path = name[len(self.root) :].lstrip("/")
            entries[path] = Entry(int(details["size"]), _version(details))
        return entries

    def get(self, path: str, target: Path) -> None:
        self.files.get_file(f"{self.root}/{path}", str(target))

    def put(self, source: Path, path: str) -> None:
        target = f"{self.root}/{path}"
        self.files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self.files.put_file(str(source), target)


class MoxingStore:
    """A folder in OBS, through moxing, the library of the ModelArts service.

    Raises ``ValueError`` if moxing is not installed.
    """

    def __init__(self, url: str) -> None:
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
        entries = {}
        for path in self.files.list_directory(self.root, recursive=True):
            details = self.files.stat(f"{self.root}/{path}")
            if not details.is_directory:
                entries[path] = Entry(int(details.length), str(details.mtime_nsec))
        return entries

    def get(self, path: str, target: Path) -> None:
        self.files.copy(f"{self.root}/{path}", str(target))

    def put(self, source: Path, path: str) -> None:
        self.files.copy(str(source), f"{self.root}/{path}")


def open_store(url: str, options: RemoteConfig) -> Store:
    """Open the store of a folder's address.

    Raises ``ValueError`` for an address that no installed library can open.
    """
    if options.enable_modelarts:
        return MoxingStore(url)
    try:
        return FsspecStore(url)
    except (ValueError, ImportError) as error:
        raise ValueError(f"remote: {url} cannot be opened: {error}") from error


def _version(details: Mapping[str, Any]) -> str | None:
    """The version among the details that fsspec gives of a file; ``None`` without one."""
    for name in VERSIONS:
        if details.get(name):
            return str(details[name])
    return None
