"""The figures of the chapter on evaluation: windows, outlines, metrics and the baseline.

Each function returns a :class:`matplotlib.figure.Figure` that is already closed, so that a notebook
shows it once. Slices follow the convention of :mod:`unet3d_tutorial.view.planes`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from ..config import Config
from ..inference import window_weight
from ..labels import COLORS, RIGHT_LUNG, STRUCTURES, TRACHEA
from ..postprocessing import hu_scores
from ..transforms import Orientation
from ..view.planes import WINDOW, plane
from ..volume import Volume
from .evaluation import MetricPair

UNNAMED_COLOR = "#CC79A7"  #: for air that is not assigned to a structure yet
Window = tuple[slice, ...]
Trial = tuple[Volume, Volume, Config]  #: image, reference and the settings for preparing it


# ------------------------------------------------------------------------------ the sliding window


def show_window_order(prepared: Volume, windows: Sequence[Window], counts: np.ndarray) -> Figure:
    """Outline the windows in the middle coronal slice, and draw how many cover each voxel.

    ``prepared`` is the network's input ``(C, I, J, K)``, ``counts`` is ``(I, J, K)``. The outlines
    are slightly smaller than the windows, each by a different amount, to keep them distinguishable.
    """
    middle = counts.shape[1] // 2
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
    image = Volume(prepared.array[0], prepared.affine)
    _draw_slice(left, image, "coronal", middle, cmap="gray")
    coverage = Volume(counts, prepared.affine)
    covered = _draw_slice(right, coverage, "coronal", middle, cmap="viridis", vmin=0)
    for axis in (left, right):
        axis.set(xlabel="mm, patient's right on the left", ylabel="mm")
    ticks = range(counts.max() + 1)
    figure.colorbar(covered, ax=right, label="windows that cover the voxel", ticks=ticks)

    # Windows that differ only along the patient's front-back axis coincide here.
    columns = {(window[0].start, window[2].start): window for window in windows}
    for number, corner in enumerate(sorted(columns)):
        left.add_patch(_outline_of(columns[corner], prepared.spacing_mm, number))
    plt.close(figure)
    return figure


def _outline_of(window: Window, spacing_mm: tuple[float, ...], number: int) -> Rectangle:
    """A window's outline in a coronal slice, in mm; each ``number`` has a colour and an inset."""
    inset_mm = 3 * number
    across, _, up = window
    return Rectangle(
        (across.start * spacing_mm[0] + inset_mm, up.start * spacing_mm[2] + inset_mm),
        (across.stop - across.start) * spacing_mm[0] - 2 * inset_mm,
        (up.stop - up.start) * spacing_mm[2] - 2 * inset_mm,
        fill=False,
        linewidth=1.8,
        edgecolor=f"C{number}",
    )


def show_window_weights(
    prepared: Volume, roi: tuple[int, int, int], blended: Mapping[str, np.ndarray]
) -> Figure:
    """Draw the weight of a window's voxels, and predictions ``(I, J, K)`` blended with it.

    ``roi`` is the window's size in voxels. ``blended`` has the predictions by mode, ``"constant"``
    and ``"gaussian"``.
    """
    figure, (weights, *pictures) = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    for mode, style in (("constant", "--"), ("gaussian", "-")):
        line = window_weight(roi, mode)[:, roi[1] // 2, roi[2] // 2]
        weights.plot(line, style, color="black", label=mode)
    weights.set(xlabel="voxel of the window, on its middle line", ylabel="weight", ylim=(0, 1.1))
    weights.legend(fontsize=8, loc="lower center")

    middle = prepared.array.shape[2] // 2
    low, high = blended["constant"].min(), blended["constant"].max()
    for axis, (mode, answers) in zip(pictures, blended.items(), strict=True):
        volume = Volume(answers, prepared.affine)
        _draw_slice(axis, volume, "coronal", middle, cmap="viridis", vmin=low, vmax=high)
        axis.set(title=f"answers blended, {mode}", xticks=[], yticks=[])
    plt.close(figure)
    return figure


# -------------------------------------------------------------------------- on the scan's own grid


def show_hu_scores(weight: float) -> Figure:
    """Draw what a voxel's HU adds to the logit of each class, times ``weight``."""
    hu = np.linspace(-1100, 400, 301)
    added = weight * hu_scores(hu[:, None])[:, :, 0]
    figure, axis = plt.subplots(figsize=(6.5, 3))
    axis.plot(hu, added[0], "-", color="black", label="background", linewidth=2)
    lung, trachea = COLORS["left lung"], COLORS["trachea"]
    axis.plot(hu, added[1], "-", color=lung, label="left and right lung", linewidth=2)
    axis.plot(hu, added[TRACHEA], "--", color=trachea, label="trachea", linewidth=2)
    axis.set(xlabel="HU of the voxel", ylabel="added to the logit")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    plt.close(figure)
    return figure


def show_lung_border(image: Volume, masks: Mapping[str, np.ndarray]) -> Figure:
    """Outline the right lung of several masks ``(I, J, K)`` in a detail of one axial slice.

    The slice is the one with the most right lung in the first mask, the reference. The detail is at
    the back of the lung.
    """
    scan, labels = _in_ras(image, *masks.values())
    reference = labels[0]
    index = int(np.argmax((reference.array == RIGHT_LUNG).sum(axis=(0, 1))))
    pixels, (width, depth) = plane(reference, "axial", index)
    rows, columns = np.nonzero(pixels == RIGHT_LUNG)
    x = width * (1 - columns.mean() / pixels.shape[1])
    y = depth * (1 - rows.max() / pixels.shape[0])

    figure, axes = _row_of_axes(len(masks), (9, 3.3), dpi=80)
    for axis, name, volume in zip(axes, masks, labels, strict=True):
        _draw_outlines(axis, scan, volume, index, [RIGHT_LUNG])
        axis.set(title=name, xticks=[], yticks=[])
        axis.set(xlim=(x + 65, x - 65), ylim=(y - 20, y + 90))
    plt.close(figure)
    return figure


def show_airway(image: Volume, masks: Mapping[str, np.ndarray]) -> Figure:
    """Outline all structures of ``reference``, ``before`` and ``after`` around the airway.

    ``masks`` contains these three, in this order, ``(I, J, K)``. The axial slice is the one where
    the most right lung becomes trachea from ``before`` to ``after``.
    """
    scan, labels = _in_ras(image, *masks.values())
    _, before, after = labels
    becomes_airway = (before.array == RIGHT_LUNG) & (after.array == TRACHEA)
    index = int(np.argmax(becomes_airway.sum(axis=(0, 1))))
    pixels, (width, depth) = plane(after, "axial", index)
    rows, columns = np.nonzero(pixels == TRACHEA)
    x, y = width / 2, depth / 2
    if len(rows):
        x = width * (1 - columns.mean() / pixels.shape[1])
        y = depth * (1 - rows.mean() / pixels.shape[0])

    figure, axes = _row_of_axes(len(masks), (9, 3.3), dpi=80)
    for axis, name, volume in zip(axes, masks, labels, strict=True):
        _draw_outlines(axis, scan, volume, index, range(1, len(STRUCTURES) + 1))
        axis.set(title=name, xticks=[], yticks=[])
        axis.set(xlim=(x + 30, x - 30), ylim=(y - 30, y + 30))
    plt.close(figure)
    return figure


# ------------------------------------------------------------------ metrics, baseline and ceilings


def show_metric_pairs(pairs: Sequence[MetricPair]) -> Figure:
    """Draw predictions A (top) and B (bottom) of each pair, with the metrics that disagree."""
    figure, axes = plt.subplots(2, len(pairs), figsize=(12, 4.6), dpi=75, layout="constrained")
    for column, pair in zip(axes.T, pairs, strict=True):
        for number, axis in enumerate(column):
            prediction = (pair.a, pair.b)[number]
            axis.imshow(_middle(pair.reference), cmap="Greys", vmax=2)
            color = COLORS["right lung"]
            axis.contour(_middle(prediction), [0.5], colors=color, linewidths=2)
            axis.set(xticks=[], yticks=[], title="AB"[number])
            lines = [
                f"{_short_name(metric)} {pair.values(metric)[number]:.2f}"
                for metric in (pair.first, pair.second)
            ]
            axis.set_xlabel("\n".join(lines), fontsize=9)
    plt.close(figure)
    return figure


def _middle(mask: np.ndarray) -> np.ndarray:
    return mask[:, :, mask.shape[2] // 2]


def _short_name(metric: str) -> str:
    return "volume" if metric == "relative_volume_difference" else metric.replace("_", " ")


def show_baseline_steps(
    grid: Volume, steps: Mapping[str, np.ndarray], airway: np.ndarray
) -> Figure:
    """Draw the steps of the classical baseline on the coronal slice with the most airway.

    ``grid`` is the scan on the baseline's grid, RAS. Each step is ``(I, J, K)``: labels 0..3, or
    booleans for air that is not assigned to a structure yet. ``airway`` is a boolean mask.
    """
    middle = grid.array.shape[1] // 2
    cut = int(np.argmax(airway.sum(axis=(0, 2)))) if airway.any() else middle
    colors = [*COLORS.values(), UNNAMED_COLOR]
    figure, axes = _row_of_axes(len(steps), (11, 3.4))
    for axis, (name, values) in zip(axes, steps.items(), strict=True):
        labels = len(colors) * values if values.dtype == bool else values
        _draw_labels(axis, grid, Volume(labels, grid.affine), cut, colors, alpha=0.6)
        axis.set_title(name, fontsize=9)
    plt.close(figure)
    return figure


def show_ceiling(
    ceiling: Mapping[float, Mapping[str, float]], spacing_mm: float, reached: Mapping[str, float]
) -> Figure:
    """Draw the Dice of a reference resampled to coarse grids and back, and a network's Dice.

    ``ceiling`` maps the grid's spacing in mm to the Dice of each structure. ``reached`` is the Dice
    of the network, whose grid has ``spacing_mm``.
    """
    figure, axis = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
    for structure in STRUCTURES:
        color = COLORS[structure]
        line = [dices[structure] for dices in ceiling.values()]
        axis.plot(list(ceiling), line, "o-", color=color, label=structure)
        cross: dict[str, Any] = {"markersize": 10, "markeredgecolor": "black", "color": color}
        axis.plot(spacing_mm, reached[structure], "X", **cross)
    axis.set(xlabel="spacing of the working grid (mm)", ylabel="Dice on the scan's grid")
    note = "line: reference there and back\ncross: the network"
    axis.legend(title=note, fontsize=8, title_fontsize=8)
    axis.grid(alpha=0.3)
    plt.close(figure)
    return figure


def show_trials(trials: Mapping[str, Trial], masks: Mapping[str, Volume]) -> Figure:
    """Draw each trial's mask on its scan, in the coronal slice with the most trachea."""
    figure, axes = _row_of_axes(len(trials), (11, 3.2), dpi=75)
    colors = list(COLORS.values())
    for axis, (name, (scan, reference, _)) in zip(axes, trials.items(), strict=True):
        cut = int(np.argmax((reference.array == TRACHEA).sum(axis=(0, 2))))
        _draw_labels(axis, scan, masks[name], cut, colors, alpha=0.5)
        axis.set(title=name)
    plt.close(figure)
    return figure


# ------------------------------------------------------------------------------------------ helpers


def _row_of_axes(
    count: int, size: tuple[float, float], dpi: int | None = None
) -> tuple[Figure, list[Axes]]:
    """Make a figure of ``size`` inches with a row of ``count`` axes, which may be 1."""
    figure, axes = plt.subplots(
        1, count, figsize=size, dpi=dpi, layout="constrained", squeeze=False
    )
    return figure, list(axes[0])


def _in_ras(image: Volume, *masks: np.ndarray) -> tuple[Volume, list[Volume]]:
    """Turn a scan and masks on its grid to RAS: right, front and head."""
    turn = Orientation("RAS")
    scan, _ = turn(image)
    labels = [turn(Volume(mask, image.affine))[0] for mask in masks]
    return scan, labels


def _draw_slice(axis: Axes, volume: Volume, name: str, index: int, **options: Any) -> AxesImage:
    """Draw one slice in mm; ``options`` are those of ``imshow``."""
    pixels, (width, height) = plane(volume, name, index)
    # Column 0 is the patient's right, which has the largest coordinate.
    return axis.imshow(pixels, extent=(width, 0, 0, height), **options)


def _draw_scan(axis: Axes, scan: Volume, name: str, index: int) -> None:
    low, high = WINDOW
    _draw_slice(axis, scan, name, index, cmap="gray", vmin=low, vmax=high)


def _draw_labels(
    axis: Axes, scan: Volume, labels: Volume, index: int, colors: Sequence[str], alpha: float
) -> None:
    """Draw labels ``1 ..`` in ``colors`` on a coronal slice of the scan, without ticks."""
    _draw_scan(axis, scan, "coronal", index)
    pixels, (width, height) = plane(labels, "coronal", index)
    axis.imshow(
        np.ma.masked_equal(pixels, 0),
        extent=(width, 0, 0, height),
        cmap=ListedColormap(colors),
        vmin=1,
        vmax=len(colors),
        alpha=alpha,
    )
    axis.set(xticks=[], yticks=[])


def _draw_outlines(
    axis: Axes, scan: Volume, labels: Volume, index: int, values: Sequence[int]
) -> None:
    """Outline the structures with these label values on an axial slice of the scan."""
    _draw_scan(axis, scan, "axial", index)
    pixels, (width, depth) = plane(labels, "axial", index)
    for value in values:
        mask = pixels == value
        if mask.any():
            color = COLORS[STRUCTURES[value - 1]]
            extent = (width, 0, 0, depth)
            axis.contour(mask, [0.5], colors=color, linewidths=1.5, extent=extent, origin="upper")
