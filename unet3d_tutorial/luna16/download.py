"""Download the missing parts of LUNA16 from its public archive, and unpack them.

LUNA16 is in two Zenodo records, https://doi.org/10.5281/zenodo.3723295 (subsets 0 to 6 and the lung
masks) and https://doi.org/10.5281/zenodo.4121926 (subsets 7 to 9). File sizes and MD5 sums are
those that the records state. libcurl downloads the files, so proxies are set as for any program
that uses it (``https_proxy``).
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from ..files.lock import only_one
from .archives import check_room, unpack
from .layout import LOCK, MASK_FOLDER
from .transfer import DownloadError, Progress, RemoteFile, download_bytes, download_file

API = "https://zenodo.org/api/records"
SUBSETS = range(10)
#: folder of scans -> the record that holds its archive
RECORDS = {f"subset{n}": 3723295 if n < 7 else 4121926 for n in SUBSETS} | {MASK_FOLDER: 3723295}
#: approximate bytes of scans per byte of archive; the exact size is known after the download
UNPACKED = 2


def download_luna16(
    folder: str | Path, subsets: Iterable[int] = SUBSETS, *, api: str = API
) -> list[str]:
    """Put the missing ones of ``subsets``, and the lung masks, into ``folder``.

    Scans are written to ``folder/subset<n>`` and masks to ``folder/seg-lungs-LUNA16``. A folder
    that contains scans counts as complete. An archive of the same name next to it, ``.zip`` or
    ``.rar``, is unpacked and kept. Whatever is still missing is downloaded to ``folder/download``;
    these archives are deleted after unpacking. An interrupted call can be repeated and resumes
    where it stopped. A second process on the same folder waits for the first.

    Returns the names of the folders that were missing. Raises ``ValueError`` for a subset that does
    not exist, :class:`~unet3d_tutorial.luna16.transfer.DownloadError` if the download fails,
    ``OSError`` if there is too little disk space (checked first), and
    :class:`~unet3d_tutorial.luna16.archives.ArchiveError` for an archive that is damaged or would
    write outside the folder.
    """
    folder = Path(folder)
    names = [*(f"subset{n}" for n in subsets), MASK_FOLDER]
    for name in names:
        if name not in RECORDS:
            number = name.removeprefix("subset")
            raise ValueError(f"subsets: expected numbers from 0 to 9, found {number}")
    missing = [name for name in names if not _has_scans(folder / name)]
    if not missing:
        return []

    to_download = [name for name in missing if _own_archive(folder, name) is None]
    remote = _find_remote(to_download, api)
    _check_room_for(list(remote.values()), folder)
    total = sum(file.size for file in remote.values())
    busy = f"Another process works on {folder}; waiting for it"
    with (
        only_one(folder / LOCK, busy, wait=True),
        tqdm(desc="Fetching", total=total, unit="B", unit_scale=True, disable=not remote) as bar,
    ):
        for name in missing:
            # The process that we waited for may have fetched it.
            if not _has_scans(folder / name):
                _bring(folder, name, remote.get(name), bar.update)
    return missing


def _bring(folder: Path, name: str, remote: RemoteFile | None, progress: Progress) -> None:
    """Unpack the user's own archive; or download ``remote``, unpack it and delete it."""
    own = _own_archive(folder, name)
    if own is not None:
        unpack(own, folder)
        return
    if remote is None:
        raise FileNotFoundError(f"{folder / name}.zip or .rar was there a moment ago")
    archive = folder / "download" / f"{name}.zip"
    archive.parent.mkdir(exist_ok=True)
    download_file(remote, archive, progress)
    unpack(archive, folder)
    archive.unlink()
    if not any(archive.parent.iterdir()):
        archive.parent.rmdir()


def _has_scans(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.mhd"))


def _own_archive(folder: Path, name: str) -> Path | None:
    """The archive that the user has put there; ``None`` without one."""
    for suffix in (".zip", ".rar"):
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return path
    return None


def _find_remote(names: list[str], api: str) -> dict[str, RemoteFile]:
    """Return name -> archive to download."""
    numbers = sorted({RECORDS[name] for name in names})
    records = {number: read_record(number, api) for number in numbers}
    files = {}
    for name in names:
        record = records[RECORDS[name]]
        if f"{name}.zip" not in record:
            raise DownloadError(
                f"record {RECORDS[name]} of {api} has no {name}.zip, but {sorted(record)}"
            )
        files[name] = record[f"{name}.zip"]
    return files


def _check_room_for(files: list[RemoteFile], folder: Path) -> None:
    """Raise ``OSError`` unless there is space for all scans and one archive at a time."""
    sizes = [file.size for file in files]
    needed = sum(sizes) * UNPACKED + max(sizes, default=0)
    check_room(folder, needed, f"{len(files)} archives and their scans")


# --------------------------------------------------------------------------------- Zenodo's records


def read_record(number: int, api: str = API) -> dict[str, RemoteFile]:
    """Return the files of a Zenodo record by name, with the stated sizes and MD5 sums.

    Raises :class:`~unet3d_tutorial.luna16.transfer.DownloadError`.
    """
    url = f"{api}/{number}"
    text = download_bytes(url)
    try:
        return {file["key"]: _remote_file(file) for file in json.loads(text)["files"]}
    except (ValueError, TypeError, KeyError) as error:
        raise DownloadError(
            f"{url}: expected a record with files, each with key, size, checksum and links.self, "
            f"found {text[:80]!r}"
        ) from error


def _remote_file(entry: dict) -> RemoteFile:
    """Convert one entry of a record's files; its checksum is ``md5:`` and 32 digits."""
    kind, _, digits = entry["checksum"].partition(":")
    if kind != "md5" or len(digits) != 32:
        raise ValueError(f"expected md5:, found {entry['checksum']}")
    return RemoteFile(entry["links"]["self"], int(entry["size"]), digits)
