"""From LUNA16's folders of MetaImage files to the NIfTI pairs that the rest of the package reads.

LUNA16 (https://luna16.grand-challenge.org) is laid out as ::

    subset0/<uid>.mhd + .raw  ...  subset9/<uid>.mhd + .raw
    seg-lungs-LUNA16/<uid>.mhd + .zraw

and becomes ``train/{image,seg}/<uid>.nii.gz`` and ``val/{image,seg}/<uid>.nii.gz``. Nothing is
resampled and no voxel moves within the array: only the file format changes, and the way a position
is written. MetaImage counts millimetres towards the patient's left, back and head (LPS), NIfTI
towards right, front and head (RAS).
"""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from ..files.metaimage import read_mhd
from ..files.nifti import save_volume
from ..labels import STRUCTURES
from ..volume import BadScanError, Volume, check_same_grid

#: file in the destination that a converting process holds, so that there is only one
LOCK = ".lock"
MASK_FOLDER = "seg-lungs-LUNA16"
MASK_VALUES = (3, 4, 5)  #: left lung, right lung, trachea: in the order of STRUCTURES

# --------------------------------------------------------------------------------- what is reported


@dataclass
class ConversionReport:
    """What became of each scan. Print it for a summary."""

    converted: list[str] = field(default_factory=list)  #: uids written by this call
    existing: list[str] = field(default_factory=list)  #: uids that an earlier call had finished
    skipped: dict[str, str] = field(default_factory=dict)  #: uid -> why there is no output
    #: uid -> what looks odd in a scan written by this call
    warnings: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = f"{len(self.converted)} converted, {len(self.existing)} already there, {len(self.skipped)} skipped"
        skipped = [f"  skipped {uid}: {reason}" for uid, reason in sorted(self.skipped.items())]
        warnings = [f"  warning {uid}: {text}" for uid, text in sorted(self.warnings.items())]
        return "\n".join([counts, *skipped, *warnings])


class ConversionError(ValueError):
    """Some scans could not be converted; ``report`` says which and why, and what was converted."""

    def __init__(self, report: ConversionReport):
        super().__init__(str(report))
        self.report = report


# ---------------------------------------------------------------------------------------- the scans


@dataclass(frozen=True)
class Scan:
    """One scan of the source: where it is and where it goes."""

    uid: str
    image: Path  #: <source>/subset?/<uid>.mhd
    mask: Path  #: <source>/seg-lungs-LUNA16/<uid>.mhd
    destination: Path
    split: str  #: "train" or "val"

    def outputs(self, split: str | None = None) -> tuple[Path, Path]:
        """The image's and the mask's NIfTI file, in the scan's own split or in the one named."""
        folder = self.destination / (split or self.split)
        return folder / "image" / f"{self.uid}.nii.gz", folder / "seg" / f"{self.uid}.nii.gz"


def find_scans(
    source: Path, destination: Path, num_validation: int
) -> tuple[list[Scan], dict[str, str]]:
    """List the scans by subset and uid, and say of each uid without exactly one header why it
    cannot be used.

    The last ``num_validation`` scans of the highest-numbered subset are for validation, bad ones
    counted too, so that repairing one scan never moves another to a different split.
    """
    files = _headers(source)
    if num_validation < 0 or num_validation >= len(files):
        raise ValueError(
            f"num_validation: expected 0 or more and fewer than the {len(files)} scans in {source}, "
            f"found {num_validation}"
        )
    last = max(_subset_number(folders[0].parent) for folders in files.values())
    in_last = sorted(uid for uid, paths in files.items() if _subset_number(paths[0].parent) == last)
    validation = set(in_last[len(in_last) - min(num_validation, len(in_last)) :])
    scans, skipped = [], {}
    for uid, paths in files.items():
        if len(paths) > 1:
            skipped[uid] = f"the same scan is in more than one subset: {', '.join(map(str, paths))}"
        elif not paths[0].is_file():
            skipped[uid] = f"{paths[0]} is missing, though its voxel file is there"
        else:
            split = "val" if uid in validation else "train"
            scans.append(
                Scan(uid, paths[0], source / MASK_FOLDER / f"{uid}.mhd", destination, split)
            )
    return scans, skipped


def _headers(source: Path) -> dict[str, list[Path]]:
    """uid -> its ``.mhd`` (which may be missing, beside a lonely ``.raw``) in each subset that has
    it.
    """
    files: dict[str, list[Path]] = {}
    for subset in sorted(
        folder for folder in source.glob("subset*") if _subset_number(folder) >= 0
    ):
        names = {path.stem for path in subset.iterdir() if path.suffix in (".mhd", ".raw", ".zraw")}
        for uid in sorted(names):
            files.setdefault(uid, []).append(subset / f"{uid}.mhd")
    if not files or not (source / MASK_FOLDER).is_dir():
        found = (
            sorted(path.name for path in source.iterdir())[:6]
            if source.is_dir()
            else "no such folder"
        )
        raise ValueError(
            f"{source} is not in LUNA16's layout. Expected subset0/<uid>.mhd with its .raw, up to "
            f"subset9, and {MASK_FOLDER}/<uid>.mhd; found {found or 'an empty folder'}"
        )
    return files


def _subset_number(folder: Path) -> int:
    """12 for ``subset12``, so that it follows ``subset9``; -1 for any other name."""
    match = re.fullmatch(r"subset(\d+)", folder.name)
    return int(match[1]) if match and folder.is_dir() else -1


# ----------------------------------------------------------------------------------------- checking


def _to_hu(volume: Volume, path: Path) -> Volume:
    """int16 HU, refusing values that int16 would change."""
    array = volume.array
    if array.dtype != np.int16:
        with np.errstate(invalid="ignore"):  # not-a-number is found by the comparison
            converted = array.astype(np.int16)
        if not np.array_equal(converted, array):
            raise BadScanError(
                f"{path}: expected whole HU from -32768 to 32767, found {array.dtype} from "
                f"{array.min()} to {array.max()}"
            )
        array = converted
    return Volume(array, volume.affine)


def _to_mask(mask: Volume, scan: Volume, path: Path) -> Volume:
    """uint8 with LUNA16's values 3, 4 and 5 kept and all others 0, on exactly the scan's grid."""
    check_same_grid(path, mask.grid, "the scan", scan.grid)
    kept = np.zeros(mask.array.shape, np.uint8, order="F")
    for value in MASK_VALUES:
        kept[mask.array == value] = value
    if not kept.any():
        raise BadScanError(
            f"{path}: expected label values {MASK_VALUES}, found {np.unique(mask.array)[:9].tolist()}"
        )
    return Volume(kept, scan.affine)


def odd_anatomy(mask: Volume, values: tuple[int, int, int] = MASK_VALUES) -> str | None:
    """Say which structures are absent, or that the left lung lies to the right of the right lung;

    ``None`` if all is well.

    ``values`` are those of left lung, right lung and trachea. The sides are a matter of geometry:
    the file may be perfect in form. People with mirrored organs exist, so this is a reason to look
    and not an error.
    """
    absent = [
        name
        for name, value in zip(STRUCTURES, values, strict=True)
        if not (mask.array == value).any()
    ]
    if absent:
        return f"the mask has no {', no '.join(absent)}"
    left, right = (_center(mask.array == value, mask.affine)[0] for value in values[:2])
    if left >= right:
        return (
            f"left and right lung look swapped: the left one's centre is {left - right:.0f} mm further to the "
            f"patient's right"
        )
    return None


def _center(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Centre of a mask in RAS mm, from its profile along each axis: far less memory than a list of
    its voxels.
    """
    profiles = [mask.sum(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    index = [np.average(np.arange(len(profile)), weights=profile) for profile in profiles]
    return affine[:3, :3] @ index + affine[:3, 3]


# --------------------------------------------------------------------------------------- converting


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    num_validation: int = 10,
    skip_bad: bool = False,
    processes: int | None = None,
) -> ConversionReport:
    """Convert a folder in LUNA16's layout to ``destination/{train,val}/{image,seg}/<uid>.nii.gz``.

    Images are int16 HU. Masks are uint8 and keep 3 left lung, 4 right lung and 5 trachea; every
    other value becomes 0, background. The validation scans are the last ``num_validation``, by uid,
    of the highest-numbered subset. Pairs that an earlier call finished are kept, unless their
    source files are newer, so an interrupted call can be repeated; a second call at the same time
    is refused. There are as many ``processes`` as cores, if ``None``; 1 means this one. Each holds
    one scan and its mask, in no more than three times the scan's size as int16.

    Raises ``ValueError`` if ``source`` has another layout and ``OSError`` if a file cannot be
    written, for example because the disk is full. A scan that cannot be used is left out and the
    others are converted; then :class:`ConversionError` lists it, unless ``skip_bad``.
    """
    source, destination = Path(source), Path(destination)
    # Refuses another layout before anything is made.
    find_scans(source, destination, num_validation)
    destination.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(destination / LOCK, timeout=0):
            return _convert_all(source, destination, num_validation, skip_bad, processes)
    except Timeout as error:
        raise RuntimeError(
            f"{destination}: another process converts into this folder; wait until it has ended"
        ) from error


def _convert_all(
    source: Path, destination: Path, num_validation: int, skip_bad: bool, processes: int | None
):
    scans, skipped = find_scans(source, destination, num_validation)
    report = ConversionReport(skipped=skipped)
    _remove_parts(destination)
    todo = [scan for scan in scans if not _is_done(scan)]
    report.existing = sorted({scan.uid for scan in scans} - {scan.uid for scan in todo})
    for uid, reason, warning in tqdm(
        _run(todo, processes), "Converting", len(todo), unit="scan", disable=not todo
    ):
        if reason is not None:
            report.skipped[uid] = reason
            continue
        report.converted.append(uid)
        if warning is not None:
            report.warnings[uid] = warning
    report.converted.sort()
    if report.skipped and not skip_bad:
        raise ConversionError(report)
    return report


def _convert_one(scan: Scan) -> tuple[str, str | None, str | None]:
    """Write one pair. Returns the uid, why it was skipped or ``None``, and a warning or ``None``."""
    image_path, mask_path = scan.outputs()
    # A pair counts as done while both are there; this one is out of date.
    _remove(image_path, mask_path)
    try:
        image = _to_hu(read_mhd(scan.image), scan.image)
        mask = _to_mask(read_mhd(scan.mask), image, scan.mask)
    except BadScanError as error:
        return scan.uid, str(error), None
    try:
        save_volume(mask, mask_path)
        save_volume(image, image_path)
    except BaseException:  # a full disk, Ctrl-C: no mask without its image stays behind
        _remove(image_path, mask_path)
        raise
    return scan.uid, None, odd_anatomy(mask)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _run(scans: list[Scan], processes: int | None) -> Iterator[tuple[str, str | None, str | None]]:
    """Convert in ``processes`` processes, giving each result as it comes."""
    if processes is not None and processes < 1:
        raise ValueError(f"processes: expected at least 1, found {processes}")
    processes = min(processes or (os.cpu_count() or 1), len(scans))
    if processes <= 1:
        yield from map(_convert_one, scans)
        return
    # Fresh interpreters: a fork of a process in which MindSpore runs its threads can hang.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        yield from (
            future.result()
            for future in as_completed([pool.submit(_convert_one, scan) for scan in scans])
        )
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a converting process died: out of memory, or convert() was called from a script without "
            "if __name__ == '__main__'. processes=1 needs neither"
        ) from error
    finally:
        # After Ctrl-C, finish the scans in hand and begin no other.
        pool.shutdown(cancel_futures=True)


def _is_done(scan: Scan) -> bool:
    """Whether both outputs are there and no source file is newer; a pair in the other split is
    moved over first.

    A scan changes split when a higher-numbered subset is added. Left behind, it would be trained on
    and validated with.
    """
    pair = scan.outputs()
    for old, new in zip(scan.outputs("train" if scan.split == "val" else "val"), pair, strict=True):
        if old.is_file():
            new.parent.mkdir(parents=True, exist_ok=True)
            old.replace(new)
    if not all(path.is_file() for path in pair):
        return False
    sources = [
        path.with_name(path.stem + end)
        for path in (scan.image, scan.mask)
        for end in (".mhd", ".raw", ".zraw")
    ]
    newest = max(path.stat().st_mtime for path in sources if path.is_file())
    return min(path.stat().st_mtime for path in pair) >= newest


def _remove_parts(destination: Path) -> None:
    """Delete half-written files of an earlier call that was killed."""
    for path in destination.glob("*/*/*.part.nii.gz"):
        path.unlink()
