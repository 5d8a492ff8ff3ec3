"""The two settings that make MindSpore fast on a CPU.

1. *oneDNN's kernels.* On a CPU with AVX-512, oneDNN would run MindSpore 2.10's 3-D convolutions
   through its reference kernel, a plain loop. Kept to AVX2 it runs matrix products, many times as
   fast. :mod:`unet3d_tutorial.environment` sets ``ONEDNN_MAX_CPU_ISA=AVX2`` before MindSpore is
   loaded, and :func:`prepare` where it was loaded before.
   oneDNN reads it at its first operation, so MindSpore may be imported earlier, but not used.
2. *The launch queue.* In PyNative mode operations wait in a queue for other threads, which stalls on
   few cores. :func:`launch_at_once` lets each operation run at once.

:func:`prepare` does both; :func:`unet3d_tutorial.cpu.accelerate` and
:func:`unet3d_tutorial.runs.device.setup` call it.

Accelerated networks compute their convolutions by :mod:`.onednn` where it can be loaded; the first
setting is for all others. A value of ``ONEDNN_MAX_CPU_ISA`` that the user set stays, and
``UNET3D_LAUNCH=queue`` keeps the queue.
"""

import unet3d_tutorial.environment  # noqa: F401

import ctypes
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..environment import set_defaults

#: the part of oneDNN's ``dnnl_cpu_isa_t`` that is set in every AVX-512 family and in no other
AVX512 = 0x20
LATE = (
    "oneDNN has settled on its AVX-512 kernels, whose 3-D convolutions are many times slower: build "
    "the network before the first MindSpore operation, or start Python with ONEDNN_MAX_CPU_ISA=AVX2; "
    "in a notebook, restart the kernel first"
)


def prepare() -> None:
    """Make MindSpore fast on a CPU for the rest of this process.

    Warns if oneDNN's slow kernels can no longer be avoided.
    """
    set_defaults()
    launch_at_once()
    if slow_kernels() and os.environ.get("ONEDNN_MAX_CPU_ISA") == "AVX2":
        warnings.warn(LATE, RuntimeWarning, stacklevel=3)


def launch_at_once() -> None:
    """Run each operation at once rather than through the launch queue, on CPU, unless
    ``UNET3D_LAUNCH=queue``.
    """
    if launch_mode() == "at once":
        ms.runtime.launch_blocking()


def launch_mode() -> str:
    """``"at once"`` or ``"queue"``: how PyNative operations are launched."""
    choice = os.environ.get("UNET3D_LAUNCH", "")
    if choice not in ("", "queue"):
        raise ValueError(f"UNET3D_LAUNCH: expected queue or nothing, found {choice!r}")
    return "queue" if choice == "queue" or ms.get_context("device_target") != "CPU" else "at once"


def slow_kernels() -> bool:
    """Whether oneDNN uses AVX-512 in this process.

    Asking settles the question: oneDNN reads its variable only once.
    """
    return bool(onednn().dnnl_get_effective_cpu_isa() & AVX512)


def onednn() -> ctypes.CDLL:
    """The library that computes MindSpore's convolutions on CPU."""
    return ctypes.CDLL(str(Path(ms.__file__).parent / "lib" / "libdnnl.so.3"))


def convolution_kernel() -> str:
    """Run one 3-D convolution and say which kernel oneDNN chose:

    ``"x64:gemm:jit"`` is fast, one with ``ref`` is slow.
    """
    layer = nn.Conv3d(4, 4, 3, weight_init="ones")
    printed = _printed(lambda: layer(Tensor(np.ones((1, 4, 8, 8, 8), np.float32))).asnumpy())
    found = re.search(r"exec,cpu,convolution,([^,]+),", printed)
    return found[1] if found else "unknown"


def _printed(action) -> str:
    """What oneDNN writes to the standard output of the process while ``action`` runs."""
    sys.stdout.flush()
    saved = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            onednn().dnnl_set_verbose(1)
            action()
            onednn().dnnl_set_verbose(0)
            ctypes.CDLL(None).fflush(None)
        finally:
            os.dup2(saved, 1)
            os.close(saved)
        file.seek(0)
        return file.read().decode(errors="replace")
