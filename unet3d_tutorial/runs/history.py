"""The tables of a run: one line a step, one line a validation.

Plain CSV, readable while it grows.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files.whole import written_whole

#: A table by columns: name to numbers.
Columns = Mapping[str, Sequence[float]]

#: What is recorded of each step, before the structures that :func:`history_columns` adds.
HISTORY = (
    "step",  # from 0
    "lr",  # learning rate
    "loss",
    "ce",  # the cross-entropy in it
    "dice",  # the Dice loss in it
    "norm",  # length of the gradient, before clipping
    "seconds",  # since the start of the run
    "wait",  # seconds that the step waited for data
    "skipped",  # steps skipped up to here because a gradient overflowed
)
TIMINGS = ("seconds", "wait")  #: columns that differ from run to run


def history_columns(structures: Sequence[str]) -> tuple[str, ...]:
    """Columns for each step: :data:`HISTORY`, and the soft Dice of each structure in its crops.

    Soft: on probabilities, as in the loss. In crops without the structure it says only how little
    was called so.
    """
    return (*HISTORY, *structures)


def validation_columns(structures: Sequence[str]) -> tuple[str, ...]:
    """Columns for each validation: steps done so far, and the mean Dice of each structure."""
    return ("step", *structures)


def append_row(path: Path, columns: Sequence[str], row: Sequence[float]) -> None:
    """Add one line, and the headings if the file is new."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(columns)
        writer.writerow(row)


def read_columns(path: Path) -> dict[str, list[float]]:
    """Columns by name, as lists of numbers; empty columns if there is no line but the headings."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    names = reader.fieldnames or ()
    return {name: [float(row[name]) for row in rows] for name in names}


def rows_of(columns: Columns) -> list[dict[str, float]]:
    """The lines of a table, from its columns."""
    lines = zip(*columns.values(), strict=True)
    return [dict(zip(columns, line, strict=True)) for line in lines]


def rewind(path: Path, columns: Sequence[str], rows: int) -> None:
    """Keep the headings and the first ``rows`` lines.

    What a crash left behind them, whole or torn, is removed. Raises ``ValueError`` if lines are
    missing, or if the table has other columns, as one of another version has.
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
