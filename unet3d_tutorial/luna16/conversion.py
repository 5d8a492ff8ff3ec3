"""Convert LUNA16's MetaImage files to the NIfTI pairs that the rest of the package reads.

Nothing is resampled and no voxel moves within the array. Only the file format and the coordinate
convention change: MetaImage counts millimetres towards the patient's left, back and head (LPS),
NIfTI towards right, front and head (RAS). :mod:`~unet3d_tutorial.luna16.layout` defines which file
goes where.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..files.lock import only_one
from ..files.metaimage import read_mhd
from ..files.nifti import save_volume
from ..files.pool import map_in_processes
from ..volume import BadScanError, Volume, check_same_grid
from .anatomy import odd_anatomy
from .layout import LOCK, MASK_VALUES, Scan, find_scans


@dataclass
class ConversionReport:
    """What became of each scan. Print it for a summary."""

    converted: list[str] = field(default_factory=list)  #: UIDs written by this call
    existing: list[str] = field(default_factory=list)  #: UIDs that an earlier call had finished
    skipped: dict[str, str] = field(default_factory=dict)  #: UID -> why there is no output
    #: UID -> what looks odd in a scan written by this call
    warnings: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = (
            f"{len(self.converted)} converted, {len(self.existing)} already there, "
            f"{len(self.skipped)} skipped"
        )
        skipped = [f"  skipped {uid}: {reason}" for uid, reason in sorted(self.skipped.items())]
        warnings = [f"  warning {uid}: {text}" for uid, text in sorted(self.warnings.items())]
        return "\n".join([counts, *skipped, *warnings])


class ConversionError(ValueError):
    """Some scans could not be converted; ``report`` lists them, why, and what was converted."""

    def __init__(self, report: ConversionReport):
        super().__init__(str(report))
        self.report = report


@dataclass(frozen=True)
class _Outcome:
    """What became of one scan."""

    uid: str
    reason: str | None = None  #: why it was skipped
    warning: str | None = None  #: what looks odd


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
    other value becomes 0, background. The validation scans are the last ``num_validation``, by UID,
    of the highest-numbered subset. Pairs that an earlier call finished are kept unless their source
    files are newer, so an interrupted call can be repeated. ``processes`` is the number of
    processes that convert; ``None`` means one per core, 1 only this one. Each holds one scan and
    its mask, which takes at most three times the scan's size as int16.

    Raises ``ValueError`` if ``source`` has another layout, ``RuntimeError`` if another process
    is writing to ``destination``, and ``OSError`` if a file cannot be written, for example because
    the disk is full. A scan that cannot be used is skipped and the others are converted; then
    :class:`ConversionError` lists the skipped scans, unless ``skip_bad``.
    """
    source, destination = Path(source), Path(destination)
    # Refuse another layout before anything is written.
    find_scans(source, destination, num_validation)
    busy = (
        f"{destination}: another process converts into this folder; "
        "wait until process {process} has ended"
    )
    with only_one(destination / LOCK, busy):
        # Again: the files may have changed before we held the lock.
        scans, skipped = find_scans(source, destination, num_validation)
        report = _convert_all(scans, processes)
    report.skipped.update(skipped)
    if report.skipped and not skip_bad:
        raise ConversionError(report)
    return report


def _convert_all(scans: list[Scan], processes: int | None) -> ConversionReport:
    report = ConversionReport()
    todo = []
    for scan in scans:
        _move_from_other_split(scan)
        if _is_up_to_date(scan):
            report.existing.append(scan.uid)
        else:
            todo.append(scan)
    report.existing.sort()

    outcomes = map_in_processes(_convert_one, todo, processes)
    for outcome in tqdm(outcomes, "Converting", len(todo), unit="scan", disable=not todo):
        if outcome.reason is not None:
            report.skipped[outcome.uid] = outcome.reason
            continue
        report.converted.append(outcome.uid)
        if outcome.warning is not None:
            report.warnings[outcome.uid] = outcome.warning
    report.converted.sort()
    return report


def _move_from_other_split(scan: Scan) -> None:
    """Move the files that an earlier call wrote for the scan to the other split.

    A scan changes its split when a higher-numbered subset is added. If the old files stayed, it
    would be used for both training and validation.
    """
    for old, new in zip(scan.outputs_of_other_split, scan.outputs, strict=True):
        if old.is_file():
            new.parent.mkdir(parents=True, exist_ok=True)
            old.replace(new)


def _is_up_to_date(scan: Scan) -> bool:
    """Whether both output files exist and no source file is newer."""
    if not all(path.is_file() for path in scan.outputs):
        return False
    written = min(path.stat().st_mtime for path in scan.outputs)
    return written >= max(path.stat().st_mtime for path in scan.sources)


# ----------------------------------------------------------------------------------------- one scan


def _convert_one(scan: Scan) -> _Outcome:
    """Write one pair of files, or neither."""
    image_path, mask_path = scan.outputs
    # A pair counts as done if both files exist; this one is incomplete or out of date.
    _remove(image_path, mask_path)
    try:
        image = _to_hu(read_mhd(scan.image), scan.image)
        mask = _to_mask(read_mhd(scan.mask), image, scan.mask)
    except BadScanError as error:
        return _Outcome(scan.uid, reason=str(error))
    try:
        save_volume(mask, mask_path)
        save_volume(image, image_path)
    except BaseException:  # a full disk, Ctrl-C: leave no mask without its image
        _remove(image_path, mask_path)
        raise
    return _Outcome(scan.uid, warning=odd_anatomy(mask))


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _to_hu(volume: Volume, path: Path) -> Volume:
    """Convert to int16 HU; refuse values that int16 would change."""
    array = volume.array
    if array.dtype == np.int16:
        return volume
    with np.errstate(invalid="ignore"):  # NaN differs from what it becomes, so it is refused
        converted = array.astype(np.int16)
    if not np.array_equal(converted, array):
        raise BadScanError(
            f"{path}: expected whole HU from -32768 to 32767, found {array.dtype} from "
            f"{array.min()} to {array.max()}"
        )
    return Volume(converted, volume.affine)


def _to_mask(mask: Volume, scan: Volume, path: Path) -> Volume:
    """Convert to uint8, keep the values 3, 4 and 5, and set all others to 0.

    The result has exactly the scan's affine. Raises
    :class:`~unet3d_tutorial.volume.BadScanError` if the grids differ or no structure is left.
    """
    check_same_grid(path, mask.grid, "the scan", scan.grid)
    kept = np.zeros(mask.array.shape, np.uint8, order="F")
    for value in MASK_VALUES:
        kept[mask.array == value] = value
    if not kept.any():
        values = np.unique(mask.array)[:9].tolist()
        raise BadScanError(f"{path}: expected label values {MASK_VALUES}, found {values}")
    return Volume(kept, scan.affine)
