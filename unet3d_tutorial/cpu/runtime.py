"""The two settings that make MindSpore fast on a CPU.

1. *oneDNN's kernels.* On a CPU with AVX-512, oneDNN would run MindSpore 2.10's 3-D convolutions
   with its reference kernel, a plain loop. Limited to AVX2, it computes matrix products, which are
   many times faster. :mod:`unet3d_tutorial.environment` sets ``ONEDNN_MAX_CPU_ISA=AVX2`` before
   MindSpore is loaded; :func:`settle` sets it if MindSpore was loaded earlier. oneDNN reads it at
   its first operation, so MindSpore may already be imported, but must not have been used.
2. *The launch queue.* In PyNative mode, operations wait in a queue for worker threads, which causes
   stalls on few cores. :func:`launch_at_once` makes each operation run immediately.

:func:`settle` does both; :func:`unet3d_tutorial.cpu.accelerate` and
:func:`unet3d_tutorial.runs.device.setup` call it.

Accelerated networks compute their convolutions with :mod:`.layers` if the second oneDNN can be
loaded; the first setting is for all other convolutions. A value of ``ONEDNN_MAX_CPU_ISA`` that the
user has set is kept, and ``UNET3D_LAUNCH=queue`` keeps the queue.
"""

import unet3d_tutorial.environment  # noqa: F401

import ctypes
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from ..environment import set_defaults

#: The bit of oneDNN's ``dnnl_cpu_isa_t`` that is set for all AVX-512 variants and no others
AVX512 = 0x20
TOO_LATE = (
    "oneDNN has settled on its AVX-512 kernels, whose 3-D convolutions are many times slower: "
    "build the network before the first MindSpore operation, or start Python with "
    "ONEDNN_MAX_CPU_ISA=AVX2; in a notebook, restart the kernel first"
)


def settle() -> None:
    """Make MindSpore fast on a CPU for the rest of this process.

    Warns if oneDNN's slow kernels can no longer be avoided.
    """
    set_defaults()
    launch_at_once()
    if slow_kernels() and os.environ.get("ONEDNN_MAX_CPU_ISA") == "AVX2":
        warnings.warn(TOO_LATE, RuntimeWarning, stacklevel=3)


def launch_at_once() -> None:
    """Run operations immediately, not through the launch queue, unless ``UNET3D_LAUNCH=queue``."""
    if launch_mode() == "at once":
        ms.runtime.launch_blocking()


def launch_mode() -> str:
    """``"at once"`` or ``"queue"``: how PyNative operations are launched.

    Raises ``ValueError`` for an unknown value of ``UNET3D_LAUNCH``.
    """
    choice = os.environ.get("UNET3D_LAUNCH", "")
    if choice not in ("", "queue"):
        raise ValueError(f"UNET3D_LAUNCH: expected queue or nothing, found {choice!r}")
    if choice == "queue" or ms.get_context("device_target") != "CPU":
        return "queue"
    return "at once"


def slow_kernels() -> bool:
    """Whether MindSpore's oneDNN uses AVX-512 in this process.

    The call itself makes the choice final, because oneDNN reads its variable only once.
    """
    onednn = mindspores_onednn()
    return onednn is not None and bool(onednn.dnnl_get_effective_cpu_isa() & AVX512)


def mindspores_onednn() -> ctypes.CDLL | None:
    """The library that computes MindSpore's convolutions on CPU; ``None`` if it is not found."""
    path = Path(ms.__file__).parent / "lib" / "libdnnl.so.3"
    return ctypes.CDLL(str(path)) if path.exists() else None


def convolution_kernel() -> str:
    """Run one 3-D convolution and return the name of the kernel that oneDNN chose.

    ``"x64:gemm:jit"`` is fast; a name with ``ref`` is slow.
    """
    layer = nn.Conv3d(4, 4, 3, weight_init="ones")
    volume = Tensor(np.ones((1, 4, 8, 8, 8), np.float32))
    printed = _printed_by_onednn(lambda: layer(volume).asnumpy())
    kernel = re.search(r"exec,cpu,convolution,([^,]+),", printed)
    return kernel[1] if kernel else "unknown"


def _printed_by_onednn(action: Callable[[], object]) -> str:
    """The text that oneDNN writes to the standard output of the process during ``action``."""
    onednn = mindspores_onednn()
    if onednn is None:
        return ""
    sys.stdout.flush()
    saved = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            onednn.dnnl_set_verbose(1)
            action()
            onednn.dnnl_set_verbose(0)
            ctypes.CDLL(None).fflush(None)
        finally:
            os.dup2(saved, 1)
            os.close(saved)
        file.seek(0)
        return file.read().decode(errors="replace")
