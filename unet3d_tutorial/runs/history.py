"""The tables of a run: one line a step, one line a look at the held-out volumes.

Plain CSV, readable while it grows.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

#: of each step: number from 0, learning rate, loss and its two parts, length of the gradient before
#: clipping, seconds since the start, seconds that the step waited for data, and how many steps were
#: skipped up to here for an overflow behind them :func:`history_columns` has the soft Dice of each
#: structure
HISTORY = ("step", "lr", "loss", "ce", "dice", "norm", "seconds", "wait", "skipped")
TIMINGS = ("seconds", "wait")  #: columns that differ from run to run


def history_columns(structures: Sequence[str]) -> tuple[str, ...]:
    """Of each step: :data:`HISTORY`, and the soft Dice of each structure in the crops of the step.

    Soft: on probabilities, as in the loss. In crops without the structure it says only how little
    was called so.
    """
    return (*HISTORY, *structures)


def validation_columns(structures: Sequence[str]) -> tuple[str, ...]:
    """Of each look: the steps that were done, and the mean Dice of each structure."""
    return ("step", *structures)


def append_row(path: Path, columns: tuple[str, ...], row: tuple) -> None:
    """Add one line, and the head if the file is new."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(columns)
        writer.writerow(row)


def read_columns(path: Path) -> dict[str, list[float]]:
    """Columns by name, as lists of numbers. A table that has a head only gives empty columns."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    return {name: [float(row[name]) for row in rows] for name in reader.fieldnames or ()}


def rewind(path: Path, columns: tuple[str, ...], rows: int) -> None:
    """Keep the head and the first ``rows`` lines; what a crash left behind them, whole or torn,
    goes.

    Raises ``ValueError`` if lines are missing, or if the table has other columns: those of another
    version.
    """
    if not rows:
        path.unlink(missing_ok=True)
        return
    lines = path.read_bytes().splitlines(keepends=True)[: rows + 1]
    if len(lines) <= rows:
        raise ValueError(
            f"{path}: expected {rows} lines below the head, found {len(lines) - 1}; overwrite to begin afresh"
        )
    if (head := lines[0].decode().strip()) != ",".join(columns):
        raise ValueError(
            f"{path}: expected the columns {','.join(columns)}, found {head}; it is of another version of the "
            "package; overwrite to begin afresh"
        )
    part = path.with_name(path.name + ".part")
    part.write_bytes(b"".join(lines))
    part.replace(path)
