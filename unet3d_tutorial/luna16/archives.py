"""Unpack the archives of a data set, which come from elsewhere and are not trusted to be what they
say.
"""

import shutil
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tqdm import tqdm

SUFFIXES = (".mhd", ".raw", ".zraw")
PIECE = 1 << 20  # bytes copied at once


class ArchiveError(ValueError):
    """An archive that cannot be unpacked. The message names it."""


def unpack(archive: str | Path, folder: str | Path) -> Path:
    """Unpack the scan files of a ``.zip`` or ``.rar`` to ``folder/<name of the archive>``, all of
    them or none.

    Folders within the archive do not matter, only the scans' names. Raises :class:`ArchiveError` if
    the archive is damaged or holds a path that leads out of it, before anything is written, and
    ``OSError`` if the disk is full. A packed ``.rar`` needs one of the programs unrar, unar, 7z or
    bsdtar.
    """
    archive, folder = Path(archive), Path(folder)
    target, part = folder / archive.stem, folder / f".{archive.stem}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        with _opened(archive) as packed:
            members = _scan_files(packed.infolist(), archive)
            check_room(
                folder,
                sum(member.file_size for member in members.values()),
                f"the scans of {archive.name}",
            )
            part.mkdir(parents=True)
            for name, member in tqdm(members.items(), f"Unpacking {archive.name}", unit="file"):
                with packed.open(member) as source, (part / name).open("wb") as copy:
                    shutil.copyfileobj(source, copy, PIECE)
        if target.is_dir():
            target.rmdir()  # empty, or it would count as unpacked
        return part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _opened(archive: Path):
    """The archive as an object of zipfile's kind; what zipfile and rarfile raise becomes
    :class:`ArchiveError`.
    """
    import rarfile

    try:
        with (rarfile.RarFile if archive.suffix == ".rar" else zipfile.ZipFile)(archive) as packed:
            yield packed
    except rarfile.RarCannotExec as error:
        raise ArchiveError(
            f"{archive}: to unpack .rar, install one of unrar, unar, 7z or bsdtar; or unpack it by hand "
            f"beside the archive, to a folder {archive.stem}"
        ) from error
    except NotImplementedError as error:
        raise ArchiveError(
            f"{archive} is packed in a way that Python cannot unpack ({error}). Unpack it with 7-Zip beside "
            f"the archive, to a folder {archive.stem}"
        ) from error
    except (zipfile.BadZipFile, rarfile.Error, zlib.error, EOFError) as error:
        raise ArchiveError(
            f"{archive} is damaged: {error}. Delete it and fetch it again"
        ) from error


def _scan_files(members: list, archive: Path) -> dict[str, object]:
    """Name -> member of all scan files, after a look at every path."""
    found = {}
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if (
            path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1])
        ):  # "./" has no parts
            raise ArchiveError(
                f"{archive}: the path {member.filename!r} leads out of the archive. Nothing was unpacked: "
                "this is not the published file"
            )
        if path.suffix in SUFFIXES and not member.is_dir():
            if path.name in found:
                raise ArchiveError(f"{archive}: expected each scan once, found {path.name} twice")
            found[path.name] = member
    if not found:
        raise ArchiveError(f"{archive}: expected scans ({', '.join(SUFFIXES)}), found none")
    return found


def check_room(folder: Path, needed: float, what: str) -> None:
    """Raise ``OSError`` if the disk of ``folder``, which may not be there yet, has less than
    ``needed`` bytes free.
    """
    existing = next(
        path for path in [folder.absolute(), *folder.absolute().parents] if path.exists()
    )
    if (free := shutil.disk_usage(existing).free) < needed:
        raise OSError(
            f"{folder}: {what} need {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free. Make room, choose "
            "another disk or fetch fewer subsets"
        )
