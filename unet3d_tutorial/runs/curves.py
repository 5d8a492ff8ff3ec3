"""Show the progress of a run: a progress bar, live curves in a notebook, and event files.

The event files are for TensorBoard and MindSpore. The tables of
:mod:`unet3d_tutorial.runs.history` are the record: everything here shows the same numbers, and a
run that continues after a crash rewrites its event files from the tables.
"""

import unet3d_tutorial.environment  # noqa: F401

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import mindspore as ms
from tqdm import tqdm

from .history import Columns, rows_of

EVENTS = "events"  #: folder next to the tables
#: called from time to time with the history and validation tables so far, as in TrainingResult
Watch: TypeAlias = Callable[[Columns, Columns], None]


class TensorBoardEvents:
    """Curves in TensorBoard's format, written during the run.

    ``tensorboard --logdir runs`` shows them.
    """

    def __init__(self, folder: Path, history: Columns, validation: Columns) -> None:
        # This import takes seconds, which code that only reads a finished run should not pay.
        from tensorboardX import SummaryWriter

        target = folder / EVENTS / "tensorboard"
        shutil.rmtree(target, ignore_errors=True)
        self.writer = SummaryWriter(str(target))
        for group, columns in (("train", history), ("validation", validation)):
            for row in rows_of(columns):
                self.add(group, row)

    def add(self, group: str, row: Mapping[str, float]) -> None:
        """Add one value to each curve of ``group``, at ``row["step"]``."""
        for name, value in row.items():
            if name != "step":
                self.writer.add_scalar(f"{group}/{name}", value, int(row["step"]))

    def close(self) -> None:
        """Write what is still in memory, and close the file."""
        self.writer.close()


def write_summary(folder: Path, history: Columns, validation: Columns) -> None:
    """Write the same curves as MindSpore's summary files.

    They are in the format of MindInsight, which is no longer maintained.
    """
    target = folder / EVENTS / "mindspore"
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    with ms.SummaryRecord(str(target)) as record:
        for group, columns in (("train", history), ("validation", validation)):
            for row in rows_of(columns):
                for name in row.keys() - {"step"}:
                    value = ms.Tensor(row[name], ms.float32)
                    record.add_value("scalar", f"{group}/{name}", value)
                record.record(int(row["step"]))


class ProgressBar:
    """Show loss, learning rate, share of the time spent waiting for data, and time left."""

    def __init__(self, total: int, done: int, show: bool) -> None:
        hidden = {} if show else {"disable": True}
        self.bar = tqdm(total=total, initial=done, desc="training", unit="step", **hidden)
        self.waited = self.seconds = 0.0

    def update(self, row: Mapping[str, float], seconds: float) -> None:
        """Show a step that took ``seconds``, waiting included."""
        self.waited += row["wait"]
        self.seconds += seconds
        self.bar.set_postfix(
            loss=f"{row['loss']:.3f}",
            lr=f"{row['lr']:.1e}",
            wait=f"{self.waited / max(self.seconds, 1e-9):.0%}",
            refresh=False,
        )
        self.bar.update()

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


class Tracker:
    """Progress bar and event files of a run of ``total`` steps, ``done`` of them in the tables.

    ``show`` is true in the leading process only; the others show nothing.
    """

    def __init__(
        self,
        folder: Path,
        total: int,
        done: int,
        tables: tuple[Columns, Columns],
        *,
        events: bool,
        show: bool,
    ) -> None:
        history, validation = tables
        self.bar = ProgressBar(total, done, show)
        self.events: TensorBoardEvents | None = None
        if events and show:
            self.events = TensorBoardEvents(folder, history, validation)
        self.seconds = history["seconds"][-1] if history else 0.0

    def show_step(self, row: Mapping[str, float]) -> None:
        """Show a row of the history."""
        self.bar.update(row, row["seconds"] - self.seconds)
        self.seconds = row["seconds"]
        self._add_event("train", row)

    def show_validation(self, row: Mapping[str, float]) -> None:
        """Show a row of the validation table."""
        self._add_event("validation", row)

    def _add_event(self, group: str, row: Mapping[str, float]) -> None:
        if self.events:
            self.events.add(group, row)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.close()
        if self.events:
            self.events.close()


class LivePlot:
    """Live loss curves in a notebook: ``train(config, watch=LivePlot())``.

    The last figure stays in the notebook.
    """

    def __init__(self, title: str | None = None) -> None:
        self.title = title
        self.shown: Any = None  # IPython's handle of the picture

    def __call__(self, history: Columns, validation: Columns) -> None:
        """Draw the curves, replacing the previous figure."""
        from IPython.display import display

        from ..view.charts import loss_curves

        figure = loss_curves(history, validation, title=self.title)
        if self.shown is None:
            self.shown = display(figure, display_id=True)
        else:
            self.shown.update(figure)
