"""Run one function on many scans, in as many processes as there are cores."""

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
    """Yield the result of ``work`` for each job, in the order of the jobs.

    ``processes`` is their number; ``None`` means one per core. With 1, this process does the work
    and starts no other. ``work`` and the jobs are pickled, so ``work`` must be a top-level function
    of a module. After Ctrl-C or an error, jobs that have started are finished and no others start.

    Raises ``ValueError`` if ``processes`` is below 1, ``RuntimeError`` if a process died, and
    whatever ``work`` raises.
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
