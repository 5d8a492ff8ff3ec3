"""Unpack the archives of a data set.

They come from elsewhere, so their content is checked before anything is written.
"""

import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from .layout import SCAN_SUFFIXES

PIECE = 1 << 20  #: bytes copied at once


class ArchiveError(ValueError):
    """An archive that cannot be unpacked. The message names it."""


def unpack(archive: str | Path, folder: str | Path) -> Path:
    """Unpack the scan files of a ``.zip`` or ``.rar``, all of them or none.

    They are written to ``folder/<name of the archive>``, without the folders of the archive.

    Returns that folder. Raises :class:`ArchiveError` if the archive is damaged, contains no scans,
    or contains a path that leads out of it (checked before anything is written). Raises ``OSError``
    if there is not enough space on the disk. A compressed ``.rar`` needs one of the programs unrar,
    unar, 7z or bsdtar.
    """
    archive, folder = Path(archive), Path(folder)
    target = folder / archive.stem
    # Always the same name, so that the leftovers of a killed process are found and removed.
    part = folder / f".{archive.stem}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        with _opened(archive) as packed:
            members = _scan_files(packed.infolist(), archive)
            size = sum(member.file_size for member in members.values())
            check_room(folder, size, f"the scans of {archive.name}")
            part.mkdir(parents=True)
            for name, member in tqdm(members.items(), f"Unpacking {archive.name}", unit="file"):
                with packed.open(member) as source, (part / name).open("wb") as copy:
                    shutil.copyfileobj(source, copy, PIECE)
        if target.is_dir():
            target.rmdir()  # empty, or it would count as unpacked
        return part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_room(folder: Path, needed: float, what: str) -> None:
    """Raise ``OSError`` if the disk of ``folder`` has less than ``needed`` bytes free.

    The folder need not exist yet. ``what`` names the files that need the space, for the message.
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(
            f"{folder}: {what} need {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free. "
            "Make room, choose another disk or fetch fewer subsets"
        )


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive, and turn the errors of zipfile and rarfile into :class:`ArchiveError`.

    For a ``.rar`` it yields rarfile's object, which has the same methods as zipfile's.
    """
    import rarfile

    kind = rarfile.RarFile if archive.suffix == ".rar" else zipfile.ZipFile
    try:
        with kind(archive) as packed:
            yield packed
    except rarfile.RarCannotExec as error:
        raise ArchiveError(
            f"{archive}: to unpack .rar, install one of unrar, unar, 7z or bsdtar; "
            f"or unpack it by hand next to the archive, to a folder {archive.stem}"
        ) from error
    except NotImplementedError as error:
        raise ArchiveError(
            f"{archive} is packed in a way that Python cannot unpack ({error}). "
            f"Unpack it with 7-Zip next to the archive, to a folder {archive.stem}"
        ) from error
    except (zipfile.BadZipFile, rarfile.Error, zlib.error, EOFError) as error:
        raise ArchiveError(
            f"{archive} is damaged: {error}. Delete it and fetch it again"
        ) from error


def _scan_files(members: list[zipfile.ZipInfo], archive: Path) -> dict[str, zipfile.ZipInfo]:
    """Check every path in the archive, and return name -> member for the scan files."""
    scans: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if _leads_out(path):
            raise ArchiveError(
                f"{archive}: the path {member.filename!r} leads out of the archive. "
                "Nothing was unpacked: this is not the published file"
            )
        if path.suffix not in SCAN_SUFFIXES or member.is_dir():
            continue
        if path.name in scans:
            raise ArchiveError(f"{archive}: expected each scan once, found {path.name} twice")
        scans[path.name] = member
    if not scans:
        raise ArchiveError(f"{archive}: expected scans ({', '.join(SCAN_SUFFIXES)}), found none")
    return scans


def _leads_out(path: PurePosixPath) -> bool:
    """Whether a path is absolute, names a drive such as ``C:``, or contains ``..``."""
    has_drive = any(":" in part for part in path.parts[:1])  # "./" has no parts
    return path.is_absolute() or ".." in path.parts or has_drive
