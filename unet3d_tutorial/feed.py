"""Batches from worker processes, watched: a worker that was killed ends the wait for its batch, with a clear word."""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

PATIENCE = 0.5  #: seconds between two looks at the workers
GRACE = 3.0  #: seconds that a batch may still take to come after a worker was killed
LONG_GRACE = 30.0  #: seconds that anything else may still take, since MindSpore was seen to stand still after such a death


class WorkerKilled(RuntimeError):
    """A process that makes crops is gone. MindSpore may still wait for it in C++, which an orderly exit does not survive."""


class WatchedFeed:
    """An iterator over ``stream`` that raises :class:`WorkerKilled` if a process that this one has started was killed.

    MindSpore waits in C++ for a batch, for ever if its maker is dead. No exception and no signal ends that wait, and another
    thread must not do the waiting, because MindSpore crashes if it has to report an error there. So another thread looks at
    the workers, and if one was killed and the run does not come to hear of it soon, it writes ``last_words(error)`` and ends
    the process with exit code 2.
    """

    def __init__(self, stream: Iterator, last_words: Callable[[WorkerKilled], str]):
        self.stream, self.last_words, self.workers = stream, last_words, set()
        self.is_waiting, self.is_over = False, False
        threading.Thread(target=self._watch, daemon=True).start()

    def __iter__(self) -> "WatchedFeed":
        return self

    def __next__(self) -> Any:
        self.check()
        self.is_waiting = True
        try:
            return next(self.stream)
        except BaseException:
            self.is_over = True
            raise
        finally:
            self.is_waiting = False

    def check(self) -> None:
        """Raise :class:`WorkerKilled` if a worker was. One that has ended by itself had nothing left to do."""
        if error := self._killed():
            self.is_over = True
            raise error

    def _killed(self) -> WorkerKilled | None:
        self.workers.update(multiprocessing.active_children())
        for worker in list(self.workers):
            if (code := _exit_code(worker)) and code < 0:
                return WorkerKilled(f"a data worker, process {worker.pid}, was killed by signal {-code}; if memory ran out, "
                                    "lower data.num_worker")
        return None

    def _watch(self) -> None:
        late = 0.0
        while not self.is_over:
            time.sleep(PATIENCE)
            if error := self._killed():
                late += PATIENCE
                if late > (GRACE if self.is_waiting else LONG_GRACE) and not self.is_over:
                    print(f"unet3d: {self.last_words(error)}", file=sys.stderr, flush=True)
                    os._exit(2)


def _exit_code(worker: multiprocessing.Process) -> int | None:
    try:
        return worker.exitcode
    except ValueError:  # closed by MindSpore, which it does to those that have ended
        return None
