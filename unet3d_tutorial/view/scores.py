"""Box plots of scores, which show the spread over the cases.

Each function returns a :class:`matplotlib.figure.Figure` that is already closed, so that a notebook
shows it once.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..evaluation import Results
from ..labels import STRUCTURES
from .style import DPI, add_legend, closed

METRICS = {"dice": "Dice", "hd95_mm": "HD95 (mm), cases found"}  # field of a score: axis label
METHOD_COLORS = ("black", "0.6", "#CC79A7", "#56B4E9")  # none of them a structure's
BOX_WIDTH, BOX_DISTANCE = 0.2, 0.26  # structures are 1 apart


def score_boxes(results: Results, *, title: str | None = None) -> Figure:
    """Draw box plots of Dice and HD95 (mm) over the cases.

    There is one panel per metric, one group per structure and one box per method. Every case is a
    point. A structure that was missed has no distance; the number of such cases is written above
    the box.
    """
    return score_box_rows({title or "": results})


def score_box_rows(data: Mapping[str, Results]) -> Figure:
    """Draw :func:`score_boxes` of several data sets below each other.

    ``data`` maps the names of the data sets to their results.
    """
    size = (10, 3.2 * len(data) + 0.4)
    figure, rows = plt.subplots(
        len(data), 2, figsize=size, dpi=DPI, layout="constrained", squeeze=False
    )
    colors = _method_colors(data)
    for row, (name, results) in zip(rows, data.items(), strict=True):
        for axes, (metric, label) in zip(row, METRICS.items(), strict=True):
            _draw_panel(axes, results, metric, colors)
            axes.set(ylabel=label, title=name)
    add_legend(figure, [Patch(color=color, label=method) for method, color in colors.items()])
    return closed(figure)


def _method_colors(data: Mapping[str, Results]) -> dict[str, str]:
    """A colour for each method of any data set, in the order of first occurrence."""
    colors: dict[str, str] = {}
    for results in data.values():
        for method in results:
            if method not in colors:
                colors[method] = METHOD_COLORS[len(colors) % len(METHOD_COLORS)]
    return colors


def _draw_panel(axes: Axes, results: Results, metric: str, colors: Mapping[str, str]) -> None:
    """Draw one metric of one data set: one group per structure, one box per method."""
    structures = np.arange(len(STRUCTURES))
    for number, (method, cases) in enumerate(results.items()):
        shift = (number - (len(results) - 1) / 2) * BOX_DISTANCE
        for structure in structures:
            values = [getattr(scores[structure], metric) for scores in cases.values()]
            _draw_box(axes, values, structure + shift, colors[method])
    axes.set(xticks=structures, xticklabels=STRUCTURES)
    axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
    axes.grid(axis="y", alpha=0.3)


def _draw_box(axes: Axes, values: Sequence[float], place: float, color: str) -> None:
    """Draw a box with its finite values as points, and the number of missed cases above it."""
    finite = np.asarray(values)[np.isfinite(values)]
    if finite.size:
        line = {"color": color}
        axes.boxplot(
            finite,
            positions=[place],
            widths=BOX_WIDTH,
            showfliers=False,
            manage_ticks=False,
            boxprops=line,
            whiskerprops=line,
            capprops=line,
            medianprops=line,
        )
    places = place + np.linspace(-0.05, 0.05, finite.size)
    axes.plot(places, finite, ".", color=color, markersize=4, alpha=0.6)
    missed = len(values) - finite.size
    if missed:
        axes.annotate(
            f"{missed} missed",
            (place, 0.99),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="top",
            fontsize=8,
            weight="bold",
            color=color,
        )
