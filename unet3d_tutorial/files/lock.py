"""A lock between processes: only one at a time works in a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def only_one(path: str | Path, busy: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs, so that no other process can.

    The operating system gives the lock back when the process ends, however it ends. The file itself
    stays; its folder is made if it is not there.

    ``busy`` is what to say if another process holds the lock; ``{process}`` in it becomes that
    process's number. Raises ``RuntimeError(busy)``, or with ``wait`` prints it and waits for the
    other process. Raises ``OSError`` if the file cannot be written.

        with only_one(folder / "lock", f"{folder} is in use by process {{process}}"):
            train(folder)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        # Not str.format: the text holds a path, and a path may hold braces.
        message = busy.replace("{process}", _read_holder(path))
        if not wait:
            raise RuntimeError(message) from None
        print(message, flush=True)
        lock.acquire()
    try:
        holder_file(path).write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        holder_file(path).unlink(missing_ok=True)
        lock.release()


def holder_file(path: str | Path) -> Path:
    """The file next to a lock that holds its process's number.

    Not the lock itself: on Windows nobody else can read a locked file.
    """
    path = Path(path)
    return path.with_name(path.name + ".process")


def _read_holder(path: Path) -> str:
    """The number of the process that holds the lock, or ``unknown``."""
    try:
        return holder_file(path).read_text(encoding="utf-8").strip() or "unknown"
    except OSError:  # the lock was taken, or given back, this very moment
        return "unknown"
