"""A lock between processes, so that only one at a time works in a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def only_one(path: str | Path, busy: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs, so that no other process can hold it.

    The operating system releases the lock when the process ends, however it ends. The file itself
    stays; its folder is created if it is missing.

    ``busy`` is the message if another process holds the lock; ``{process}`` in it becomes that
    process's ID. Raises ``RuntimeError(busy)`` in that case, or, with ``wait``, prints it and waits
    for the other process. Raises ``OSError`` if the file cannot be written.

        with only_one(folder / "lock", f"{folder} is in use by process {{process}}"):
            train(folder)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        # A plain replacement: the text contains a path, and a path may contain braces.
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
    """The file next to a lock that contains the ID of the process that holds the lock.

    It is a separate file because on Windows no other process can read a locked file.
    """
    path = Path(path)
    return path.with_name(path.name + ".process")


def _read_holder(path: Path) -> str:
    """The ID of the process that holds the lock, or ``unknown``."""
    try:
        return holder_file(path).read_text(encoding="utf-8").strip() or "unknown"
    except OSError:  # the lock was taken or released at this very moment
        return "unknown"
