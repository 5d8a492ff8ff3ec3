"""The same work for many scans, in as many processes as there are cores."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def map_in_processes(
    work: Callable[[Job], Result], jobs: Iterable[Job], processes: int | None = None
) -> Iterator[Result]:
    """Give the result of ``work`` for each job, in the order of the jobs.

    There are as many ``processes`` as cores, if ``None``; 1 means this one, and no other is
    started. ``work`` and the jobs are sent to the processes, so ``work`` is a function of a module.
    After Ctrl-C or an error, the jobs in hand are finished and no other begins.

    Raises ``ValueError`` if ``processes`` is below 1, ``RuntimeError`` if one of them died, and
    what ``work`` raises.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"processes: expected at least 1, found {processes}")
    jobs = list(jobs)
    processes = min(processes or os.cpu_count() or 1, len(jobs))
    if processes <= 1:
        yield from map(work, jobs)
        return
    # Fresh interpreters: a fork of a process in which MindSpore runs its threads can hang.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        yield from pool.map(work, jobs)
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process died: out of memory, or the call came from a script without "
            "if __name__ == '__main__'. processes=1 needs neither"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
