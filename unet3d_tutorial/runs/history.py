"""The tables of a run: one row per step, and one row per validation.

They are plain CSV files that can be read during the run.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files.whole import written_whole

#: A table by columns: name -> numbers.
Columns = Mapping[str, Sequence[float]]

#: What is recorded for each step; :func:`history_columns` adds the structures.
HISTORY = (
    "step",  # from 0
    "lr",  # learning rate
    "loss",
    "ce",  # its cross-entropy term
    "dice",  # its Dice term
    "norm",  # norm of the gradient, before clipping
    "seconds",  # since the start of the run
    "wait",  # seconds that the step waited for data
    "skipped",  # steps skipped so far because a gradient overflowed
)
TIMINGS = ("seconds", "wait")  #: columns that differ between runs


def history_columns(structures: Sequence[str]) -> tuple[str, ...]:
    """Columns for each step: :data:`HISTORY`, and the soft Dice of each structure in its crops.

    Soft Dice is computed from probabilities, as in the loss. For crops without the structure it
    only measures false positives.
    """
    return (*HISTORY, *structures)


def validation_columns(structures: Sequence[str]) -> tuple[str, ...]:
    """Columns for each validation: steps done so far, and the mean Dice of each structure."""
    return ("step", *structures)


def append_row(path: Path, columns: Sequence[str], row: Sequence[float]) -> None:
    """Append one row, preceded by the headings if the file is new."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(columns)
        writer.writerow(row)


def read_columns(path: Path) -> dict[str, list[float]]:
    """Read columns by name, as lists of numbers; they are empty if there are only headings."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    names = reader.fieldnames or ()
    return {name: [float(row[name]) for row in rows] for name in names}


def rows_of(columns: Columns) -> list[dict[str, float]]:
    """The rows of a table, from its columns."""
    lines = zip(*columns.values(), strict=True)
    return [dict(zip(columns, line, strict=True)) for line in lines]


def rewind(path: Path, columns: Sequence[str], rows: int) -> None:
    """Keep only the headings and the first ``rows`` rows.

    Rows that a crash left after them, complete or not, are removed. With no ``rows`` the file is
    removed. Raises ``ValueError`` if rows are missing, or if the columns differ, for example in a
    table of another version.
    """
    if not rows:
        path.unlink(missing_ok=True)
        return
    lines = path.read_bytes().splitlines(keepends=True)[: rows + 1]
    if len(lines) <= rows:
        raise ValueError(
            f"{path}: expected {rows} lines below the head, found {len(lines) - 1}; "
            "overwrite to begin afresh"
        )
    headings = lines[0].decode().strip()
    if headings != ",".join(columns):
        raise ValueError(
            f"{path}: expected the columns {','.join(columns)}, found {headings}; "
            "it is of another version of the package; overwrite to begin afresh"
        )
    with written_whole(path) as part:
        part.write_bytes(b"".join(lines))
