"""Curves and histograms: the values of a scan, the losses of a run, the rates of a schedule.

Each function returns a :class:`matplotlib.figure.Figure` that is already closed, so that a notebook
shows it once.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..labels import COLORS
from ..volume import Volume
from .style import DPI, closed, line_colors

HU_EDGES = np.arange(-1100, 1501, 10)
SPAN_FACTOR = 3.5  # ratio of the heights of two spans, on a logarithmic axis
LOSS_CURVES = {  # column of the history -> name and colour of its curve
    "loss": ("total", "black"),
    "ce": ("cross-entropy", "#CC79A7"),
    "dice": ("Dice loss", "#56B4E9"),
}
MARKERS = "os^"
LINE_STYLES = ("-", "--", "-.", ":")


def hu_histogram(
    images: Mapping[str, Volume],
    windows: Mapping[str, tuple[float, float]] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Compare how often each HU occurs in several scans, as the share of voxels per 10 HU.

    ``windows`` maps names to the HU shown black and white; each is drawn as a span.
    """
    figure, axes = plt.subplots(figsize=(8, 3.5), dpi=DPI, layout="constrained")
    first, last = HU_EDGES[0], HU_EDGES[-1]
    for (name, image), color in zip(images.items(), line_colors(len(images)), strict=True):
        counts, _ = np.histogram(np.clip(image.array, first, last), HU_EDGES)
        shares = counts / image.array.size
        axes.stairs(shares, HU_EDGES, label=name, color=color, linewidth=1.5)
    axes.set_yscale("log")
    _draw_spans(axes, windows or {})
    axes.set(
        xlabel="HU (values beyond the axis are counted at its ends)",
        ylabel="share of voxels",
        title=title or "",
    )
    axes.legend(loc="upper right", fontsize=8)
    return closed(figure)


def _draw_spans(axes: Axes, windows: Mapping[str, tuple[float, float]]) -> None:
    """Draw windows above the curves and above each other, on a logarithmic axis."""
    top = axes.get_ylim()[1]
    ends = {"arrowstyle": "|-|,widthA=.3,widthB=.3"}
    for level, (name, (low, high)) in enumerate(windows.items()):
        height = top * SPAN_FACTOR ** (level + 0.4)
        axes.annotate("", (low, height), (high, height), arrowprops=ends)
        text = f"{name}: {low:.0f} to {high:.0f} HU"
        axes.text((low + high) / 2, height * 1.12, text, ha="center", fontsize=8)
    axes.set_ylim(top=top * SPAN_FACTOR ** (len(windows) + 0.6))


def loss_curves(
    history: Mapping[str, Sequence[float]],
    validation: Mapping[str, Sequence[float]] | None = None,
    *,
    smooth: int = 15,
    title: str | None = None,
) -> Figure:
    """Draw a training run: its losses, and the Dice of the held-out volumes if given.

    ``history`` has the column ``step`` and any of ``loss``, ``ce`` and ``dice`` (the last two are
    the terms of the loss). ``validation`` has ``step`` and the Dice of each structure by name.
    Thick lines are means over ``smooth`` steps; the thin line is the total loss of each step.
    """
    if not validation or not len(validation["step"]):
        figure, axes = plt.subplots(figsize=(6, 3.5), dpi=DPI, layout="constrained")
        _draw_losses(axes, history, smooth)
    else:
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), dpi=DPI, layout="constrained")
        _draw_losses(left, history, smooth)
        _draw_validation(right, validation)
    if title:
        figure.suptitle(title)
    return closed(figure)


def _draw_losses(axes: Axes, history: Mapping[str, Sequence[float]], smooth: int) -> None:
    steps = np.asarray(history["step"])
    for column, (name, color) in LOSS_CURVES.items():
        values = np.asarray(history.get(column, ()), float)
        if not values.size:
            continue
        width = min(smooth, values.size)
        mean = np.convolve(values, np.ones(width) / width, mode="valid")
        middles = steps[(width - 1) // 2 :][: mean.size]
        axes.plot(middles, mean, color=color, label=name, linewidth=2)
        if column == "loss":
            axes.plot(
                steps, values, color="0.75", linewidth=0.7, zorder=0, label="total, each step"
            )
    axes.set(xlabel="step", ylabel="loss", title="training", ylim=(0, None))
    axes.legend(fontsize=8)


def _draw_validation(axes: Axes, validation: Mapping[str, Sequence[float]]) -> None:
    structures = [name for name in validation if name != "step"]
    for name, marker in zip(structures, cycle(MARKERS), strict=False):
        axes.plot(
            validation["step"],
            validation[name],
            color=COLORS.get(name),
            marker=marker,
            label=name,
        )
    axes.set(xlabel="step", ylabel="Dice", title="held-out volumes", ylim=(0, 1.02))
    axes.legend(fontsize=8)  # where it hides least


def schedule_curve(
    rates: Sequence[float] | Mapping[str, Sequence[float]], *, title: str | None = None
) -> Figure:
    """Draw the learning rate of each step.

    A mapping from name to rates draws several schedules together.
    """
    schedules = rates if isinstance(rates, Mapping) else {"": rates}
    figure, axes = plt.subplots(figsize=(6.5, 3), dpi=DPI, layout="constrained")
    colors = line_colors(len(schedules))
    for (name, values), color, style in zip(
        schedules.items(), colors, cycle(LINE_STYLES), strict=False
    ):
        axes.plot(np.arange(len(values)), values, style, color=color, label=name, linewidth=2)
    axes.set(xlabel="step", ylabel="learning rate", title=title or "", ylim=(0, None))
    axes.ticklabel_format(axis="y", scilimits=(-3, 3))
    if any(schedules):
        axes.legend(fontsize=8)
    return closed(figure)
