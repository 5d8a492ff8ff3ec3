"""The figures and measurements of the chapter on data, and its copies of cases."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..labels import COLORS
from ..view.planes import plane
from ..volume import Volume
from .pictures import draw_slice, panels, to_ras

ImageAndLabel = tuple[Volume, Volume]  #: an image in HU and its label with the classes 1, 2 and 3
#: heights in mm of the two pictures per phantom in :func:`show_phantoms`
HEIGHTS_MM = {"coronal": 560, "axial": 400}


# ----------------------------------------------------------------------------------------- figures


def show_windows(image: Volume, windows: Mapping[str, tuple[float, float]]) -> Figure:
    """Draw the middle axial slice once in each HU window, given as ``{name: (low, high)}``."""
    image = to_ras(image)
    pixels, (width, depth) = plane(image, "axial", image.array.shape[2] // 2)
    figure, axes = panels(1, len(windows), (8, 3.6))
    for axis, (name, (low, high)) in zip(axes[0], windows.items(), strict=True):
        draw_slice(axis, pixels, (0, width, 0, depth), (low, high))
        axis.set(title=f"{name}: {low:.0f} to {high:.0f} HU", xlabel="mm", ylabel="mm")
    return figure


def show_borders(image: Volume, label: Volume) -> Figure:
    """Draw an axial and a coronal slice through the left lung, with the outlines of all labels."""
    image, label = to_ras(image), to_ras(label)
    centre = np.mean(np.nonzero(label.array == 1), axis=1).astype(int)
    figure, axes = panels(1, 2, (7, 3))
    for axis, view, cut in zip(axes[0], ("axial", "coronal"), (2, 1), strict=True):
        pixels, (width, height) = plane(image, view, centre[cut])
        classes, _ = plane(label, view, centre[cut])
        draw_slice(axis, pixels, (0, width, 0, height))
        _draw_borders(axis, classes, width, height)
        axis.set(title=view, xlabel="mm", ylabel="mm")
    return figure


def _draw_borders(axis: Axes, classes: np.ndarray, width: float, height: float) -> None:
    """Outline each class of a slice of ``width`` x ``height`` mm."""
    for value, color in enumerate(COLORS.values(), start=1):
        inside = classes[::-1] == value  # contour counts rows from below
        if inside.any():
            axis.contour(inside, [0.5], colors=color, linewidths=1.5, extent=(0, width, 0, height))


def show_phantoms(phantoms: Mapping[str, ImageAndLabel]) -> Figure:
    """Draw each phantom, coronal above axial, through the centre of its labels, at one scale."""
    figure, axes = panels(2, len(phantoms), (11, 3.5), height_ratios=list(HEIGHTS_MM.values()))
    for column, (name, (image, label)) in zip(axes.T, phantoms.items(), strict=True):
        image, label = to_ras(image), to_ras(label)
        centre = np.mean(np.nonzero(label.array), axis=1).astype(int)
        _draw_to_scale(column[0], image, "coronal", centre[1])
        _draw_to_scale(column[1], image, "axial", centre[2])
        column[0].set_title(name, fontsize=9)
    return figure


def _draw_to_scale(axis: Axes, image: Volume, view: str, index: int) -> None:
    """Draw one slice on a black background that is 500 mm wide."""
    pixels, (width, height) = plane(image, view, index)
    draw_slice(axis, pixels, (-width / 2, width / 2, 0, height))
    axis.set(xlim=(-250, 250), ylim=(0, HEIGHTS_MM[view]))
    axis.set(xticks=[], yticks=[], facecolor="black")


# ---------------------------------------------------------------------------------------- measures


def measure(image: Volume, label: Volume) -> dict[str, float]:
    """Measure one case: volumes of its structures, mean HU of its lungs, length of the scan.

    ``image`` is ``(I, J, K)`` in HU; ``label`` has the classes 1 left lung, 2 right lung and
    3 trachea. The keys of the result name the units.
    """
    counts = np.bincount(label.array.ravel(), minlength=4)[1:]
    left, right, trachea = counts * np.prod(label.spacing_mm) / 1000
    lungs = (label.array == 1) | (label.array == 2)
    return {
        "lungs, mL": float(left + right),
        "left / right": float(left / right),
        "trachea, mL": float(trachea),
        "lung, mean HU": float(image.array[lungs].mean()),
        "length of scan, mm": image.array.shape[2] * image.spacing_mm[2],
    }


# ------------------------------------------------------------------------------------------ copies


def copy_scans(source: Path, target: Path, number: int) -> None:
    """Copy scans and masks of the first ``number`` phantoms between folders in LUNA16's layout."""
    for part in ("subset0", "seg-lungs-LUNA16"):
        (target / part).mkdir(parents=True)
        for phantom in range(number):
            for path in (source / part).glob(f"phantom-{phantom:04d}.*"):
                shutil.copy(path, target / part)


def copy_case(source: Path, name: str, target: Path, new_name: str | None = None) -> None:
    """Copy the image and the label of one case from one data set to another.

    A name consists of the split and the case, such as ``train/phantom-0000``. With ``new_name`` of
    ``None`` the copy keeps its name.
    """
    old, new = Path(name), Path(new_name or name)
    for kind in ("image", "seg"):
        folder = target / new.parent / kind
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(
            source / old.parent / kind / f"{old.name}.nii.gz", folder / f"{new.name}.nii.gz"
        )
