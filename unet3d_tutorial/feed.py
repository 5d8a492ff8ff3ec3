"""Batches from worker processes, watched: a worker that was killed ends the wait for its batch, with a clear word."""

import multiprocessing
import queue
import threading
from collections.abc import Iterator
from typing import Any

PATIENCE = 0.5  #: seconds between two looks at the workers while a batch does not come


class WorkerKilled(RuntimeError):
    """A process that makes crops is gone. A thread may still wait for it in C++, which an orderly exit does not survive."""


class WatchedFeed:
    """An iterator over ``stream`` that raises :class:`WorkerKilled` if a process that this one has started was killed.

    MindSpore waits in C++ for a batch, for ever if its maker is dead, and no signal is heard there. So a thread does that
    waiting, and the thread that iterates looks at the workers and hears signals meanwhile. The order is that of ``stream``.
    """

    def __init__(self, stream: Iterator):
        self.stream, self.workers = stream, set()
        self.wanted, self.made = queue.SimpleQueue(), queue.SimpleQueue()
        threading.Thread(target=self._fetch, daemon=True).start()

    def __iter__(self) -> "WatchedFeed":
        return self

    def __next__(self) -> Any:
        self.wanted.put(None)
        while True:
            self.check()
            try:
                batch, error = self.made.get(timeout=PATIENCE)
            except queue.Empty:
                continue
            if error is not None:
                raise error
            return batch

    def check(self) -> None:
        """Raise :class:`WorkerKilled` if a worker was. One that has ended by itself had nothing left to do."""
        self.workers.update(multiprocessing.active_children())
        for worker in self.workers:
            if (code := _exit_code(worker)) and code < 0:
                raise WorkerKilled(f"a data worker, process {worker.pid}, was killed by signal {-code}; if memory ran out, "
                                   "lower data.num_worker")

    def _fetch(self) -> None:
        while True:
            self.wanted.get()
            try:
                self.made.put((next(self.stream), None))
            except BaseException as error:  # also the end of the stream: all is for the thread that iterates
                self.made.put((None, error))


def _exit_code(worker: multiprocessing.Process) -> int | None:
    try:
        return worker.exitcode
    except ValueError:  # closed by MindSpore, which it does to those that have ended
        return None
