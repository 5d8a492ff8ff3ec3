"""Measure where the time of a run goes.

A simple clock measures the phases of the run; MindSpore's profiler measures the operations inside a
step.
"""

import unet3d_tutorial.environment  # noqa: F401

import csv
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mindspore.profiler import ProfilerActivity, profile, tensorboard_trace_handler

from ..files.tables import Table
from ..files.whole import written_whole

TRACE, SUMMARY = "profile", "profile.md"
TRACED_STEPS = 5  #: a trace grows by megabytes per step, and all steps are similar
LONGEST = 8  #: number of operations of the trace that are listed
CONVOLUTION = "Conv3D"  #: the name of a convolution in MindSpore's profiler
UNSEEN = (
    "Convolutions, and the batch-norm and PReLU after them, are not listed, because a second "
    "oneDNN computes them; with `UNET3D_CONVOLUTIONS=mindspore` they are."
)


class Clock:
    """Add up the seconds spent in each phase of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.started = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to the phase ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def page(self, steps: int) -> str:
        """A table with one row per phase, longest first: s, share of the total, ms per step."""
        total = time.perf_counter() - self.started
        phases = {**self.seconds, "everything else": total - sum(self.seconds.values())}
        rows = []
        for name, seconds in sorted(phases.items(), key=lambda phase: -phase[1]):
            milliseconds = 1000 * seconds / max(steps, 1)
            rows.append([name, f"{seconds:.1f}", f"{seconds / total:.1%}", f"{milliseconds:.0f}"])
        table = Table(
            ["phase", "s", "share", "ms a step"], rows, ["left", "right", "right", "right"]
        )
        return f"# Where the time went: {steps} steps in {total:.1f} s\n\n{table}\n"


class Profile:
    """Time each phase of a run; if ``is_enabled``, also trace its first steps and write a page.

    The page is ``folder/profile.md`` and the trace is in ``folder/profile``.
    """

    def __init__(self, folder: Path, is_enabled: bool) -> None:
        self.folder = folder
        self.is_enabled = is_enabled
        self.clock = Clock()
        self.steps = 0
        self.trace: Any = None  # MindSpore's profiler, while it records

    def start(self) -> None:
        """Start the clock, and the trace."""
        self.clock = Clock()
        if self.is_enabled:
            handler = tensorboard_trace_handler(str(self.folder / TRACE))
            self.trace = profile(activities=[ProfilerActivity.CPU], on_trace_ready=handler)
            self.trace.start()

    def count_step(self) -> None:
        """Note that a step is over."""
        self.steps += 1
        if self.steps == TRACED_STEPS:
            self._end_trace()

    def close(self) -> None:
        """End the trace and, if enabled, write the page."""
        self._end_trace()
        if self.is_enabled:
            text = self.clock.page(self.steps) + operations_page(self.folder / TRACE)
            with written_whole(self.folder / SUMMARY) as part:
                part.write_text(text, encoding="utf-8")

    def _end_trace(self) -> None:
        if self.trace is not None:
            self.trace.stop()
            self.trace = None


def operations_page(trace: Path) -> str:
    """List the operations that took longest in MindSpore's trace, one row each.

    The text is empty if the trace contains no table of operations.
    """
    files = sorted(trace.rglob("cpu_op_type_info_*.csv"))
    if not files:
        return ""
    with files[-1].open(newline="", encoding="utf-8") as file:
        operations = list(csv.DictReader(file))
    operations.sort(key=lambda operation: -float(operation["total_compute_time"]))
    rows = []
    for operation in operations[:LONGEST]:
        milliseconds = float(operation["total_compute_time"])
        share = float(operation["percent"])
        calls = operation["type_occurrences"]
        rows.append([operation["op_type"], calls, f"{milliseconds:.0f}", f"{share:.1%}"])
    table = Table(["operation", "calls", "ms", "share"], rows, ["left", "right", "right", "right"])
    title = f"Inside the first {TRACED_STEPS} steps, from MindSpore's profiler (`{trace.name}/`):"
    has_convolutions = any(operation["op_type"] == CONVOLUTION for operation in operations)
    unseen = "" if has_convolutions else f"\n{UNSEEN}\n"
    return f"\n{title}\n\n{table}\n{unseen}"
