"""Where the time of a run goes: a page of text from our own clock, and MindSpore's profiler for
what is inside a step.
"""

import unet3d_tutorial.environment  # noqa: F401

import csv
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindspore.profiler import ProfilerActivity, profile, tensorboard_trace_handler

from ..cpu.layers import kernels

TRACE, SUMMARY = "profile", "profile.md"
UNSEEN = (
    "\nConvolutions, and the batch-norm and PReLU after them, are not in it, because a second oneDNN computes them; "
    "with `UNET3D_CONVOLUTIONS=mindspore` they are.\n"
)
TRACED_STEPS = 5  #: a trace grows by megabytes a step, and steps are alike


class Clock:
    """Adds up the seconds spent in each phase of a run."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self.started = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens inside counts as ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def table(self, steps: int) -> str:
        """One line a phase, the longest first: seconds, share of the whole, milliseconds a step."""
        whole = time.perf_counter() - self.started
        spent = {**self.seconds, "everything else": whole - sum(self.seconds.values())}
        lines = [
            f"# Where the time went: {steps} steps in {whole:.1f} s",
            "",
            "| phase | s | share | ms a step |",
            "|---|--:|--:|--:|",
        ]
        for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
            lines.append(
                f"| {name} | {seconds:.1f} | {seconds / whole:.1%} | {1000 * seconds / max(steps, 1):.0f} |"
            )
        return "\n".join(lines) + "\n"


class Profile:
    """``train.enable_profiling``: clock every phase, trace the first steps, and write one page at
    the end.
    """

    def __init__(self, folder: Path, enabled: bool):
        self.folder = folder
        self.clock = Clock()
        self.steps = 0
        self.trace = None
        self.enabled = enabled
        if enabled:
            handler = tensorboard_trace_handler(str(folder / TRACE))
            self.trace = profile(activities=[ProfilerActivity.CPU], on_trace_ready=handler)
            self.trace.start()

    def step(self) -> None:
        """One step is over."""
        self.steps += 1
        if self.trace and self.steps == TRACED_STEPS:
            self._stop()

    def close(self) -> None:
        """Write the page."""
        if self.trace:
            self._stop()
        if self.enabled:
            operations = operations_table(self.folder / TRACE)
            unseen = UNSEEN if operations and kernels() == "onednn" else ""
            text = self.clock.table(self.steps) + operations + unseen
            (self.folder / SUMMARY).write_text(text, encoding="utf-8")

    def _stop(self) -> None:
        self.trace.stop()
        self.trace = None


def operations_table(trace: Path, count: int = 8) -> str:
    """The operations that took longest in MindSpore's trace, one line each; empty if the trace
    holds no such table.
    """
    tables = sorted(trace.rglob("cpu_op_type_info_*.csv"))
    if not tables:
        return ""
    with tables[-1].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = [
        "",
        f"Inside the first {TRACED_STEPS} steps, from MindSpore's profiler (`{trace.name}/`):",
        "",
        "| operation | calls | ms | share |",
        "|---|--:|--:|--:|",
    ]
    for row in sorted(rows, key=lambda row: -float(row["total_compute_time"]))[:count]:
        milliseconds = float(row["total_compute_time"])
        lines.append(
            f"| {row['op_type']} | {row['type_occurrences']} | {milliseconds:.0f} | {float(row['percent']):.1%} |"
        )
    return "\n".join(lines) + "\n"
