"""Measure the wall-clock time of a call."""

import time
from collections.abc import Callable
from typing import Any


def measure_seconds(call: Callable[..., object], *arguments: Any, repeats: int) -> list[float]:
    """Return the wall-clock seconds of each of ``repeats`` calls with ``arguments``, in order.

    The first call is often slower than the rest, because it compiles code or fills caches.
    """
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call(*arguments)
        seconds.append(time.perf_counter() - start)
    return seconds
