"""The convolutions of a network, computed by a second copy of oneDNN.

:func:`exchange_convolutions` changes only what happens when PyNative mode calls a convolution.
Parameters, graph mode and exported files are not affected. Results agree with MindSpore's to within
rounding, and are repeatable bit for bit with the same number of threads. Without the library, or
with ``UNET3D_CONVOLUTIONS=mindspore``, MindSpore's own kernels run.
"""

import unet3d_tutorial.environment  # noqa: F401

import os
from typing import TypeAlias

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore._c_expression.amp import get_curr_amp_strategy
from mindspore.graph.jit_context import jit_context

from .convolution import Convolution, Geometry, convolution_programs
from .onednn import Shape, library, load_library
from .runtime import launch_mode


def kernels() -> str:
    """``"onednn"`` or ``"mindspore"``: what computes the convolutions of an accelerated network.

    The answer is ``"mindspore"`` if the user asks for it, if the library is missing, on devices
    other than a CPU, with the launch queue, which fills arrays later, and in processes started by
    ``msrun``, which share the cores. Raises ``ValueError`` for an unknown value of
    ``UNET3D_CONVOLUTIONS``.
    """
    choice = os.environ.get("UNET3D_CONVOLUTIONS", "")
    if choice not in ("", "mindspore"):
        raise ValueError(f"UNET3D_CONVOLUTIONS: expected mindspore or nothing, found {choice!r}")
    on_cpu = ms.get_context("device_target") == "CPU"
    alone = "MS_ROLE" not in os.environ
    if choice or not on_cpu or not alone or launch_mode() != "at once":
        return "mindspore"
    return "onednn" if load_library() else "mindspore"


def exchange_convolutions(network: nn.Cell) -> None:
    """Let oneDNN compute the 3-D convolutions of ``network``, in place.

    Each layer keeps its operation, name and attributes, so graphs do not change; only the class of
    the operation does.
    """
    for _, layer in network.cells_and_names():
        if isinstance(layer, nn.Conv3d):
            if is_supported(layer.conv3d, layer.conv3d.padding):
                _exchange(layer.conv3d, Conv3D, layer)
        elif isinstance(layer, nn.Conv3dTranspose):
            if is_supported(layer.conv3d_transpose, layer.conv3d_transpose.pad_list):
                _exchange(layer.conv3d_transpose, Conv3DTranspose, layer)


def _exchange(operation: ops.Primitive, kind: type, layer: nn.Cell) -> None:
    operation.__class__ = kind
    # A normal assignment would make it an attribute of the graph.
    object.__setattr__(operation, "layer", layer)


class Conv3D(ops.Conv3D):
    """MindSpore's operation, except when PyNative mode calls it."""

    def __call__(self, x: Tensor, w: Tensor) -> Tensor:
        if not can_run(self, x, w):
            return super().__call__(x, w)
        programs = convolution_programs(geometry_of(self, x.shape, w.shape))
        return Convolution.apply(x.contiguous(), w.contiguous(), programs)


class Conv3DTranspose(ops.Conv3DTranspose):
    """MindSpore's operation, except when PyNative mode calls it."""

    def __call__(self, y: Tensor, w: Tensor) -> Tensor:
        if not can_run(self, y, w):
            return super().__call__(y, w)
        programs = convolution_programs(geometry_of(self, y.shape, w.shape))
        return Convolution.apply(y.contiguous(), w.contiguous(), programs)


Operation: TypeAlias = ops.Conv3D | ops.Conv3DTranspose


def is_supported(operation: Operation, padding: Shape) -> bool:
    """Whether a convolution has no groups, no dilation, and the same padding on both sides."""
    if operation.group != 1 or set(operation.dilation) != {1}:
        return False
    if operation.pad_mode == "same":
        # Only then is padding equal on both sides: MindSpore puts an odd voxel at the end.
        odd_kernel = all(k % 2 for k in operation.kernel_size)
        if set(operation.stride) != {1} or not odd_kernel:
            return False
    return padding[::2] == padding[1::2]


def can_run(operation: Operation, x: Tensor, w: Tensor) -> bool:
    """Whether oneDNN can compute this call.

    This requires float32, no mixed precision, no graph under construction, and the process that
    loaded the library, because a forked child does not have its threads.
    """
    layer = getattr(operation, "layer", None)
    if layer is None:  # a copy of the operation has none
        return False
    if layer.mixed_precision_type is not None or get_curr_amp_strategy() is not None:
        return False
    is_plain = x.dtype == w.dtype == ms.float32 and 0 not in x.shape
    return is_plain and not jit_context() and library().process == os.getpid()


def geometry_of(operation: Operation, source: Shape, w: Shape) -> Geometry:
    """The geometry of ``operation`` for a ``source`` shape and a weight shape ``w``."""
    stride = operation.stride[-3:]
    if isinstance(operation, ops.Conv3D):
        pad = padding_before(operation, operation.padding, w)
        size = []
        for n, p, k, s in zip(source[2:], pad, w[2:], stride, strict=True):
            size.append((n + 2 * p - k) // s + 1)
        result = (source[0], w[0], *size)
        return Geometry(x=source, w=w, y=result, stride=stride, pad=pad, transposed=False)

    pad = padding_before(operation, operation.pad_list, w)
    more = operation.output_padding[-3:]
    size = []
    for n, p, k, s, extra in zip(source[2:], pad, w[2:], stride, more, strict=True):
        size.append((n - 1) * s + k - 2 * p + extra)
    result = (source[0], w[1], *size)
    return Geometry(x=result, w=w, y=source, stride=stride, pad=pad, transposed=True)


def padding_before(operation: Operation, padding: Shape, w: Shape) -> Shape:
    """Voxels of zero padding before the volume along its three axes.

    :func:`is_supported` has made sure that the padding after the volume is the same.
    """
    if operation.pad_mode == "same":
        return tuple(k // 2 for k in w[2:])
    return tuple(padding[::2])
