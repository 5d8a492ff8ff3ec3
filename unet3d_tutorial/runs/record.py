"""What a run writes to its folder: tables and checkpoints, with a copy in a remote store."""

import unet3d_tutorial.environment  # noqa: F401

from collections.abc import Mapping, Sequence
from pathlib import Path

from mindspore import Parameter, nn

from ..config import Config
from ..labels import structure_names
from .checkpoints import (
    FINAL,
    LAST,
    RunState,
    keep_validated,
    load_state,
    load_weights,
    save_checkpoint,
    save_state,
)
from .copies import copy_file_from_store, copy_run
from .curves import write_summary
from .folder import FIRST_WEIGHTS, HISTORY_FILE, VALIDATION_FILE
from .history import (
    HISTORY,
    append_row,
    history_columns,
    read_columns,
    rewind,
    validation_columns,
)
from .processes import Group


class RunRecord:
    """The folder of one run, and the methods that write to it.

    A checkpoint contains ``network``, ``optimizer`` and ``average``, the moving average of the
    weights. If there are several processes, only the leading one writes: in the others, methods
    that write files do nothing.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        group: Group,
        *,
        network: nn.Cell,
        optimizer: nn.Optimizer,
        average: Sequence[Parameter] = (),
    ) -> None:
        self.config = config
        self.folder = folder
        self.group = group
        self.network = network
        self.optimizer = optimizer
        self.average = average
        structures = structure_names(config.data.lower_limit, config.data.upper_limit)
        self.history_columns = history_columns(structures)
        self.validation_columns = validation_columns(structures)

    # --------------------------------------------------------------------------------------- tables

    def add_step(self, row: Mapping[str, float], soft_dice: Sequence[float]) -> dict[str, float]:
        """Write the row of a step, a value for each column of :data:`.HISTORY`; return all of it.

        ``soft_dice`` has a value for each structure.
        """
        if row.keys() != set(HISTORY):
            raise ValueError(f"history: expected the columns {HISTORY}, found {tuple(row)}")
        values = [row[column] for column in HISTORY]
        return self._add_row(HISTORY_FILE, self.history_columns, [*values, *soft_dice])

    def add_validation(self, values: Sequence[float]) -> dict[str, float]:
        """Write the row of a validation; return it by column."""
        return self._add_row(VALIDATION_FILE, self.validation_columns, values)

    def tables(self) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """History and validation so far, as columns; empty before the first row."""
        return self._read(HISTORY_FILE), self._read(VALIDATION_FILE)

    def _add_row(
        self, name: str, columns: Sequence[str], values: Sequence[float]
    ) -> dict[str, float]:
        if self.group.leads:
            append_row(self.folder / name, columns, values)
        return dict(zip(columns, values, strict=True))

    def _read(self, name: str) -> dict[str, list[float]]:
        path = self.folder / name
        return read_columns(path) if path.exists() else {}

    # --------------------------------------------------------------------------------- at the start

    def load(self) -> RunState | None:
        """Restore the last checkpoint; return the run's progress, ``None`` without a checkpoint.

        Raises ``ValueError`` if the run had another number of processes, and as
        :func:`~unet3d_tutorial.runs.checkpoints.load_state` does.
        """
        last = self.folder / LAST
        if not last.exists():
            return None
        state = load_state(last, self.config, self.network, self.optimizer, self.average)
        if state.rank_size != self.group.rank_size:
            raise ValueError(
                f"{self.folder} holds a run of {state.rank_size} processes, "
                f"found {self.group.rank_size}; "
                "start as many, choose another train.output_path or overwrite"
            )
        return state

    def load_first_weights(self) -> None:
        """Load the initial weights from ``remote.checkpoint_url``, if it is set."""
        url = self.config.remote.checkpoint_url
        if not url:
            return
        target = self.folder / FIRST_WEIGHTS
        if self.group.local_rank == 0:
            copy_file_from_store(url, target, self.config.remote)
        self.group.wait()
        load_weights(self.network, target / url.rpartition("/")[2])

    def rewind(self, state: RunState) -> None:
        """Shorten the tables to what they were at ``state``."""
        if self.group.leads:
            rewind(self.folder / HISTORY_FILE, self.history_columns, state.step)
            rewind(self.folder / VALIDATION_FILE, self.validation_columns, state.looks)

    # ---------------------------------------------------------------------------------- checkpoints

    def save(self, state: RunState) -> None:
        """Write the checkpoint from which the run can be continued.

        Raises ``FloatingPointError`` if a weight is not a finite number.
        """
        if self.group.leads:
            last = self.folder / LAST
            save_state(last, self.config, state, self.network, self.optimizer, self.average)

    def keep_validated(self, state: RunState) -> None:
        """Keep the checkpoint of a validation, and remove those that are too old."""
        if self.group.leads:
            keep_validated(self.folder, state, self.config.train.keep_checkpoint_max)

    def copy(self, state: RunState) -> None:
        """Copy changed files to the store, if there is one; a failure is only reported."""
        if not self.group.leads:
            return
        try:
            copy_run(self.config, self.folder)
        except OSError as error:
            print(
                f"step {state.step}: {error}; training continues, the next checkpoint tries again",
                flush=True,
            )

    def finish(self) -> None:
        """Write the final weights, which mark the run as finished, and copy everything."""
        if not self.group.leads:
            return
        if self.config.train.event_files:
            write_summary(self.folder, *self.tables())
        save_checkpoint(self.network, self.folder / FINAL)
        copy_run(self.config, self.folder)
