"""The result of a training run, read from its folder."""

from dataclasses import dataclass
from pathlib import Path

from ..files.tables import Table
from .checkpoints import FINAL
from .folder import HISTORY_FILE, VALIDATION_FILE
from .history import read_columns


@dataclass(frozen=True, repr=False)
class TrainingResult:
    """The result of a run; tables are columns by name, as lists of numbers."""

    checkpoint: Path  #: final weights
    #: one entry per step; columns of :func:`unet3d_tutorial.runs.history.history_columns`
    history: dict[str, list[float]]
    #: one entry per validation: steps done so far, and the mean Dice of each structure
    validation: dict[str, list[float]]

    def table(self) -> Table:
        """One row per validation: steps done so far, and the mean Dice of each structure."""
        structures = [name for name in self.validation if name != "step"]
        rows = []
        for number, step in enumerate(self.validation["step"]):
            scores = [self.validation[name][number] for name in structures]
            rows.append([f"{step:.0f}", *(f"{score:.3f}" for score in scores)])
        headings = ["step", *(f"Dice of {name}" for name in structures)]
        return Table(headings, rows, align=["right"] * len(headings))

    def __repr__(self) -> str:
        losses = self.history["loss"]
        course = f", loss {losses[0]:.3f} to {losses[-1]:.3f}" if losses else ""
        return f"TrainingResult({self.checkpoint}: {len(losses)} steps{course})"

    def __str__(self) -> str:
        return f"{self!r}\n\n{self.table()}"

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def load_result(folder: str | Path) -> TrainingResult:
    """Read the tables of a finished run."""
    folder = Path(folder)
    return TrainingResult(
        checkpoint=folder / FINAL,
        history=read_columns(folder / HISTORY_FILE),
        validation=read_columns(folder / VALIDATION_FILE),
    )
