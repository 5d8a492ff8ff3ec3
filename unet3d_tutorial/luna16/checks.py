"""Look at every case of a data set before training on it: what is there, and what is odd about it."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..files.nifti import load_volume, read_header
from ..labels import STRUCTURES
from ..transforms import has_classes
from ..volume import Volume, check_same_grid
from .conversion import MASK_VALUES, odd_anatomy

CLASS_VALUES = (1, 2, 3)  #: left lung, right lung, trachea in a mask that counts from 1
# What any chest CT keeps to; what lies outside is worth a look, not necessarily wrong.
SPACING_MM = (0.3, 7.0)  #: of neighbouring voxels
LENGTH_MM = (100.0, 900.0)  #: of each side of the scan
#: there is air around and in a chest, and bone in it
LEAST_HU, MOST_HU = ((-10000, -700), (200, 33000))
LUNG_ML, TRACHEA_ML = (200, 7000), (3, 200)  #: one lung, from a child to a tall adult; the windpipe
LUNG_HU = (-980, -300)  #: mean of a lung: mostly air, never only air


@dataclass(frozen=True)
class CaseCheck:
    """One image and its label. What could not be found out is ``None``."""

    name: str  #: ``train/1.2.3``
    shape: tuple[int, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    axes: str | None = None  #: where the array's axes point, for example LPS
    hu: tuple[float, float] | None = None  #: least and greatest
    volumes_ml: dict[str, float] | None = None
    values: tuple[int, int, int] | None = None  #: of the structures in the mask: 1, 2, 3 or 3, 4, 5
    digest: str | None = None  #: of the image's voxels
    odd: tuple[str, ...] = ()
    unusable: bool = False  #: cannot be trained on

    def cells(self) -> tuple[str, ...]:
        """The row of a table."""
        name = self.name if len(self.name) <= 30 else f"{self.name[:14]}…{self.name[-15:]}"
        shape = "x".join(map(str, self.shape)) if self.shape else "-"
        spacing = " ".join(f"{mm:.2f}" for mm in self.spacing_mm) if self.spacing_mm else "-"
        hu = "{:.0f} to {:.0f}".format(*self.hu) if self.hu else "-"
        volumes = (
            [f"{ml:.0f}" for ml in self.volumes_ml.values()]
            if self.volumes_ml
            else ["-"] * len(STRUCTURES)
        )
        verdict = "unusable" if self.unusable else "odd" if self.odd else ""
        return name, shape, spacing, self.axes or "-", hu, *volumes, verdict


HEADINGS = (
    "case",
    "voxels",
    "spacing, mm",
    "axes",
    "HU",
    *(f"{name}, mL" for name in STRUCTURES),
    "",
)


@dataclass
class DataCheck:
    """All cases. Print it for the table, a summary and a line for each thing that is odd."""

    cases: list[CaseCheck] = field(default_factory=list)

    @property
    def unusable(self) -> list[CaseCheck]:
        return [case for case in self.cases if case.unusable]

    @property
    def odd(self) -> dict[str, tuple[str, ...]]:
        """Name -> what is odd, of the cases with something odd."""
        return {case.name: case.odd for case in self.cases if case.odd}

    def table(self) -> str:
        """The cases as a Markdown table, which is aligned for reading as text too."""
        rows = [HEADINGS, *(case.cells() for case in self.cases)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"| {' | '.join(f'{cell:{width}}' for cell, width in zip(row, widths, strict=True))} |"
            for row in rows
        ]
        return "\n".join(
            [lines[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines[1:]]
        )

    def __str__(self) -> str:
        summary = f"{len(self.cases)} cases, {len(self.odd)} with something odd, {len(self.unusable)} of them unusable"
        lines = [f"  {name}: {text}" for name, odd in self.odd.items() for text in odd]
        return "\n".join([self.table(), "", summary, *self._numbering(), *lines])

    def _numbering(self) -> Iterator[str]:
        """What to set for masks of classes 1, 2, 3; training takes all masks in one way."""
        classes, originals = (
            [case.name for case in self.cases if case.values == values]
            for values in (CLASS_VALUES, MASK_VALUES)
        )
        if classes:
            yield (
                f"masks of the values 1, 2, 3: {len(classes)}, such as {classes[0]}; to train on them set "
                "data.lower_limit=1 data.upper_limit=3"
            )
        if classes and originals:
            yield f"masks of the values 3, 4, 5: {len(originals)}, such as {originals[0]}; no setting fits both kinds"


def check(folder: str | Path, *, processes: int | None = None) -> DataCheck:
    """Read every case of ``folder``, which holds ``image`` and ``seg``, or folders such as
    ``train`` and ``val`` that do.

    Masks may have LUNA16's values 3, 4, 5 or the classes 1, 2, 3. There are as many ``processes``
    as cores, if ``None``; 1 means this one. Nothing is changed. Raises ``FileNotFoundError`` if
    there are no cases at all.
    """
    folder = Path(folder)
    splits = sorted(
        {
            path.parent
            for kind in ("image", "seg")
            for path in [folder / kind, *folder.glob(f"*/{kind}")]
            if path.is_dir()
        }
    )
    jobs = [
        (
            str(split.relative_to(folder) / name.removesuffix(".nii.gz")),
            split / "image" / name,
            split / "seg" / name,
        )
        for split in splits
        for name in _names(split)
    ]
    if not jobs:
        raise FileNotFoundError(
            f"{folder}: expected .nii.gz files in image and seg, or in train/{{image,seg}} and "
            "val/{image,seg}, found none; `unet3d data luna16` and `unet3d data phantom` write them"
        )
    return DataCheck(
        _mark_copies(list(tqdm(_run(jobs, processes), "Checking", len(jobs), unit="case")))
    )


def _names(split: Path) -> list[str]:
    found = {path.name for kind in ("image", "seg") for path in (split / kind).glob("*.nii.gz")}
    return sorted(name for name in found if not name.endswith(".part.nii.gz"))


def _run(jobs: list[tuple[str, Path, Path]], processes: int | None) -> Iterator[CaseCheck]:
    processes = min(processes or os.cpu_count() or 1, len(jobs))
    if processes <= 1:
        yield from (check_case(*job) for job in jobs)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(check_case, *zip(*jobs, strict=True))


def _mark_copies(cases: list[CaseCheck]) -> list[CaseCheck]:
    """Say of images with the very same voxels that they are: in train and val at once, they would
    fake the score.
    """
    same: dict[str, list[str]] = {}
    for case in cases:
        if case.digest:
            same.setdefault(case.digest, []).append(case.name)
    marked = []
    for case in cases:
        others = [name for name in same.get(case.digest, []) if name != case.name]
        marked.append(
            replace(case, odd=(*case.odd, f"the same voxels as {', '.join(others)}"))
            if others
            else case
        )
    return marked


def check_case(name: str, image_path: Path, label_path: Path) -> CaseCheck:
    """Read one image and its label and say what is odd."""
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
    values = CLASS_VALUES if has_classes(label.array) else MASK_VALUES
    volumes = [np.count_nonzero(label.array == value) * label.voxel_ml for value in values]
    odd = (*case.odd, *_odd_label(label, values), *_odd_sizes(image, label, values, volumes))
    return replace(
        case,
        volumes_ml=dict(zip(STRUCTURES, map(float, volumes), strict=True)),
        odd=odd,
        values=values if any(volumes) else None,
    )


def _odd_image(image: Volume, path: Path) -> Iterator[str]:
    header = read_header(path)
    if header["sform_code"] == header["qform_code"] == 0:
        yield "the header does not say how the patient lies: left and right are a guess"
    for code, count, mm in zip(image.axis_codes, image.array.shape, image.spacing_mm, strict=True):
        if not SPACING_MM[0] <= mm <= SPACING_MM[1]:
            yield f"{mm:.2f} mm between voxels along axis {code}, expected {SPACING_MM[0]} to {SPACING_MM[1]}"
        elif not LENGTH_MM[0] <= count * mm <= LENGTH_MM[1]:
            yield f"{count * mm:.0f} mm long along axis {code}, expected {LENGTH_MM[0]:.0f} to {LENGTH_MM[1]:.0f}"
    for what, value, (low, high) in (
        ("least", image.array.min(), LEAST_HU),
        ("greatest", image.array.max(), MOST_HU),
    ):
        if not low <= value <= high:
            yield f"the {what} value is {value:.0f}, expected {low} to {high}: are these HU?"


def _odd_label(label: Volume, values: tuple[int, int, int]) -> Iterator[str]:
    others = sorted(set(np.unique(label.array).tolist()) - {0, *values})
    if others:
        yield f"label values {others[:9]} are none of {list(values)} and count as background"
    if text := odd_anatomy(label, values):
        yield text


def _odd_sizes(
    image: Volume, label: Volume, values: tuple[int, int, int], volumes: list[float]
) -> Iterator[str]:
    limits = (LUNG_ML, LUNG_ML, TRACHEA_ML)
    for name, value, ml, (low, high) in zip(STRUCTURES, values, volumes, limits, strict=True):
        if ml and not low <= ml <= high:
            yield f"the {name} has {ml:.0f} mL, expected {low} to {high}"
        if (
            ml
            and "lung" in name
            and not LUNG_HU[0] <= (hu := image.array[label.array == value].mean()) <= LUNG_HU[1]
        ):
            yield f"the {name} has {hu:.0f} HU on average, expected {LUNG_HU[0]} to {LUNG_HU[1]}: does the mask fit?"
