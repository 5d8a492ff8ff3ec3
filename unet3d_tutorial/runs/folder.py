"""The folder of a run: one run at a time, one configuration, and a clear word about what is in it."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config import Config, differences
from .checkpoints import FINAL, LAST

SETTINGS = "config.yaml"
HISTORY_FILE = "history.csv"
VALIDATION_FILE = "validation.csv"
LOCK = "lock"
MADE = (
    "*.ckpt",
    "*.part",
    SETTINGS,
    HISTORY_FILE,
    VALIDATION_FILE,
    "evaluation.json",
    "profile.md",
    "profile",
    "events",
    "begin",
    ".uploaded.json",
)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of ``folder``.

    The operating system gives the lock back when the process ends, however it ends.

    Raises ``RuntimeError`` if another process holds it, and ``OSError`` if the folder cannot be
    written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise OSError(f"train.output_path: cannot write to {folder}: {error.strerror}") from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise RuntimeError(
                f"{folder} is in use by another run, process {file.read().strip() or 'unknown'}; "
                "wait for its end or choose another train.output_path"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def is_finished(folder: Path, config: Config) -> bool:
    """Whether ``folder`` holds a finished run of ``config``.

    Raises ``ValueError`` if it holds a run of another one.

    Settings that change no result, :data:`~unet3d_tutorial.config.WITHOUT_EFFECT`, may differ.
    """
    if not (folder / SETTINGS).exists():
        return False
    if found := differences(Config.load(folder / SETTINGS), config):
        kind = "a run" if (folder / FINAL).exists() else "an unfinished run"
        raise ValueError(
            f"{folder} holds {kind} of another configuration ({found}); "
            "choose another train.output_path or overwrite"
        )
    return (folder / FINAL).exists()


def begin(folder: Path, config: Config, *, overwrite: bool) -> bool:
    """Prepare a locked folder.

    True if there is a checkpoint to go on from; if not, only the settings are there.
    """
    if not overwrite and (folder / SETTINGS).exists() and (folder / LAST).exists():
        config.save(folder / SETTINGS)  # those that may differ are the new ones from here on
        return True
    if any((folder / name).exists() for name in (SETTINGS, HISTORY_FILE, LAST)):
        print(
            f"{folder}: what is there of an older run is removed, training begins afresh",
            flush=True,
        )
    clear(folder)
    config.save(folder / SETTINGS)
    return False


def clear(folder: Path) -> None:
    """Remove what a run leaves in its folder, and nothing else."""
    for pattern in MADE:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
