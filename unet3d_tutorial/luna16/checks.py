"""Check every case of a data set before training: what is there, and what is odd about it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..files.nifti import load_volume, read_header
from ..files.pool import map_in_processes
from ..files.tables import Table
from ..files.whole import is_temporary
from ..labels import STRUCTURES
from ..transforms import has_classes
from ..volume import Volume, check_same_grid
from .anatomy import odd_anatomy
from .layout import MASK_VALUES

CLASS_VALUES = (1, 2, 3)  #: left lung, right lung, trachea in a mask of class numbers
# Limits of an ordinary chest CT. A value outside them is reported, but need not be wrong.
SPACING_MM = (0.3, 7.0)  #: between neighbouring voxels
LENGTH_MM = (100.0, 900.0)  #: of each side of the scan
LEAST_HU = (-10000, -700)  #: of the smallest value: there is air in and around a chest
MOST_HU = (200, 33000)  #: of the largest value: there is bone in a chest
LUNG_ML = (200, 7000)  #: of one lung, from a child to a tall adult
TRACHEA_ML = (3, 200)
LUNG_HU = (-980, -300)  #: of a lung's mean: mostly air, but not only air

LONGEST_NAME = 30  #: characters in the table; of a longer name only both ends are shown
HEADINGS = (
    "case",
    "voxels",
    "spacing, mm",
    "axes",
    "HU",
    *(f"{name}, mL" for name in STRUCTURES),
    "",
)
ALIGN = (*["left"] * 5, *["right"] * len(STRUCTURES), "left")


class CaseFiles(NamedTuple):
    """One case: its name, ``train/1.2.3``, and where its files should be."""

    name: str
    image: Path
    label: Path


@dataclass(frozen=True)
class CaseCheck:
    """What is known about one image and its label; ``None`` where it could not be determined."""

    name: str  #: ``train/1.2.3``
    shape: tuple[int, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    axes: str | None = None  #: directions of the array's axes, for example LPS
    hu: tuple[float, float] | None = None  #: smallest and largest
    volumes_ml: dict[str, float] | None = None
    values: tuple[int, int, int] | None = None  #: of the structures in the mask: 1, 2, 3 or 3, 4, 5
    digest: str | None = None  #: SHA-1 of the image's voxels
    odd: tuple[str, ...] = ()  #: a phrase for each odd thing
    unusable: bool = False  #: cannot be used for training

    def cells(self) -> tuple[str, ...]:
        """The row of a table."""
        name, shape, spacing, hu = self.name, "-", "-", "-"
        if len(name) > LONGEST_NAME:
            name = f"{name[:14]}…{name[-15:]}"
        if self.shape:
            shape = "x".join(map(str, self.shape))
        if self.spacing_mm:
            spacing = " ".join(f"{mm:.2f}" for mm in self.spacing_mm)
        if self.hu:
            least, greatest = self.hu
            hu = f"{least:.0f} to {greatest:.0f}"
        volumes = ["-"] * len(STRUCTURES)
        if self.volumes_ml:
            volumes = [f"{ml:.0f}" for ml in self.volumes_ml.values()]
        verdict = "unusable" if self.unusable else "odd" if self.odd else ""
        return name, shape, spacing, self.axes or "-", hu, *volumes, verdict


@dataclass
class DataCheck:
    """All cases. Print it for a table, a summary and one line for each odd thing.

    A Jupyter cell shows the table as HTML, with the lines below it.
    """

    cases: list[CaseCheck] = field(default_factory=list)

    @property
    def unusable(self) -> list[CaseCheck]:
        """The cases that cannot be trained on."""
        return [case for case in self.cases if case.unusable]

    @property
    def odd(self) -> dict[str, tuple[str, ...]]:
        """Name -> what is odd, for the cases with something odd."""
        return {case.name: case.odd for case in self.cases if case.odd}

    def table(self) -> Table:
        """The cases as a table, one row per case."""
        return Table(HEADINGS, [case.cells() for case in self.cases], ALIGN)

    def __str__(self) -> str:
        return "\n".join([str(self.table()), "", *self._lines()])

    def _repr_html_(self) -> str:
        lines = "".join(f"<br>{escape(line.strip())}" for line in self._lines())
        return f"{self.table()._repr_html_()}<p>{lines.removeprefix('<br>')}</p>"

    def _lines(self) -> Iterator[str]:
        """The lines below the table."""
        yield (
            f"{len(self.cases)} cases, {len(self.odd)} with something odd, "
            f"{len(self.unusable)} of them unusable"
        )
        yield from self._numbering()
        for name, odd in self.odd.items():
            for text in odd:
                yield f"  {name}: {text}"

    def _numbering(self) -> Iterator[str]:
        """Which settings masks of the classes 1, 2, 3 need; one run can read only one kind."""
        classes = [case.name for case in self.cases if case.values == CLASS_VALUES]
        originals = [case.name for case in self.cases if case.values == MASK_VALUES]
        if classes:
            yield (
                f"masks of the values 1, 2, 3: {len(classes)}, such as {classes[0]}; "
                "to train on them set data.lower_limit=1 data.upper_limit=3"
            )
        if classes and originals:
            yield (
                f"masks of the values 3, 4, 5: {len(originals)}, such as {originals[0]}; "
                "no setting fits both kinds"
            )


def check(folder: str | Path, *, processes: int | None = None) -> DataCheck:
    """Read every case of ``folder`` and report what is there and what is odd.

    The folder contains ``image`` and ``seg``, or folders such as ``train`` and ``val`` that do.
    Masks may have LUNA16's values 3, 4, 5 or the classes 1, 2, 3. ``processes`` is the number of
    processes that read; ``None`` means one per core, 1 only this one. No file is changed. Raises
    ``FileNotFoundError`` if there are no cases at all.
    """
    folder = Path(folder)
    all_files = _find_cases(folder)
    if not all_files:
        raise FileNotFoundError(
            f"{folder}: expected .nii.gz files in image and seg, or in train/{{image,seg}} and "
            "val/{image,seg}, found none; `unet3d data luna16` and `unet3d data phantom` write them"
        )
    results = map_in_processes(_check_files, all_files, processes)
    cases = list(tqdm(results, "Checking", len(all_files), unit="case"))
    return DataCheck(_mark_copies(cases))


def _find_cases(folder: Path) -> list[CaseFiles]:
    """Every case, even if only its image or only its label is there."""
    splits = set()
    for kind in ("image", "seg"):
        for path in (folder / kind, *folder.glob(f"*/{kind}")):
            if path.is_dir():
                splits.add(path.parent)
    cases = []
    for split in sorted(splits):
        for file_name in _file_names(split):
            name = str(split.relative_to(folder) / file_name.removesuffix(".nii.gz"))
            cases.append(CaseFiles(name, split / "image" / file_name, split / "seg" / file_name))
    return cases


def _file_names(split: Path) -> list[str]:
    paths = [*split.glob("image/*.nii.gz"), *split.glob("seg/*.nii.gz")]
    return sorted({path.name for path in paths if not is_temporary(path)})


def _mark_copies(cases: list[CaseCheck]) -> list[CaseCheck]:
    """Report images whose voxels are identical.

    The same image in both train and val would make the validation score too good.
    """
    same: dict[str, list[str]] = {}
    for case in cases:
        if case.digest:
            same.setdefault(case.digest, []).append(case.name)
    marked = []
    for case in cases:
        twins = same[case.digest] if case.digest else []
        others = [name for name in twins if name != case.name]
        if others:
            text = f"the same voxels as {', '.join(others)}"
            case = replace(case, odd=(*case.odd, text))
        marked.append(case)
    return marked


# ------------------------------------------------------------------------------------------ a case


def _check_files(files: CaseFiles) -> CaseCheck:
    return check_case(files.name, files.image, files.label)


def check_case(name: str, image_path: Path, label_path: Path) -> CaseCheck:
    """Read one image and its label, and report what is odd."""
    try:
        image = load_volume(image_path)
    except (OSError, ValueError) as error:
        return CaseCheck(name, odd=(str(error),), unusable=True)
    case = CaseCheck(
        name,
        image.array.shape,
        image.spacing_mm,
        image.axis_codes,
        (float(image.array.min()), float(image.array.max())),
        odd=tuple(_odd_image(image, image_path)),
        digest=hashlib.sha1(image.array.tobytes("F"), usedforsecurity=False).hexdigest(),
    )
    try:
        label = load_volume(label_path)
        check_same_grid(label_path, label.grid, "the image", image.grid)
    except (OSError, ValueError) as error:
        return replace(case, odd=(*case.odd, str(error)), unusable=True)
    return _with_label(case, image, label)


def _with_label(case: CaseCheck, image: Volume, label: Volume) -> CaseCheck:
    """Add what the label shows to the check of an image."""
    values = CLASS_VALUES if has_classes(label.array) else MASK_VALUES
    odd = [*case.odd, *_odd_label(label, values)]
    volumes_ml = {}
    for structure, value in zip(STRUCTURES, values, strict=True):
        hu = image.array[label.array == value]
        volumes_ml[structure] = hu.size * label.voxel_ml
        if hu.size:
            odd += _odd_structure(structure, volumes_ml[structure], hu)
    return replace(
        case,
        volumes_ml=volumes_ml,
        values=values if any(volumes_ml.values()) else None,
        odd=tuple(odd),
    )


def _odd_image(image: Volume, path: Path) -> Iterator[str]:
    header = read_header(path)
    if header["sform_code"] == header["qform_code"] == 0:
        yield "the header does not say how the patient lies: left and right are a guess"
    for code, count, mm in zip(image.axis_codes, image.array.shape, image.spacing_mm, strict=True):
        if not _is_within(mm, SPACING_MM):
            least, most = SPACING_MM
            yield f"{mm:.2f} mm between voxels along axis {code}, expected {least} to {most}"
        elif not _is_within(count * mm, LENGTH_MM):
            least, most = LENGTH_MM
            yield f"{count * mm:.0f} mm long along axis {code}, expected {least:.0f} to {most:.0f}"
    for extreme, value, limits in (
        ("least", image.array.min(), LEAST_HU),
        ("greatest", image.array.max(), MOST_HU),
    ):
        if not _is_within(value, limits):
            least, most = limits
            yield f"the {extreme} value is {value:.0f}, expected {least} to {most}: are these HU?"


def _odd_label(label: Volume, values: tuple[int, int, int]) -> Iterator[str]:
    others = sorted(set(np.unique(label.array).tolist()) - {0, *values})
    if others:
        yield f"label values {others[:9]} are none of {list(values)} and count as background"
    text = odd_anatomy(label, values)
    if text:
        yield text


def _odd_structure(name: str, volume_ml: float, hu: np.ndarray) -> Iterator[str]:
    """What is odd about a structure that is not empty; ``hu`` are the image's values in it."""
    is_lung = "lung" in name
    least, most = LUNG_ML if is_lung else TRACHEA_ML
    if not least <= volume_ml <= most:
        yield f"the {name} has {volume_ml:.0f} mL, expected {least} to {most}"
    mean = hu.mean()
    if is_lung and not _is_within(mean, LUNG_HU):
        least, most = LUNG_HU
        yield (
            f"the {name} has {mean:.0f} HU on average, expected {least} to {most}: "
            "does the mask fit?"
        )


def _is_within(value: float, limits: tuple[float, float]) -> bool:
    least, most = limits
    return bool(least <= value <= most)
