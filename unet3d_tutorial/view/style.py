"""The common style of all figures."""

from collections.abc import Sequence
from itertools import cycle, islice

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..labels import COLORS, ERRORS

DPI = 75


def line_colors(number: int) -> list[str]:
    """Return ``number`` colours for lines: black, then the book's, repeated if necessary."""
    return list(islice(cycle(["black", *COLORS.values(), *ERRORS.values()]), number))


def add_legend(figure: Figure, handles: Sequence[Patch], note: str | None = None) -> None:
    """Put a legend in one row below the figure, with ``note`` as its last entry."""
    entries = list(handles)
    if note:
        entries.append(Patch(color="none", label=note))
    figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=len(entries),
        fontsize=9,
        frameon=False,
    )


def closed(figure: Figure) -> Figure:
    """Close a figure and return it, so that a notebook shows it once, as its cell's value."""
    plt.close(figure)
    return figure
