"""LUNA16 from its public archive to folders of scans: what is missing is fetched, checked and
unpacked.

LUNA16 lies at Zenodo in two records, https://doi.org/10.5281/zenodo.3723295 (subsets 0 to 6 and the
lung masks) and https://doi.org/10.5281/zenodo.4121926 (subsets 7 to 9). Sizes and MD5 sums are
those that the records state. libcurl does the downloading, so proxies are set as for every program
that uses it (``https_proxy``).
"""

import json
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from .archives import check_room, unpack
from .conversion import LOCK, MASK_FOLDER
from .http import DownloadError, RemoteFile, download, download_text

API = "https://zenodo.org/api/records"
#: folder of scans -> the record that holds its archive
RECORDS = {**{f"subset{n}": 3723295 if n < 7 else 4121926 for n in range(10)}, MASK_FOLDER: 3723295}
#: bytes of scans for a byte of archive, about; known exactly, and looked at again, once it is here
UNPACKED = 2


def fetch(folder: str | Path, subsets: Iterable[int] = range(10), *, api: str = API) -> list[str]:
    """Bring ``folder/subset<n>`` for ``subsets``, and the masks, to ``folder``; return the names
    that were missing.

    A folder with scans in it counts as there. An archive of the same name beside it, ``.zip`` or
    ``.rar``, is unpacked and kept; only what is missing then is downloaded, to ``folder/download``,
    and deleted once unpacked. An interrupted call goes on where it stopped. A second process on the
    same folder waits for the first.

    Raises :class:`DownloadError` if the archive cannot be reached, ``OSError`` if there is too
    little room on the disk, which is looked at first, and
    :class:`~unet3d_tutorial.luna16.archives.ArchiveError` for an archive that is damaged or would
    write elsewhere.
    """
    folder = Path(folder)
    names = [*(f"subset{n}" for n in subsets), MASK_FOLDER]
    if unknown := [name for name in names if name not in RECORDS]:
        raise ValueError(
            f"subsets: expected numbers from 0 to 9, found {unknown[0].removeprefix('subset')}"
        )
    missing = [name for name in names if not _is_there(folder / name)]
    if not missing:
        return []
    plan = _plan([name for name in missing if not _own_archive(folder, name)], folder, api)
    with _only_process(folder):
        total = sum(file.size for file in plan.values())
        with tqdm(desc="Fetching", total=total, unit="B", unit_scale=True, disable=not plan) as bar:
            for name in (name for name in missing if not _is_there(folder / name)):
                _fetch_one(folder, name, plan.get(name), bar.update)
    return missing


def _fetch_one(
    folder: Path, name: str, file: RemoteFile | None, progress: Callable[[int], object]
) -> None:
    own = _own_archive(folder, name)
    archive = own or folder / "download" / f"{name}.zip"
    if own is None:
        archive.parent.mkdir(exist_ok=True)
        download(file, archive, progress)
    unpack(archive, folder)
    if own is None:
        archive.unlink()
        if not any(archive.parent.iterdir()):
            archive.parent.rmdir()


def _is_there(scans: Path) -> bool:
    return scans.is_dir() and any(scans.glob("*.mhd"))


def _own_archive(folder: Path, name: str) -> Path | None:
    return next(
        (path for suffix in (".zip", ".rar") if (path := folder / f"{name}{suffix}").is_file()),
        None,
    )


def _plan(names: list[str], folder: Path, api: str) -> dict[str, RemoteFile]:
    """What to download for each name; refused if the disk has no room for archives and scans."""
    records = {
        number: read_record(number, api) for number in sorted({RECORDS[name] for name in names})
    }
    plan = {}
    for name in names:
        if f"{name}.zip" not in records[RECORDS[name]]:
            raise DownloadError(
                f"record {RECORDS[name]} of {api} has no {name}.zip, but {sorted(records[RECORDS[name]])}"
            )
        plan[name] = records[RECORDS[name]][f"{name}.zip"]
    sizes = [file.size for file in plan.values()]
    check_room(
        folder,
        sum(sizes) * UNPACKED + max(sizes, default=0),
        f"{len(plan)} archives and their scans",
    )
    return plan


@contextmanager
def _only_process(folder: Path):
    """Hold the folder's lock, waiting for another process if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tqdm.write(f"Another process works on {folder}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def read_record(number: int, api: str = API) -> dict[str, RemoteFile]:
    """The files of a Zenodo record by name, with the size and MD5 sum that Zenodo states."""
    url = f"{api}/{number}"
    text = download_text(url)
    try:
        files = {
            file["key"]: (file["links"]["self"], file["size"], file["checksum"])
            for file in json.loads(text)["files"]
        }
        return {
            key: RemoteFile(link, int(size), _md5(checksum))
            for key, (link, size, checksum) in files.items()
        }
    except (ValueError, TypeError, KeyError) as error:
        raise DownloadError(
            f"{url}: expected a record with files, each with key, size, checksum and links.self, found "
            f"{text[:80]!r}"
        ) from error


def _md5(checksum: str) -> str:
    kind, _, digits = checksum.partition(":")
    if kind != "md5" or len(digits) != 32:
        raise ValueError(f"expected md5:, found {checksum}")
    return digits
