"""Slices of volumes as pictures, in true proportions, with named sides and axes in mm.

Pictures follow the radiologists' convention: the patient's right is on the left of an axial or
coronal picture, as if the reader faced the patient. In a sagittal picture the patient looks to the
left. Axes count millimetres from the first voxel in RAS order: to the patient's right, front and
head. Colours come from :data:`unet3d_tutorial.labels.COLORS`, which colour-blind readers can tell
apart.

Each function returns a :class:`matplotlib.figure.Figure` that is already closed, so that a notebook
shows it once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..labels import COLORS, ERRORS, STRUCTURES
from ..transforms import Orientation
from ..volume import Volume
from .grid import PLANES
from .style import DPI, add_legend, closed

WINDOW = (-1000.0, 400.0)  #: HU shown black and white
LEGEND_NAMES = ("reference", "prediction")  #: names of fill and outline in the legend
MISSED, SPILLED_OVER = 1, 2  # values of an error map, in the order of ERRORS
SIDE_PLACES = (  # x, y and alignment of the letters in a picture, in the order of Plane.sides
    (0.02, 0.5, "left", "center"),
    (0.98, 0.5, "right", "center"),
    (0.5, 0.02, "center", "bottom"),
    (0.5, 0.98, "center", "top"),
)
Extent = tuple[float, float, float, float]  # left, right, bottom and top of a picture, in mm


@dataclass(frozen=True)
class _Layers:
    """The volumes that a row of pictures shows, all in RAS order and of one shape."""

    image: Volume
    filled: Volume | None
    outlined: Volume | None
    window: tuple[float, float]  # HU shown black and white
    colors: tuple[str, ...] = tuple(COLORS.values())  # of the masks' values 1, 2, ...
    opacity: float = 0.45  # of the filled mask


def show_planes(
    image: Volume,
    label: Volume | None = None,
    prediction: Volume | None = None,
    *,
    position: Sequence[int] | None = None,
    window: tuple[float, float] = WINDOW,
    title: str | None = None,
    names: tuple[str, str] = LEGEND_NAMES,
) -> Figure:
    """Show an axial, a coronal and a sagittal slice of a volume and its masks.

    ``label`` is drawn as filled colour, ``prediction`` as outline. All are ``(I, J, K)`` on one
    grid, in any orientation. ``position`` is the voxel of the RAS-ordered volume where the planes
    cross; ``None`` takes the centre of the labels, or of the volume without labels. ``window`` is
    the HU shown black and white. ``names`` are the names of fill and outline in the legend.
    """
    layers = _layers_in_ras(image, label, prediction, window)
    figure, axes = _grid_of_planes(1, title)
    _draw_row(axes[0], layers, _crossing(position, layers))
    _add_structure_legend(figure, label is not None, prediction is not None, names)
    return closed(figure)


def compare_planes(
    rows: Sequence[tuple[str, Volume, Volume | None]],
    *,
    window: tuple[float, float] = WINDOW,
    title: str | None = None,
) -> Figure:
    """Show several volumes below each other, for example a phantom and a patient.

    ``rows`` are ``(name, image, label)``. The planes go through the centre of the label, or of the
    volume without one. Rows on one grid, such as several labels of one image, show the same planes:
    those of the first of these rows.
    """
    figure, axes = _grid_of_planes(len(rows), title)
    crossings: dict[tuple[tuple[int, ...], bytes], tuple[int, ...]] = {}  # of each grid
    for row, (name, image, label) in zip(axes, rows, strict=True):
        layers = _layers_in_ras(image, label, None, window)
        grid = layers.image.array.shape, layers.image.affine.tobytes()
        if grid not in crossings:
            crossings[grid] = _crossing(None, layers)
        _draw_row(row, layers, crossings[grid])
        row[0].set_ylabel(f"{name}\n{row[0].get_ylabel()}")
    _add_structure_legend(figure, any(label is not None for _, _, label in rows), False)
    return closed(figure)


def show_errors(
    image: Volume,
    prediction: Volume,
    reference: Volume,
    *,
    position: Sequence[int] | None = None,
    window: tuple[float, float] = WINDOW,
    title: str | None = None,
) -> Figure:
    """Show where a prediction misses voxels and where it spills over, for all structures at once.

    A voxel that was given to the wrong structure counts as spilled over. ``position`` and
    ``window`` are as in :func:`show_planes`, but ``None`` takes the slices with the most errors.
    """
    image = _to_ras(image)
    shape = image.array.shape
    errors = _error_map(_to_ras(prediction, shape).array, _to_ras(reference, shape).array)
    layers = _Layers(
        image,
        filled=Volume(errors, image.affine),
        outlined=None,
        window=window,
        colors=tuple(ERRORS.values()),
        opacity=0.9,
    )
    if position is None and errors.any():
        position = _slices_with_most(errors > 0)
    figure, axes = _grid_of_planes(1, title)
    _draw_row(axes[0], layers, _crossing(position, layers))
    add_legend(figure, [Patch(color=color, label=name) for name, color in ERRORS.items()])
    return closed(figure)


def plane(volume: Volume, name: str, index: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Return one slice of a RAS volume as pixels, with its width and height in mm.

    ``name`` is ``"axial"``, ``"coronal"`` or ``"sagittal"``. Pixels are ``(rows, columns)``. Row 0
    is the front of an axial picture and the head of the others; column 0 is the patient's right, or
    the front of a sagittal picture.
    """
    cut, across, up, _ = PLANES[name]
    pixels = np.take(volume.array, index, axis=cut).T[::-1, ::-1]
    rows, columns = pixels.shape
    spacing = volume.spacing_mm
    return pixels, (columns * spacing[across], rows * spacing[up])


# ------------------------------------------------------------------------ what is shown, and where


def _to_ras(volume: Volume, shape: tuple[int, ...] | None = None) -> Volume:
    """Reorient a volume to RAS.

    Raises ``ValueError`` if it is not 3-D, or is not of ``shape`` once it is reoriented.
    """
    if volume.array.ndim != 3:
        raise ValueError(f"expected a 3-D volume (I, J, K), found shape {volume.array.shape}")
    turned, _ = Orientation("RAS")(volume)
    if shape is not None and turned.array.shape != shape:
        raise ValueError(f"expected 3-D volumes of shape {shape}, found {turned.array.shape}")
    return turned


def _layers_in_ras(
    image: Volume, label: Volume | None, prediction: Volume | None, window: tuple[float, float]
) -> _Layers:
    image = _to_ras(image)
    shape = image.array.shape
    return _Layers(
        image,
        filled=None if label is None else _to_ras(label, shape),
        outlined=None if prediction is None else _to_ras(prediction, shape),
        window=window,
    )


def _error_map(prediction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return 0 where the two agree, otherwise :data:`MISSED` or :data:`SPILLED_OVER`."""
    errors = np.zeros(reference.shape, np.uint8)
    errors[(prediction == 0) & (reference > 0)] = MISSED
    errors[(prediction > 0) & (prediction != reference)] = SPILLED_OVER
    return errors


def _slices_with_most(mask: np.ndarray) -> list[int]:
    """For each axis, the index of the slice with the most voxels of a mask."""
    return [int(np.argmax(mask.sum(axis=others))) for others in ((1, 2), (0, 2), (0, 1))]


def _crossing(position: Sequence[int] | None, layers: _Layers) -> tuple[int, ...]:
    """Return the voxel where the planes cross.

    It is ``position`` if given, else the centre of mass of the first mask that is not empty, else
    the centre of the volume. Raises ``ValueError`` if ``position`` is outside the volume.
    """
    shape = layers.image.array.shape
    if position is not None:
        if len(position) != 3 or any(not 0 <= p < n for p, n in zip(position, shape, strict=True)):
            raise ValueError(
                f"position: expected a voxel of a volume of shape {shape}, found {position}"
            )
        return tuple(int(index) for index in position)
    for mask in (layers.filled, layers.outlined):
        if mask is not None and mask.array.any():
            return tuple(int(round(np.mean(index))) for index in np.nonzero(mask.array))
    return tuple(length // 2 for length in shape)


# ----------------------------------------------------------------------------------------- drawing


def _grid_of_planes(rows: int, title: str | None) -> tuple[Figure, np.ndarray]:
    """An empty figure and its axes, ``(rows, 3)``."""
    figure, axes = plt.subplots(
        rows, 3, figsize=(9, 3.0 * rows + 0.7), dpi=DPI, layout="constrained", squeeze=False
    )
    note = "patient's right on the left of the picture; sagittal: facing left"
    figure.suptitle(f"{title}\n{note}" if title else note, fontsize=10)
    return figure, axes


def _draw_row(row: Sequence[Axes], layers: _Layers, position: Sequence[int]) -> None:
    """Draw the three planes that cross at a voxel."""
    for axes, (name, (cut, _, _, sides)) in zip(row, PLANES.items(), strict=True):
        index = position[cut]
        pixels, (width, height) = plane(layers.image, name, index)
        extent = (width, 0, 0, height)  # column 0 has the largest coordinate
        low, high = layers.window
        axes.imshow(
            pixels, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="nearest"
        )
        if layers.filled is not None:
            _fill(axes, plane(layers.filled, name, index)[0], extent, layers)
        if layers.outlined is not None:
            _outline(axes, plane(layers.outlined, name, index)[0], extent, layers.colors)
        _name_sides(axes, sides)
        _name_axes(axes, name, index * layers.image.spacing_mm[cut])


def _fill(axes: Axes, labels: np.ndarray, extent: Extent, layers: _Layers) -> None:
    """Draw labels as colour over the image; background stays as it is."""
    axes.imshow(
        np.ma.masked_equal(labels, 0),
        cmap=ListedColormap(list(layers.colors)),
        vmin=1,
        vmax=len(layers.colors),
        alpha=layers.opacity,
        extent=extent,
        interpolation="nearest",
    )


def _outline(axes: Axes, labels: np.ndarray, extent: Extent, colors: Sequence[str]) -> None:
    """Draw the border of each structure in a lighter colour on black.

    Such a line is visible even on a fill of the structure's colour.
    """
    for value, color in enumerate(colors, start=1):
        mask = labels == value
        if not mask.any() or mask.all():
            continue
        light = 0.5 * np.array(to_rgb(color)) + 0.5
        for width, shade in ((2.2, "black"), (1.2, light)):
            axes.contour(
                mask, [0.5], colors=[shade], linewidths=width, extent=extent, origin="upper"
            )


def _name_sides(axes: Axes, sides: str) -> None:
    """Write the four letters that name the patient's sides at the edges of a picture."""
    box = {"facecolor": "black", "alpha": 0.5, "pad": 1, "linewidth": 0}
    for letter, (x, y, horizontal, vertical) in zip(sides, SIDE_PLACES, strict=True):
        axes.text(
            x,
            y,
            letter,
            transform=axes.transAxes,
            ha=horizontal,
            va=vertical,
            color="white",
            weight="bold",
            fontsize=9,
            bbox=box,
        )


def _name_axes(axes: Axes, name: str, depth_mm: float) -> None:
    axes.set_title(f"{name}, at {depth_mm:.0f} mm", fontsize=9)
    axes.set_xlabel("mm", fontsize=8)
    axes.set_ylabel("mm", fontsize=8)
    axes.tick_params(labelsize=7)


def _add_structure_legend(
    figure: Figure, filled: bool, outlined: bool, names: tuple[str, str] = LEGEND_NAMES
) -> None:
    """Add a legend of the structures' colours and, with outlines, of fill and line."""
    if not filled and not outlined:
        return
    fill, line = names
    note = None
    if outlined:
        note = f"(fill: {fill}, line: {line})" if filled else f"(line: {line})"
    add_legend(figure, [Patch(color=COLORS[name], label=name) for name in STRUCTURES], note)
