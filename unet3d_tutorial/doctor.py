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
from .cpu.onednn import PACKAGE
from .cpu.runtime import convolution_kernel, launch_mode
from .losses import DiceCELoss
from .model import ResidualUNet3D
from .runs.device import setup
from .training import make_train_step

PYTHON, MINDSPORE, NUMPY = "3.11", "2.10", "1.26"  #: the versions that the book is run with
STEP = (2, 1, 64, 64, 64)  #: batch of the micro-benchmark, (N, C, D, H, W)
CLASSES = 4
FEWEST_STEPS, MOST_STEPS = 2, 50  # that are timed
EXPECTED_S = 1.0  #: a step of the case's network takes about a third of this on two idle cores
FEW_CORES = 4  # with this many or fewer, operations that are launched from a queue stall
CONVOLUTIONS = {  # how the report names the library that computes them
    "onednn": f"oneDNN in its own layouts ({PACKAGE})",
    "mindspore": f"MindSpore's own; those of {PACKAGE} are faster, where it can be installed",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report, with a remedy if something is wrong."""

    name: str
    found: str
    remedy: str = ""


def examine(seconds: float = 10.0) -> list[Finding]:
    """Check versions, processor and settings, and time training steps for about ``seconds``."""
    setup()
    cores = _usable_cores()
    return [
        _version("Python", platform.python_version(), PYTHON),
        _version("MindSpore", ms.__version__, MINDSPORE),
        _version("NumPy", np.__version__, NUMPY),
        Finding("device", str(ms.get_context("device_target"))),
        _cores(cores),
        _kernel(convolution_kernel()),
        _launch(launch_mode(), cores),
        Finding("convolutions", CONVOLUTIONS[kernels()]),
        _speed(step_seconds(seconds), cores),
    ]


def report(findings: list[Finding]) -> str:
    """The findings as a plain-text table, with a remedy below each problem."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        mark = "!" if finding.remedy else " "
        lines.append(f"{mark} {finding.name:{width}}  {finding.found}")
        if finding.remedy:
            lines.append(f"  {'':{width}}  -> {finding.remedy}")
    wrong = sum(bool(finding.remedy) for finding in findings)
    if wrong:
        lines.append(f"{wrong} of {len(findings)} need attention")
    else:
        lines.append("everything is as it should be")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------- speed


def step_seconds(seconds: float) -> float:
    """Median time of a training step of the case's network, in s.

    Steps are timed for about ``seconds``, at least two of them.
    """
    step = _make_step()
    step()  # the first one also builds the kernels
    times: list[float] = []
    while len(times) < FEWEST_STEPS or (sum(times) < seconds and len(times) < MOST_STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _make_step() -> Callable[[], None]:
    """A function that does one training step of the case's network on noise."""
    rng = np.random.default_rng(0)
    batch, channels, *window = STEP
    network = ResidualUNet3D(channels, CLASSES)
    network.set_train(True)
    optimizer = nn.Adam(network.trainable_params(), 1e-3)
    train_step = make_train_step(network, DiceCELoss(), optimizer)
    image = Tensor(rng.normal(size=STEP).astype(np.float32))
    label = Tensor(rng.integers(0, CLASSES, (batch, *window)).astype(np.int32))

    def step() -> None:
        train_step(image, label)[0].asnumpy()  # waits until the loss is computed

    return step


# ---------------------------------------------------------------------------------------- findings


def _usable_cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(name: str, found: str, expected: str) -> Finding:
    fits = found == expected or found.startswith(expected + ".")
    remedy = f"the book is written for {expected}: install as in environment.yml"
    return Finding(name, found, "" if fits else remedy)


def _cores(cores: int) -> Finding:
    load = os.getloadavg()[0]
    remedy = "other programs use them: close those you do not need" if load > cores else ""
    return Finding("cores", f"{cores}, load {load:.1f}", remedy)


def _kernel(kernel: str) -> Finding:
    if "ref" not in kernel:
        return Finding("convolution kernel", kernel)
    setting = os.environ.get("ONEDNN_MAX_CPU_ISA")
    remedy = f"the slow kernel: set ONEDNN_MAX_CPU_ISA=AVX2 or leave it unset; it is {setting}"
    return Finding("convolution kernel", kernel, remedy)


def _launch(mode: str, cores: int) -> Finding:
    on_cpu = ms.get_context("device_target") == "CPU"
    stalls = mode == "queue" and cores <= FEW_CORES and on_cpu
    remedy = "stalls on few cores: unset UNET3D_LAUNCH" if stalls else ""
    return Finding("launch of operations", mode, remedy)


def _speed(seconds: float, cores: int) -> Finding:
    batch = "x".join(map(str, STEP))
    found = f"{seconds:.2f} s a step of {batch}; expected: below {EXPECTED_S:.1f} s on two cores"
    slow = seconds > EXPECTED_S * max(2 / cores, 0.25)
    remedy = "see the lines above; if they are fine, the processor is busy or slow" if slow else ""
    return Finding("training speed", found, remedy)
