"""Wall-clock time of a call that a chapter measures."""

import time
from collections.abc import Callable


def measure_seconds(call: Callable[[], object], repeats: int) -> list[float]:
    """Wall-clock seconds of each of ``repeats`` calls, in order.

    The first call is often slower than the rest: it compiles, reads files or fills caches.
    """
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds
