"""``unet3d doctor``: is this machine set up as the book expects, and as fast as it can be?"""

import unet3d_tutorial.environment  # noqa: F401

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from .cpu.layers import kernels
from .cpu.library import PACKAGE
from .cpu.runtime import convolution_kernel, launch_mode
from .losses import DiceCELoss
from .model import ResidualUNet3D
from .runs.device import setup
from .training import make_train_step

MINDSPORE, NUMPY = "2.10", "1.26"  #: the versions that the book is written and run with
STEP = (2, 1, 64, 64, 64)  #: batch of the micro-benchmark, (N, C, D, H, W)
_WHOSE = {
    "onednn": f"oneDNN in its own layouts ({PACKAGE})",
    "mindspore": f"MindSpore's own; those of {PACKAGE} are faster, where it can be installed",
}
EXPECTED_S = 1.0  #: a step of the case's network takes about a third of this on two idle cores


@dataclass(frozen=True)
class Finding:
    """One line of the report; a remedy if something is wrong."""

    name: str
    found: str
    remedy: str = ""


def examine(seconds: float = 10.0) -> list[Finding]:
    """Look at versions, processor and settings, and time training steps for about ``seconds``."""
    setup()
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return [
        _version("Python", platform.python_version(), "3.11"),
        _version("MindSpore", ms.__version__, MINDSPORE),
        _version("NumPy", np.__version__, NUMPY),
        Finding("device", str(ms.get_context("device_target"))),
        _cores(cores),
        _kernel(convolution_kernel()),
        _launch(launch_mode(), cores),
        Finding("convolutions", _WHOSE[kernels()]),
        _speed(step_seconds(seconds), cores),
    ]


def step_seconds(seconds: float) -> float:
    """Median time of a training step of the case's network, measured for about ``seconds``, at
    least twice.
    """
    step = _make_step()
    step()  # the first one also builds the kernels
    times = []
    while sum(times) < seconds and len(times) < 50 or len(times) < 2:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _make_step() -> Callable[[], object]:
    rng = np.random.default_rng(0)
    network = ResidualUNet3D(STEP[1], 4)
    network.set_train(True)
    train_step = make_train_step(network, DiceCELoss(), nn.Adam(network.trainable_params(), 1e-3))
    image = Tensor(rng.normal(size=STEP).astype(np.float32))
    label = Tensor(rng.integers(0, 4, (STEP[0], *STEP[2:])).astype(np.int32))
    return lambda: train_step(image, label)[0].asnumpy()


def _version(name: str, found: str, expected: str) -> Finding:
    fits = found.startswith(expected + ".") or found == expected
    return Finding(
        name,
        found,
        "" if fits else f"the book is written for {expected}: install as in environment.yml",
    )


def _cores(cores: int) -> Finding:
    load = os.getloadavg()[0]
    remedy = "other programs use them: close what you do not need" if load > cores else ""
    return Finding("cores", f"{cores}, load {load:.1f}", remedy)


def _kernel(kernel: str) -> Finding:
    remedy = ""
    if "ref" in kernel:
        found = os.environ.get("ONEDNN_MAX_CPU_ISA")
        remedy = f"the slow kernel: set ONEDNN_MAX_CPU_ISA=AVX2 or leave it unset, it is {found}"
    return Finding("convolution kernel", kernel, remedy)


def _launch(mode: str, cores: int) -> Finding:
    stalls = mode == "queue" and cores <= 4 and ms.get_context("device_target") == "CPU"
    return Finding(
        "launch of operations", mode, "stalls on few cores: unset UNET3D_LAUNCH" if stalls else ""
    )


def _speed(seconds: float, cores: int) -> Finding:
    slow = seconds > EXPECTED_S * max(2 / cores, 0.25)
    remedy = "see the lines above; if they are fine, the processor is busy or slow" if slow else ""
    found = f"{seconds:.2f} s a step of {'x'.join(map(str, STEP))}; expected: below {EXPECTED_S:.1f} s on two cores"
    return Finding("training speed", found, remedy)


def report(findings: list[Finding]) -> str:
    """The findings as a table of text, with the remedy below what is wrong."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{'!' if finding.remedy else ' '} {finding.name:{width}}  {finding.found}")
        if finding.remedy:
            lines.append(f"  {'':{width}}  -> {finding.remedy}")
    wrong = sum(bool(finding.remedy) for finding in findings)
    return "\n".join(
        [
            *lines,
            f"{wrong} of {len(findings)} need attention"
            if wrong
            else "everything is as it should be",
        ]
    )
