"""The folder of a run: one run at a time, one configuration, and no files of another run."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..config import Config, differences
from ..files.lock import only_one
from ..files.whole import is_temporary
from .checkpoints import FINAL, LAST
from .copies import COPIES_MADE

SETTINGS = "config.yaml"
HISTORY_FILE = "history.csv"
VALIDATION_FILE = "validation.csv"
LOCK = "lock"
#: the folder, inside that of the run, for a checkpoint whose weights a run starts from
FIRST_WEIGHTS = "begin"
#: names and patterns of all that a run may leave in its folder
LEFT_BY_RUNS = (
    "*.ckpt",
    SETTINGS,
    HISTORY_FILE,
    VALIDATION_FILE,
    "evaluation.json",
    "profile.md",
    "profile",
    "events",
    FIRST_WEIGHTS,
    *COPIES_MADE,
)


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Keep other runs out of ``folder`` while the block runs.

    Raises ``RuntimeError`` if another process has reserved it, and ``OSError`` if the folder cannot
    be written to.
    """
    busy = (
        f"{folder} is in use by another run, process {{process}}; "
        "wait for its end or choose another train.output_path"
    )
    with ExitStack() as reservation:
        try:
            reservation.enter_context(only_one(folder / LOCK, busy))
        except OSError as error:
            raise OSError(
                f"train.output_path: cannot write to {folder}: {error.strerror}"
            ) from error
        yield


def is_finished(folder: Path, config: Config) -> bool:
    """Whether ``folder`` holds a finished run of ``config``.

    Settings that do not affect results, :data:`~unet3d_tutorial.config.WITHOUT_EFFECT`, may differ.
    Raises ``ValueError`` if the folder holds a run with another configuration.
    """
    if not (folder / SETTINGS).exists():
        return False
    has_final = (folder / FINAL).exists()
    different = differences(Config.load(folder / SETTINGS), config)
    if different:
        kind = "a run" if has_final else "an unfinished run"
        raise ValueError(
            f"{folder} holds {kind} of another configuration ({different}); "
            "choose another train.output_path or overwrite"
        )
    return has_final


def prepare_folder(folder: Path, config: Config, *, overwrite: bool) -> None:
    """Prepare a reserved folder for a run of ``config`` that continues or starts afresh.

    Afterwards the folder holds the settings and, if the run can continue, its files so far.
    ``overwrite`` always starts afresh. The files of an older run that is not continued are removed.
    """
    _remove_temporary_files(folder)
    is_continued = (folder / SETTINGS).exists() and (folder / LAST).exists() and not overwrite
    if not is_continued:
        if any((folder / name).exists() for name in (SETTINGS, HISTORY_FILE, LAST)):
            print(
                f"{folder}: removing the files of an older run; training begins afresh",
                flush=True,
            )
        remove_run(folder)
    # Also for a continued run: from now on the new settings apply where they may differ.
    config.save(folder / SETTINGS)


def remove_run(folder: Path) -> None:
    """Remove the files that runs leave in their folder, and nothing else."""
    for pattern in LEFT_BY_RUNS:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def describe_last_checkpoint(folder: Path) -> str:
    """Say where the last checkpoint is, for the end of a message about a failed run."""
    last = folder / LAST
    if last.exists():
        return f"the last good checkpoint is {last}"
    return "there is no checkpoint yet"


def _remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files of a run that was killed; no other run uses the folder now."""
    for path in folder.iterdir():
        if path.is_file() and is_temporary(path):
            path.unlink()
