"""Batches from worker processes, watched.

A worker that was killed ends the run with a clear word, instead of a wait for ever.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

CHECK_EVERY = 0.5  #: seconds between two checks of the workers
GRACE = 3.0  #: seconds that a batch may still take to come after a worker was killed
#: seconds that anything else may still take: MindSpore was seen to hang after such a death
LONG_GRACE = 30.0


class WorkerKilled(RuntimeError):
    """A process that makes crops is gone.

    MindSpore may still wait for it in C++, which an orderly exit does not survive.
    """


class BatchStream(Protocol):
    """What MindSpore's iterators can do."""

    def __next__(self) -> Any: ...

    def stop(self) -> None:
        """End the workers."""


class WatchedFeed:
    """An iterator over ``stream`` that raises :class:`WorkerKilled` if a process of it was killed.

    MindSpore waits in C++ for a batch, for ever if its maker is dead. No exception and no signal
    ends that wait, and another thread must not do the waiting, because MindSpore crashes if it has
    to report an error there. So another thread checks the workers until :meth:`stop`. If one was
    killed and the run does not notice soon, the thread prints ``explain(error)`` and ends the
    process with exit code 2.
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
        """Raise :class:`WorkerKilled` if a worker was.

        One that has ended by itself had nothing left to do.
        """
        error = self._find_killed()
        if error:
            self.is_over.set()
            raise error

    def stop(self) -> None:
        """End the watch and the workers.

        If one was killed they are left alone: MindSpore might wait for it here.
        """
        self.is_over.set()
        if self.stream is not None and not self._find_killed():
            self.stream.stop()
            self.stream = None  # the workers end when nobody holds it any more

    def _find_workers(self) -> None:
        """Note the children that are the stream's workers.

        MindSpore starts all of them when it is asked for the first batch. A child that comes later
        is somebody else's.
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
    except ValueError:  # closed by MindSpore, which it does to those that have ended
        return None
