"""3-D convolutions on CPU by a second copy of oneDNN, which may choose its own array layouts.

MindSpore hands its copy of oneDNN plain ``(N, C, D, H, W)`` arrays. For those it has no AVX-512 kernel and multiplies
matrices in AVX2. Here oneDNN is asked for the layouts that it likes best (memory format ``any``), in which 16 channels
lie side by side, and each array is reordered on its way in and out; PyTorch does the same. The library comes from the
package ``onednn-cpu-gomp`` and is called through its C interface, with ``ctypes`` and without copies: a MindSpore tensor
on CPU is memory with an address. See oneDNN's developer guide, https://uxlfoundation.github.io/oneDNN, "Memory Format
Propagation" and "Convolution".

:func:`use` exchanges only what happens when PyNative mode calls a convolution. Parameters, graph mode and exported files
know nothing of it, and without the library MindSpore's own kernels run, as they do with ``UNET3D_CONVOLUTIONS=mindspore``.
Results agree to rounding, and repeat to the bit with the same number of threads. There is no second derivative.
"""

import ctypes
import os
import threading
from collections.abc import Sequence
from ctypes import byref, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from importlib import metadata
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint, nn, ops
from mindspore._c_expression.amp import get_curr_amp_strategy
from mindspore.common._grad_function import _Function
from mindspore.graph.jit_context import jit_context

from .runtime import launch_mode

PACKAGE = "onednn-cpu-gomp"
Shape = tuple[int, ...]
# The numbers that oneDNN's C header, dnnl_types.h, gives to its names.
CPU, IN_ORDER, FLOAT32, ANY, TRAINING, DIRECT = 1, 1, 3, 1, 64, 1
SRC, DST, WEIGHTS, DIFF_SRC, DIFF_DST, DIFF_WEIGHTS = 1, 17, 33, 129, 145, 161
LAYOUT = {SRC: 129, DIFF_SRC: 130, WEIGHTS: 131, DIFF_WEIGHTS: 132, DST: 133, DIFF_DST: 134}  # question for each argument
LINE = 64  #: bytes of a cache line, and of an AVX-512 register
BLOCK = 16  #: float32 numbers of a line


# ------------------------------------------------------------------------------------------------------------ the library


class Library:
    """oneDNN, loaded from ``path``, with all kernels that the processor has. Raises ``OSError`` if it cannot be loaded."""

    def __init__(self, path: Path):
        self.functions, self.process, self.lock = ctypes.CDLL(str(path)), os.getpid(), threading.Lock()
        self.functions.dnnl_primitive_desc_query_md.restype = c_void_p
        self.functions.dnnl_memory_desc_get_size.restype = c_size_t
        self.call("set_max_cpu_isa", 0)  # everything: ONEDNN_MAX_CPU_ISA is there for MindSpore's copy
        self.engine, self.stream = c_void_p(), c_void_p()
        self.call("engine_create", byref(self.engine), CPU, c_size_t(0))
        self.call("stream_create", byref(self.stream), self.engine, IN_ORDER)

    def call(self, name: str, *arguments) -> None:
        """Call ``dnnl_name``. Raises ``RuntimeError`` with the status unless it succeeds."""
        status = getattr(self.functions, f"dnnl_{name}")(*arguments)
        if status:
            raise RuntimeError(f"oneDNN: expected status 0 from {name}, found {status}")

    def layout(self, shape: Shape, *, plain: bool) -> c_void_p:
        """Memory descriptor of a float32 array: row after row if ``plain``, else as oneDNN likes it."""
        made, sizes = c_void_p(), numbers(shape)
        if plain:
            strides = numbers(np.cumprod([1, *shape[:0:-1]])[::-1].tolist())
            self.call("memory_desc_create_with_strides", byref(made), len(shape), sizes, FLOAT32, strides)
        else:
            self.call("memory_desc_create_with_tag", byref(made), len(shape), sizes, FLOAT32, ANY)
        return made


def numbers(values: Sequence[int]) -> ctypes.Array:
    """A C array of 64-bit integers."""
    return (c_int64 * len(values))(*values)


@cache
def load_library() -> Library | None:
    """The library of :data:`PACKAGE`, or ``None`` where it is not installed or does not load."""
    try:
        found = [file.locate() for file in metadata.files(PACKAGE) or () if file.name == "libdnnl.so.3"]
        return Library(Path(found[0])) if found else None
    except (metadata.PackageNotFoundError, OSError):
        return None


# ------------------------------------------------------------------------------------------------- one operation of oneDNN


class Memory:
    """An array in a layout, without an address yet."""

    def __init__(self, dnnl: Library, layout: c_void_p):
        self.dnnl, self.layout, self.handle = dnnl, layout, c_void_p()
        size = dnnl.functions.dnnl_memory_desc_get_size(layout)
        self.bytes = -(-size // LINE) * LINE
        dnnl.call("memory_create", byref(self.handle), layout, dnnl.engine, None)

    def lies_at(self, address: int) -> None:
        self.dnnl.call("memory_set_data_handle", self.handle, c_void_p(address))


class Argument(ctypes.Structure):
    """oneDNN's ``dnnl_exec_arg_t``."""

    _fields_ = [("index", c_int), ("memory", c_void_p)]


class Primitive:
    """Something that oneDNN can do, with the memories that it reads and writes."""

    def __init__(self, dnnl: Library, descriptor: c_void_p, memories: dict[int, Memory]):
        self.dnnl, self.handle = dnnl, c_void_p()
        dnnl.call("primitive_create", byref(self.handle), descriptor)
        self.arguments = (Argument * len(memories))(*((index, memory.handle) for index, memory in memories.items()))

    def run(self) -> None:
        self.dnnl.call("primitive_execute", self.handle, self.dnnl.stream, len(self.arguments), self.arguments)


class Operation:
    """A primitive on plain arrays: reorder what it reads, run it, reorder what it wrote."""

    def __init__(self, dnnl: Library, descriptor: c_void_p, reads: dict[int, Shape], writes: dict[int, Shape]):
        self.dnnl, self.outside, self.inside = dnnl, {}, []
        used, before, after = {}, [], []
        for index, shape in (reads | writes).items():
            plain = used[index] = self.outside[index] = Memory(dnnl, dnnl.layout(shape, plain=True))
            wanted = c_void_p(dnnl.functions.dnnl_primitive_desc_query_md(descriptor, LAYOUT[index], 0))
            if dnnl.functions.dnnl_memory_desc_equal(wanted, plain.layout):
                continue
            own = used[index] = Memory(dnnl, wanted)
            self.inside.append(own)
            if index in reads:
                before.append(reorder(dnnl, plain, own))
            else:
                after.append(reorder(dnnl, own, plain))
        self.steps = [*before, Primitive(dnnl, descriptor, used), *after]

    def __call__(self, tensors: dict[int, Tensor]) -> None:
        """Read and write the memory of contiguous float32 tensors on CPU, one for each argument."""
        # From MindSpore's pool, which keeps the pages: new ones from the system would cost more than the reorders.
        buffer = mint.empty(sum(memory.bytes for memory in self.inside) + LINE, dtype=ms.uint8)
        with self.dnnl.lock:
            address = -(-buffer.data_ptr() // LINE) * LINE
            for memory in self.inside:
                memory.lies_at(address)
                address += memory.bytes
            for index, tensor in tensors.items():
                self.outside[index].lies_at(tensor.data_ptr())
            for step in self.steps:
                step.run()
            self.dnnl.call("stream_wait", self.dnnl.stream)


def reorder(dnnl: Library, source: Memory, target: Memory) -> Primitive:
    """The copy of ``source`` to the layout of ``target``."""
    made, engine = c_void_p(), dnnl.engine
    dnnl.call("reorder_primitive_desc_create", byref(made), source.layout, engine, target.layout, engine, None)
    return Primitive(dnnl, made, {SRC: source, DST: target})


# ---------------------------------------------------------------------------------------------- a convolution both ways


class Plan:
    """A convolution of fixed sizes: ``x`` ``(N, C, D, H, W)`` with ``w`` ``(K, C, d, h, w)`` gives ``y`` ``(N, K, ...)``.

    A transposed convolution is the same thing read backwards: it takes ``y`` to ``x``. A plan lives as long as the process.
    """

    def __init__(self, x: Shape, w: Shape, y: Shape, stride: Shape, pad: Shape):
        self.x, self.w, self.y, self.stride, self.pad, dnnl = x, w, y, stride, pad, load_library()
        right = [(m - 1) * s + k - n - p for n, k, m, s, p in zip(x[2:], w[2:], y[2:], stride, pad, strict=True)]
        form = *(numbers(values) for values in (stride, (0, 0, 0), pad, right)),
        x_any, w_any, y_any = (dnnl.layout(shape, plain=False) for shape in (x, w, y))
        forward, data, weights = c_void_p(), c_void_p(), c_void_p()
        dnnl.call("convolution_forward_primitive_desc_create", byref(forward), dnnl.engine, TRAINING, DIRECT,
                  x_any, w_any, None, y_any, *form, None)
        dnnl.call("convolution_backward_data_primitive_desc_create", byref(data), dnnl.engine, DIRECT,
                  x_any, w_any, y_any, *form, forward, None)
        dnnl.call("convolution_backward_weights_primitive_desc_create", byref(weights), dnnl.engine, DIRECT,
                  x_any, w_any, None, y_any, *form, forward, None)
        self._to_y = Operation(dnnl, forward, {SRC: x, WEIGHTS: w}, {DST: y})
        self._to_x = Operation(dnnl, data, {DIFF_DST: y, WEIGHTS: w}, {DIFF_SRC: x})
        self._to_w = Operation(dnnl, weights, {SRC: x, DIFF_DST: y}, {DIFF_WEIGHTS: w})

    def to_y(self, x: Tensor, w: Tensor) -> Tensor:
        """The convolution."""
        y = mint.empty(self.y, dtype=ms.float32)
        self._to_y({SRC: x, WEIGHTS: w, DST: y})
        return y

    def to_x(self, y: Tensor, w: Tensor) -> Tensor:
        """The gradient that arrives at ``x`` if ``y`` arrives at the result."""
        if self._is_even() and self.x[1] < BLOCK:  # few channels: the way forward, with the weight mirrored, is faster
            mirrored = ops.flip(w, (2, 3, 4)).swapaxes(0, 1).contiguous()
            return plan(self.y, mirrored.shape, self.x, self.stride, self.pad).to_y(y, mirrored)
        x = mint.empty(self.x, dtype=ms.float32)
        self._to_x({DIFF_DST: y, WEIGHTS: w, DIFF_SRC: x})
        return x

    def to_w(self, x: Tensor, y: Tensor) -> Tensor:
        """The gradient that arrives at ``w`` if ``y`` arrives at the result."""
        w = mint.empty(self.w, dtype=ms.float32)
        self._to_w({SRC: x, DIFF_DST: y, DIFF_WEIGHTS: w})
        return w

    def _is_even(self) -> bool:
        """Whether stride is 1 and padding the same on both sides, so that sizes stay."""
        return set(self.stride) == {1} and all(2 * p == k - 1 for p, k in zip(self.pad, self.w[2:], strict=True))


plan = cache(Plan)


class Convolve(_Function):
    """``x`` to ``y``, with gradients."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor, found: Plan) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.plan = found
        return found.to_y(x, w)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        dy = dy.contiguous()
        return ctx.plan.to_x(dy, w) if ctx.next_functions[0][0] else None, ctx.plan.to_w(x, dy), None


class Spread(_Function):
    """``y`` to ``x``, with gradients: the transposed convolution."""

    @staticmethod
    def forward(ctx, y: Tensor, w: Tensor, found: Plan) -> Tensor:
        ctx.save_for_backward(y, w)
        ctx.plan = found
        return found.to_x(y, w)

    @staticmethod
    def backward(ctx, dx: Tensor) -> tuple[Tensor | None, ...]:
        y, w = ctx.saved_tensors
        dx = dx.contiguous()
        return ctx.plan.to_y(dx, w) if ctx.next_functions[0][0] else None, ctx.plan.to_w(dx, y), None


# ------------------------------------------------------------------------------------------------- in place of MindSpore's


class Conv3D(ops.Conv3D):
    """MindSpore's operation, except when PyNative mode calls it."""

    def __call__(self, x: Tensor, w: Tensor) -> Tensor:
        if not takes(self, x, w):
            return super().__call__(x, w)
        pad, stride = padding(self, self.padding, w.shape), self.stride[-3:]
        size = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(x.shape[2:], pad, w.shape[2:], stride, strict=True)]
        found = plan(x.shape, w.shape, (x.shape[0], w.shape[0], *size), stride, pad)
        return Convolve.apply(x.contiguous(), w.contiguous(), found)


class Conv3DTranspose(ops.Conv3DTranspose):
    """MindSpore's operation, except when PyNative mode calls it."""

    def __call__(self, y: Tensor, w: Tensor) -> Tensor:
        if not takes(self, y, w):
            return super().__call__(y, w)
        pad, stride = padding(self, self.pad_list, w.shape), self.stride[-3:]
        size = [(n - 1) * s + k - 2 * p + more for n, s, k, p, more in zip(
            y.shape[2:], stride, w.shape[2:], pad, self.output_padding[-3:], strict=True)]
        found = plan((y.shape[0], w.shape[1], *size), w.shape, y.shape, stride, pad)
        return Spread.apply(y.contiguous(), w.contiguous(), found)


def padding(operation: ops.Conv3D | ops.Conv3DTranspose, given: Shape, w: Shape) -> Shape:
    """Voxels of zeros before the volume along its three axes; :func:`suits` made sure that there are as many behind."""
    return tuple(k // 2 for k in w[2:]) if operation.pad_mode == "same" else tuple(given[::2])


def takes(operation: ops.Conv3D | ops.Conv3DTranspose, x: Tensor, w: Tensor) -> bool:
    """Whether a call can run here: 32-bit floats, no mixed precision, no graph under construction, not in a forked child."""
    layer = getattr(operation, "layer", None)  # a copy of the operation has none
    mixed = layer is None or layer.mixed_precision_type is not None or get_curr_amp_strategy() is not None
    plain = x.dtype == w.dtype == ms.float32 and 0 not in x.shape
    return plain and not mixed and not jit_context() and load_library().process == os.getpid()


def suits(operation: ops.Conv3D | ops.Conv3DTranspose, given: Shape) -> bool:
    """Whether a convolution is of the kind that this module does: no groups, no dilation, the same padding on both sides."""
    even = operation.pad_mode != "same" or (set(operation.stride) == {1} and all(k % 2 for k in operation.kernel_size))
    return operation.group == 1 and set(operation.dilation) == {1} and given[::2] == given[1::2] and even


def convolutions() -> str:
    """``"onednn"`` or ``"mindspore"``: whose kernels compute the convolutions of networks that are built from now on.

    MindSpore's, where the user asks for them or the library is missing, on other devices than a CPU, with the launch queue,
    which fills arrays later, and in processes that ``msrun`` started, which share the cores.
    """
    choice = os.environ.get("UNET3D_CONVOLUTIONS", "")
    if choice not in ("", "mindspore"):
        raise ValueError(f"UNET3D_CONVOLUTIONS: expected mindspore or nothing, found {choice!r}")
    fits = ms.get_context("device_target") == "CPU" and launch_mode() == "at once" and "MS_ROLE" not in os.environ
    return "onednn" if fits and not choice and load_library() else "mindspore"


def use(network: nn.Cell) -> bool:
    """Let the 3-D convolutions of ``network`` run here, where :func:`convolutions` says so; tells whether they do.

    Each keeps its operation, name and attributes, so graphs are what they were; only the operation's class changes.
    """
    if convolutions() != "onednn":
        return False
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv3d) and suits(cell.conv3d, cell.conv3d.padding):
            _exchange(cell.conv3d, Conv3D, cell)
            cell.tiled = False  # of model.TiledConv3d: these kernels need no tiles
        elif isinstance(cell, nn.Conv3dTranspose) and suits(cell.conv3d_transpose, cell.conv3d_transpose.pad_list):
            _exchange(cell.conv3d_transpose, Conv3DTranspose, cell)
    return True


def _exchange(operation: ops.Primitive, kind: type, layer: nn.Cell) -> None:
    operation.__class__ = kind
    object.__setattr__(operation, "layer", layer)  # MindSpore's own way would make it an attribute of the graph
