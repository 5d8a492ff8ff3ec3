"""Read batches from worker processes, and watch these processes.

If a worker is killed, the run ends with a clear message instead of waiting for ever.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

CHECK_EVERY = 0.5  #: seconds between two checks of the workers
GRACE = 3.0  #: seconds that a batch may still take to arrive after a worker was killed
#: seconds that anything else may still take, because MindSpore may hang after a worker's death
LONG_GRACE = 30.0


class WorkerKilled(RuntimeError):
    """A process that makes crops was killed.

    MindSpore may still wait for it in C++, so a normal exit of the program may hang or crash.
    """


class BatchStream(Protocol):
    """The interface of MindSpore's iterators."""

    def __next__(self) -> Any: ...

    def stop(self) -> None:
        """Stop the workers."""


class WatchedFeed:
    """An iterator over ``stream`` that raises :class:`WorkerKilled` if a worker of it is killed.

    MindSpore waits for a batch in C++, and waits for ever if the worker that makes it is dead. No
    exception or signal ends that wait. Waiting in another thread is no solution, because MindSpore
    crashes if it has to report an error there. So another thread checks the workers until
    :meth:`stop`. If one was killed and the run does not notice soon, that thread prints
    ``explain(error)`` and ends the process with exit code 2.
    """

    def __init__(self, stream: BatchStream, explain: Callable[[WorkerKilled], str]) -> None:
        self.stream: BatchStream | None = stream
        self.explain = explain
        self.former_children = set(multiprocessing.active_children())
        self.workers: set[BaseProcess] = set()
        self.has_begun = False
        self.is_waiting = False
        self.is_over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def __iter__(self) -> "WatchedFeed":
        return self

    def __next__(self) -> Any:
        if self.stream is None:
            raise StopIteration
        self.check()
        self.is_waiting = True
        try:
            batch = next(self.stream)
        except BaseException:
            self.is_over.set()
            raise
        finally:
            self.is_waiting = False
        self._find_workers()
        self.has_begun = True
        return batch

    def check(self) -> None:
        """Raise :class:`WorkerKilled` if a worker was killed.

        A worker that ended by itself had nothing left to do.
        """
        error = self._find_killed()
        if error:
            self.is_over.set()
            raise error

    def stop(self) -> None:
        """Stop watching, and stop the workers.

        If one was killed, the workers are left as they are, because MindSpore might hang here.
        """
        self.is_over.set()
        if self.stream is not None and not self._find_killed():
            self.stream.stop()
            self.stream = None  # the workers end when nothing refers to it any more

    def _find_workers(self) -> None:
        """Note which child processes are the stream's workers.

        MindSpore starts all of them when the first batch is requested. A child that starts later
        does not belong to the stream.
        """
        if not self.has_begun:
            self.workers.update(set(multiprocessing.active_children()) - self.former_children)

    def _find_killed(self) -> WorkerKilled | None:
        self._find_workers()
        for worker in list(self.workers):
            code = _exit_code(worker)
            if code is not None and code < 0:
                return WorkerKilled(
                    f"a data worker, process {worker.pid}, was killed by signal {-code}; "
                    "if memory ran out, lower data.num_worker"
                )
        return None

    def _watch(self) -> None:
        late = 0.0
        while not self.is_over.wait(CHECK_EVERY):
            error = self._find_killed()
            if error is None:
                continue
            late += CHECK_EVERY
            grace = GRACE if self.is_waiting else LONG_GRACE
            if late > grace and not self.is_over.is_set():
                print(f"unet3d: {self.explain(error)}", file=sys.stderr, flush=True)
                os._exit(2)


def _exit_code(worker: BaseProcess) -> int | None:
    """The exit code of a worker, negative if a signal ended it; None while it runs."""
    try:
        return worker.exitcode
    except ValueError:  # closed by MindSpore, as it does with workers that have ended
        return None
