"""Batches from worker processes, watched: a worker that was killed ends the wait for its batch,
with a clear word.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

PATIENCE = 0.5  #: seconds between two looks at the workers
GRACE = 3.0  #: seconds that a batch may still take to come after a worker was killed
#: seconds that anything else may still take, since MindSpore was seen to stand still after such a
#: death
LONG_GRACE = 30.0


class WorkerKilled(RuntimeError):
    """A process that makes crops is gone.

    MindSpore may still wait for it in C++, which an orderly exit does not survive.
    """


class WatchedFeed:
    """An iterator over ``stream``, one of MindSpore's, that raises :class:`WorkerKilled` if a
    process of it was killed.

    MindSpore waits in C++ for a batch, for ever if its maker is dead. No exception and no signal
    ends that wait, and another thread must not do the waiting, because MindSpore crashes if it has
    to report an error there. So another thread looks at the workers, and if one was killed and the
    run does not come to hear of it soon, it writes ``last_words(error)`` and ends the process with
    exit code 2. It looks until :meth:`stop`.
    """

    def __init__(self, stream: Iterator, last_words: Callable[[WorkerKilled], str]):
        self.stream = stream
        self.last_words = last_words
        self.others = set(multiprocessing.active_children())
        self.workers = set()
        self.has_begun = False
        self.is_waiting = False
        self.over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def __iter__(self) -> "WatchedFeed":
        return self

    def __next__(self) -> Any:
        self.check()
        self.is_waiting = True
        try:
            batch = next(self.stream)
        except BaseException:
            self.over.set()
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
        if error := self._killed():
            self.over.set()
            raise error

    def stop(self) -> None:
        """End the watch and the workers.

        If one was killed they are left alone: MindSpore might wait for it here.
        """
        self.over.set()
        if not self._killed():
            self.stream.stop()
            self.stream = None  # the workers end when nobody holds it any more

    def _find_workers(self) -> None:
        """MindSpore starts all of them when it is asked for the first batch; a child that comes
        later is somebody else's.
        """
        if not self.has_begun:
            self.workers.update(set(multiprocessing.active_children()) - self.others)

    def _killed(self) -> WorkerKilled | None:
        self._find_workers()
        for worker in list(self.workers):
            if (code := _exit_code(worker)) and code < 0:
                return WorkerKilled(
                    f"a data worker, process {worker.pid}, was killed by signal {-code}; if memory ran out, "
                    "lower data.num_worker"
                )
        return None

    def _watch(self) -> None:
        late = 0.0
        while not self.over.wait(PATIENCE):
            if error := self._killed():
                late += PATIENCE
                if late > (GRACE if self.is_waiting else LONG_GRACE) and not self.over.is_set():
                    print(f"unet3d: {self.last_words(error)}", file=sys.stderr, flush=True)
                    os._exit(2)


def _exit_code(worker: multiprocessing.Process) -> int | None:
    try:
        return worker.exitcode
    except ValueError:  # closed by MindSpore, which it does to those that have ended
        return None
