"""Results as tables: text in a terminal, HTML in Jupyter and on a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate


@dataclass(frozen=True, repr=False)
class Table:
    """Rows of cells under headings. Print it for Markdown; a Jupyter cell shows it as HTML.

    Cells are shown as they are, so format numbers first. ``align`` has a word for each column,
    ``"left"``, ``"right"`` or ``"center"``; with ``None`` all columns are left-aligned.

    >>> print(Table(["structure", "Dice"], [["left lung", "0.98"]], align=["left", "right"]))
    | structure   |   Dice |
    |:------------|-------:|
    | left lung   |   0.98 |
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[Any]]
    align: Sequence[str] | None = None

    def __str__(self) -> str:
        rows = [[str(cell).replace("|", "\\|") for cell in row] for row in self.rows]
        return self._as("pipe", rows)

    # A notebook stores both: this one is for programs that show no HTML.
    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._as("html", [[str(cell) for cell in row] for row in self.rows])

    def _as(self, form: str, rows: Sequence[Sequence[Any]]) -> str:
        return tabulate(
            rows,
            self.headings,
            tablefmt=form,
            colalign=(self.align or ["left"] * len(self.headings)) if rows else None,
            disable_numparse=True,
        )
