"""Where LUNA16 keeps its scans, and where they go.

LUNA16 (https://luna16.grand-challenge.org) is laid out as ::

    subset0/<uid>.mhd + .raw  ...  subset9/<uid>.mhd + .raw
    seg-lungs-LUNA16/<uid>.mhd + .zraw

and becomes ``train/{image,seg}/<uid>.nii.gz`` and ``val/{image,seg}/<uid>.nii.gz``.
"""

import re
from dataclasses import dataclass
from pathlib import Path

MASK_FOLDER = "seg-lungs-LUNA16"
MASK_VALUES = (3, 4, 5)  #: left lung, right lung, trachea: in the order of STRUCTURES
LOCK = ".lock"  #: lock file, so that only one process at a time works on a folder
SCAN_SUFFIXES = (".mhd", ".raw", ".zraw")  #: a header, and its voxels plain or compressed


@dataclass(frozen=True)
class Scan:
    """One scan of the source: where it is and where it goes."""

    uid: str
    image: Path  #: <source>/subset?/<uid>.mhd
    mask: Path  #: <source>/seg-lungs-LUNA16/<uid>.mhd
    destination: Path
    split: str  #: "train" or "val"

    @property
    def outputs(self) -> tuple[Path, Path]:
        """The NIfTI files of the image and the mask."""
        return self._outputs(self.split)

    @property
    def outputs_of_other_split(self) -> tuple[Path, Path]:
        """The same two files if the scan were in the other split."""
        return self._outputs("val" if self.split == "train" else "train")

    @property
    def sources(self) -> list[Path]:
        """The source files of the scan and its mask that exist."""
        names = [
            path.with_suffix(suffix) for path in (self.image, self.mask) for suffix in SCAN_SUFFIXES
        ]
        return [path for path in names if path.is_file()]

    def _outputs(self, split: str) -> tuple[Path, Path]:
        folder = self.destination / split
        name = f"{self.uid}.nii.gz"
        return folder / "image" / name, folder / "seg" / name


def find_scans(
    source: Path, destination: Path, num_validation: int
) -> tuple[list[Scan], dict[str, str]]:
    """List the scans by subset and UID, and the UIDs that cannot be used, with reasons.

    The last ``num_validation`` scans of the highest-numbered subset are for validation. Unusable
    scans count too, so that repairing one scan never moves another to a different split.

    Returns the scans that have exactly one header, and UID -> reason for the others. Raises
    ``ValueError`` if ``source`` has another layout or too few scans.
    """
    headers = _find_headers(source)
    if not 0 <= num_validation < len(headers):
        raise ValueError(
            f"num_validation: expected 0 or more and fewer than the {len(headers)} scans in "
            f"{source}, found {num_validation}"
        )
    validation = _validation_uids(headers, num_validation)
    scans = []
    skipped = {}
    for uid, paths in headers.items():
        if len(paths) > 1:
            places = ", ".join(map(str, paths))
            skipped[uid] = f"the same scan is in more than one subset: {places}"
        elif not paths[0].is_file():
            skipped[uid] = f"{paths[0]} is missing, though its voxel file is there"
        else:
            mask = source / MASK_FOLDER / f"{uid}.mhd"
            split = "val" if uid in validation else "train"
            scans.append(Scan(uid, paths[0], mask, destination, split))
    return scans, skipped


def _validation_uids(headers: dict[str, list[Path]], count: int) -> set[str]:
    """The last ``count`` UIDs of the highest-numbered subset."""
    subsets = {uid: _subset_number(paths[0].parent) for uid, paths in headers.items()}
    last = max(subsets.values())
    in_last = sorted(uid for uid, subset in subsets.items() if subset == last)
    return set(in_last[max(len(in_last) - count, 0) :])


def _find_headers(source: Path) -> dict[str, list[Path]]:
    """Return UID -> its ``.mhd`` in each subset that has files of this UID.

    The ``.mhd`` itself may be missing, if there is only a ``.raw`` or ``.zraw``. Raises
    ``ValueError`` if ``source`` is not in LUNA16's layout.
    """
    headers: dict[str, list[Path]] = {}
    for subset in sorted(source.glob("subset*")):
        if _subset_number(subset) < 0:
            continue
        uids = {path.stem for path in subset.iterdir() if path.suffix in SCAN_SUFFIXES}
        for uid in sorted(uids):
            headers.setdefault(uid, []).append(subset / f"{uid}.mhd")
    if not headers or not (source / MASK_FOLDER).is_dir():
        raise ValueError(
            f"{source} is not in LUNA16's layout. Expected subset0/<uid>.mhd with its .raw, up to "
            f"subset9, and {MASK_FOLDER}/<uid>.mhd; found {_describe(source)}"
        )
    return headers


def _describe(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    names = sorted(path.name for path in folder.iterdir())
    return str(names[:6]) if names else "an empty folder"


def _subset_number(folder: Path) -> int:
    """Return 12 for the folder ``subset12``, so that it follows ``subset9``; otherwise -1."""
    match = re.fullmatch(r"subset(\d+)", folder.name)
    return int(match[1]) if match and folder.is_dir() else -1
