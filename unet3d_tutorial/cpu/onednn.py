"""3-D convolutions on CPU by a second copy of oneDNN, which may choose its own array layouts.

MindSpore hands its copy of oneDNN plain ``(N, C, D, H, W)`` arrays. For those it has no AVX-512
kernel and multiplies matrices in AVX2. Here oneDNN is asked for the layouts that it likes best
(memory format ``any``), in which 16 channels lie side by side, and each array is reordered on its
way in and out; PyTorch does the same. The library comes from the package ``onednn-cpu-gomp`` and is
called through its C interface, with ``ctypes`` and without copies: a MindSpore tensor on CPU is
memory with an address. See oneDNN's developer guide, https://uxlfoundation.github.io/oneDNN,
"Memory Format Propagation" and "Convolution".

:func:`exchange_convolutions` exchanges only what happens when PyNative mode calls a convolution.
Parameters, graph mode and exported files know nothing of it, and without the library MindSpore's
own kernels run, as they do with ``UNET3D_CONVOLUTIONS=mindspore``. Results agree to rounding, and
repeat to the bit with the same number of threads. There is no second derivative.
"""

import unet3d_tutorial.environment  # noqa: F401

import ctypes
import os
import threading
from collections.abc import Sequence
from ctypes import byref, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

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
# BLOCKED: aBcde16b, 16 channels in a line.
CPU, IN_ORDER, FLOAT32, ANY, BLOCKED, TRAINING, DIRECT = (1, 1, 3, 1, 121, 64, 1)
SRC, DST, WEIGHTS, DIFF_SRC, DIFF_DST, DIFF_WEIGHTS = 1, 17, 33, 129, 145, 161
LAYOUT_OF_ARGUMENT = 255
LINE = 64  #: bytes of a cache line, and of an AVX-512 register
BLOCK = 16  #: float32 numbers of a line
FEW = 3  #: channels of a convolution's input for which oneDNN has kernels of their own


# -------------------------------------------------------------------------------------- the library


class Library:
    """oneDNN, loaded from ``path``, with all kernels that the processor has.

    Raises ``OSError`` if it cannot be loaded.
    """

    def __init__(self, path: Path):
        self.functions = ctypes.CDLL(str(path))
        self.process = os.getpid()
        self.lock = threading.Lock()
        self.functions.dnnl_primitive_desc_query_md.restype = c_void_p
        self.functions.dnnl_memory_desc_get_size.restype = c_size_t
        # everything: ONEDNN_MAX_CPU_ISA is there for MindSpore's copy.
        self.call("set_max_cpu_isa", 0)
        self.engine = c_void_p()
        self.stream = c_void_p()
        self.call("engine_create", byref(self.engine), CPU, c_size_t(0))
        self.call("stream_create", byref(self.stream), self.engine, IN_ORDER)

    def call(self, name: str, *arguments) -> None:
        """Call ``dnnl_name``. Raises ``RuntimeError`` with the status unless it succeeds."""
        status = getattr(self.functions, f"dnnl_{name}")(*arguments)
        if status:
            raise RuntimeError(f"oneDNN: expected status 0 from {name}, found {status}")

    def plain(self, shape: Shape) -> c_void_p:
        """Memory descriptor of a float32 array, row after row."""
        made, strides = c_void_p(), numbers(np.cumprod([1, *shape[:0:-1]])[::-1].tolist())
        self.call(
            "memory_desc_create_with_strides",
            byref(made),
            len(shape),
            numbers(shape),
            FLOAT32,
            strides,
        )
        return made

    def layout(self, shape: Shape, tag: int = ANY) -> c_void_p:
        """Memory descriptor of a float32 array in a layout that has a number, or as oneDNN likes it
        best.
        """
        made = c_void_p()
        self.call(
            "memory_desc_create_with_tag", byref(made), len(shape), numbers(shape), FLOAT32, tag
        )
        return made

    def is_same(self, a: c_void_p, b: c_void_p) -> bool:
        """Whether two memory descriptors say the same."""
        return bool(self.functions.dnnl_memory_desc_equal(a, b))

    def part(self, layout: c_void_p, shape: Shape, first: Shape) -> c_void_p:
        """Memory descriptor of a box of an array, ``shape`` voxels from index ``first`` on."""
        made = c_void_p()
        self.call(
            "memory_desc_create_submemory", byref(made), layout, numbers(shape), numbers(first)
        )
        return made

    def wanted(self, descriptor: c_void_p, argument: int) -> c_void_p:
        """The layout in which a primitive takes or gives an argument."""
        return c_void_p(
            self.functions.dnnl_primitive_desc_query_md(descriptor, LAYOUT_OF_ARGUMENT, argument)
        )


def numbers(values: Sequence[int]) -> ctypes.Array:
    """A C array of 64-bit integers."""
    return (c_int64 * len(values))(*values)


@cache
def load_library() -> Library | None:
    """The library of :data:`PACKAGE`, or ``None`` where it is not installed or does not load."""
    try:
        found = [
            file.locate() for file in metadata.files(PACKAGE) or () if file.name == "libdnnl.so.3"
        ]
        return Library(Path(found[0])) if found else None
    except (metadata.PackageNotFoundError, OSError):
        return None


# --------------------------------------------------------------------- operations of oneDNN in turn


class Memory:
    """An array in a layout, without an address yet."""

    def __init__(self, dnnl: Library, layout: c_void_p):
        self.dnnl = dnnl
        self.layout = layout
        self.handle = c_void_p()
        self.views = []
        self.whole = self
        size = dnnl.functions.dnnl_memory_desc_get_size(layout)
        self.bytes = -(-size // LINE) * LINE
        dnnl.call("memory_create", byref(self.handle), layout, dnnl.engine, None)

    def seen_as(self, layout: c_void_p) -> "Memory":
        """The same bytes in another layout."""
        view = Memory(self.dnnl, layout)
        view.whole = self.whole
        self.whole.views.append(view)
        return view

    def lies_at(self, address: int) -> None:
        for memory in (self, *self.views):
            self.dnnl.call("memory_set_data_handle", memory.handle, c_void_p(address))


class Argument(ctypes.Structure):
    """oneDNN's ``dnnl_exec_arg_t``."""

    _fields_ = [("index", c_int), ("memory", c_void_p)]


class Primitive:
    """Something that oneDNN can do, with the memories that it reads and writes."""

    def __init__(self, dnnl: Library, descriptor: c_void_p, memories: dict[int, Memory]):
        self.dnnl = dnnl
        self.handle = c_void_p()
        self.uses = {memory.whole for memory in memories.values()}
        dnnl.call("primitive_create", byref(self.handle), descriptor)
        self.arguments = (Argument * len(memories))(
            *((index, memory.handle) for index, memory in memories.items())
        )

    def run(self) -> None:
        self.dnnl.call(
            "primitive_execute", self.handle, self.dnnl.stream, len(self.arguments), self.arguments
        )


class Program:
    """Primitives in turn. What comes from outside has a name; what they hand on to each other keeps
    oneDNN's layout.
    """

    def __init__(self, dnnl: Library):
        self.dnnl = dnnl
        self.outside = {}
        self.inside = []
        self.steps = []
        self.places: dict[Memory, int] = {}  # of what is inside, once the program is complete

    def given(self, name: str, layout: c_void_p) -> Memory:
        """An array that the caller has, in any layout."""
        self.outside[name] = Memory(self.dnnl, layout)
        return self.outside[name]

    def plain(self, name: str, shape: Shape) -> Memory:
        """An array that the caller has, row after row."""
        return self.given(name, self.dnnl.plain(shape))

    def add(
        self,
        descriptor: c_void_p,
        reads: dict[int, Memory],
        writes: dict[int, Memory | None],
        as_it_is: dict[int, Memory] | None = None,
    ) -> dict[int, Memory]:
        """Run a primitive; reorder what it reads before, and after it what it writes, where it
        wants another layout.

        ``None`` writes to an array of the program's own; ``as_it_is`` is read in the layout that it
        has. Gives the arrays that the primitive wrote itself.
        """
        used = {
            index: self.read(memory, self.dnnl.wanted(descriptor, index))
            for index, memory in reads.items()
        }
        used |= as_it_is or {}
        after = []
        for index, memory in writes.items():
            wanted = self.dnnl.wanted(descriptor, index)
            used[index] = (
                memory if memory and self.dnnl.is_same(wanted, memory.layout) else self.own(wanted)
            )
            if memory and used[index] is not memory:
                after.append(reorder(self.dnnl, used[index], memory))
        self.steps += [Primitive(self.dnnl, descriptor, used), *after]
        return {index: used[index] for index in writes}

    def read(self, memory: Memory, layout: c_void_p) -> Memory:
        """``memory`` in ``layout``: itself, or a copy."""
        if self.dnnl.is_same(layout, memory.layout):
            return memory
        copy = self.own(layout)
        self.steps.append(reorder(self.dnnl, memory, copy))
        return copy

    def own(self, layout: c_void_p) -> Memory:
        """An array that lives from the first step that uses it to the last."""
        self.inside.append(Memory(self.dnnl, layout))
        return self.inside[-1]

    def __call__(self, **tensors: Tensor) -> None:
        """Read and write the memory of contiguous tensors on CPU, one for each name."""
        with self.dnnl.lock:
            self.places = self.places or share(self.inside, self.steps)
            # From MindSpore's pool, which keeps the pages: new ones from the system would cost more
            # than the reorders.
            buffer = empty_bytes(
                max((start + memory.bytes for memory, start in self.places.items()), default=0)
            )
            address = -(-buffer.data_ptr() // LINE) * LINE
            for memory, start in self.places.items():
                memory.lies_at(address + start)
            for name, memory in self.outside.items():
                memory.lies_at(tensors[name].data_ptr())
            for step in self.steps:
                step.run()
            self.dnnl.call("stream_wait", self.dnnl.stream)


def share(memories: list[Memory], steps: list[Primitive]) -> dict[Memory, int]:
    """Where each array begins in one buffer.

    Arrays that no two steps need at the same time may lie at the same place.

    The largest are placed first, each as low as it fits: "greedy by size" of arXiv:2001.03288.
    """
    life = {}
    for number, step in enumerate(steps):
        for memory in step.uses:
            life[memory] = life.get(memory, (number,))[0], number
    places: dict[Memory, int] = {}
    for memory in sorted(memories, key=lambda memory: -memory.bytes):
        first, last = life[memory]
        taken = sorted(
            (start, start + other.bytes)
            for other, start in places.items()
            if life[other][0] <= last and first <= life[other][1]
        )
        place = 0
        for start, stop in taken:
            if place + memory.bytes <= start:
                break
            place = max(place, stop)
        places[memory] = place
    return places


def reorder(dnnl: Library, source: Memory, target: Memory) -> Primitive:
    """The copy of ``source`` to the layout of ``target``."""
    made, engine = c_void_p(), dnnl.engine
    dnnl.call(
        "reorder_primitive_desc_create",
        byref(made),
        source.layout,
        engine,
        target.layout,
        engine,
        None,
    )
    return Primitive(dnnl, made, {SRC: source, DST: target})


def empty(shape: Shape) -> Tensor:
    """A float32 tensor with whatever lies there."""
    return mint.empty(shape, dtype=ms.float32)


def empty_bytes(size: int) -> Tensor:
    """Memory for ``size`` bytes, with room to let them begin at a cache line."""
    return mint.empty(size + LINE, dtype=ms.uint8)


# -------------------------------------------------------------------------- a convolution both ways


class Geometry(NamedTuple):
    """Sizes of a convolution:

    ``x`` ``(N, C, D, H, W)`` with ``w`` ``(K, C, d, h, w)`` gives ``y`` ``(N, K, ...)``.

    A transposed convolution is the same thing read backwards: it takes ``y`` to ``x``.
    """

    x: Shape
    w: Shape
    y: Shape
    stride: Shape
    pad: Shape
    transposed: bool

    @property
    def form(self) -> tuple[ctypes.Array, ...]:
        """Stride, dilation and padding before and behind, as oneDNN takes them."""
        behind = [
            (m - 1) * s + k - n - p
            for n, k, m, s, p in zip(
                self.x[2:], self.w[2:], self.y[2:], self.stride, self.pad, strict=True
            )
        ]
        return tuple(numbers(values) for values in (self.stride, (0, 0, 0), self.pad, behind))

    @property
    def source(self) -> Shape:
        return self.y if self.transposed else self.x

    @property
    def result(self) -> Shape:
        return self.x if self.transposed else self.y


class Descriptors:
    """What oneDNN can do with a :class:`Geometry`: the convolution and its two gradients, added to
    a :class:`Program`.
    """

    def __init__(self, dnnl: Library, geometry: Geometry):
        self.dnnl = dnnl
        self.geometry = geometry
        self.transposed = geometry.transposed
        form = geometry.form
        x_any, w_any, y_any = (dnnl.layout(shape) for shape in (geometry.x, geometry.w, geometry.y))
        self.to_y = c_void_p()
        self.to_x = c_void_p()
        self.to_w = c_void_p()
        dnnl.call(
            "convolution_forward_primitive_desc_create",
            byref(self.to_y),
            dnnl.engine,
            TRAINING,
            DIRECT,
            x_any,
            w_any,
            None,
            y_any,
            *form,
            None,
        )
        dnnl.call(
            "convolution_backward_data_primitive_desc_create",
            byref(self.to_x),
            dnnl.engine,
            DIRECT,
            x_any,
            w_any,
            y_any,
            *form,
            self.to_y,
            None,
        )
        dnnl.call(
            "convolution_backward_weights_primitive_desc_create",
            byref(self.to_w),
            dnnl.engine,
            DIRECT,
            x_any,
            w_any,
            None,
            y_any,
            *form,
            self.to_y,
            None,
        )

    def result(
        self, program: Program, source: Memory, w: Memory, target: Memory | None = None
    ) -> Memory:
        """Add the convolution; ``target`` and the result are those of :meth:`Program.add`."""
        return self._along(program, not self.transposed, source, w, target)

    def source_gradient(
        self, program: Program, arriving: Memory, w: Memory, target: Memory | None = None
    ) -> Memory:
        """Add what arrives at the source if ``arriving`` arrives at the result."""
        return self._along(program, self.transposed, arriving, w, target)

    def weight_gradient(
        self, program: Program, source: Memory, arriving: Memory, target: Memory
    ) -> None:
        """Add what arrives at the weight if ``arriving`` arrives at the result."""
        x, y = (arriving, source) if self.transposed else (source, arriving)
        if self.geometry.x[1] > FEW and self.geometry.x[1] % BLOCK:
            self._weight_gradient_in_parts(program, x, y, target)
        else:
            program.add(self.to_w, {SRC: x, DIFF_DST: y}, {DIFF_WEIGHTS: target})

    def _weight_gradient_in_parts(
        self, program: Program, x: Memory, y: Memory, target: Memory
    ) -> None:
        """The same, a few channels of ``x`` at a time.

        For them oneDNN has a kernel, for all at once a product of matrices.

        The kernel wants ``y`` in whole blocks of channels. Zeros fill its last block, so that the
        same bytes are an array with more channels; what these give for the weight is left out.
        """
        dnnl, (x_shape, w, y_shape, *rest) = self.dnnl, self.geometry
        blocks = -(-w[0] // BLOCK) * BLOCK
        x = program.read(x, dnnl.plain(x_shape))
        y = program.read(y, dnnl.layout(y_shape, BLOCKED)).seen_as(
            dnnl.layout((y_shape[0], blocks, *y_shape[2:]), BLOCKED)
        )
        for first in range(0, w[1], FEW):
            few = min(FEW, w[1] - first)
            shape, part_w = (x_shape[0], few, *x_shape[2:]), (blocks, few, *w[2:])
            part = Descriptors(
                dnnl, Geometry(shape, part_w, (y_shape[0], blocks, *y_shape[2:]), *rest)
            )
            found = program.own(dnnl.plain(part_w))
            some = x.seen_as(dnnl.part(x.layout, shape, (0, first, 0, 0, 0)))
            program.add(part.to_w, {SRC: some, DIFF_DST: y}, {DIFF_WEIGHTS: found})
            used = found.seen_as(dnnl.part(found.layout, (w[0], *part_w[1:]), (0, 0, 0, 0, 0)))
            there = target.seen_as(
                dnnl.part(target.layout, (w[0], *part_w[1:]), (0, first, 0, 0, 0))
            )
            program.steps.append(reorder(dnnl, used, there))

    def layout(self) -> c_void_p:
        """The layout that oneDNN likes best for the result."""
        return (
            self.dnnl.wanted(self.to_x, DIFF_SRC)
            if self.transposed
            else self.dnnl.wanted(self.to_y, DST)
        )

    def _along(
        self, program: Program, forward: bool, source: Memory, w: Memory, target: Memory | None
    ) -> Memory:
        if forward:
            return program.add(self.to_y, {SRC: source, WEIGHTS: w}, {DST: target})[DST]
        return program.add(self.to_x, {DIFF_DST: source, WEIGHTS: w}, {DIFF_SRC: target})[DIFF_SRC]


class Plan:
    """The programs of a convolution and of its two gradients. A plan lives as long as the process."""

    def __init__(self, geometry: Geometry):
        self.geometry = geometry
        dnnl = load_library()
        self._result, self._to_source, self._to_weight = programs = [
            Program(dnnl) for _ in range(3)
        ]
        (source, w, result), back, weight = (
            [
                p.plain("source", geometry.source),
                p.plain("w", geometry.w),
                p.plain("result", geometry.result),
            ]
            for p in programs
        )
        found = Descriptors(dnnl, geometry)
        found.result(programs[0], source, w, result)
        found.source_gradient(programs[1], back[2], back[1], back[0])
        found.weight_gradient(programs[2], weight[0], weight[2], weight[1])

    def result(self, source: Tensor, w: Tensor) -> Tensor:
        """The convolution."""
        result = empty(self.geometry.result)
        self._result(source=source, w=w, result=result)
        return result

    def to_source(self, arriving: Tensor, w: Tensor) -> Tensor:
        """The gradient that arrives at the source if ``arriving`` arrives at the result."""
        x, _, y, stride, pad, transposed = self.geometry
        if (
            not transposed and self._is_even() and x[1] < BLOCK
        ):  # few channels: forward, with a mirrored weight, is faster
            mirrored = ops.flip(w, (2, 3, 4)).swapaxes(0, 1).contiguous()
            return plan(Geometry(y, mirrored.shape, x, stride, pad, False)).result(
                arriving, mirrored
            )
        source = empty(self.geometry.source)
        self._to_source(result=arriving, w=w, source=source)
        return source

    def to_weight(self, source: Tensor, arriving: Tensor) -> Tensor:
        """The gradient that arrives at the weight if ``arriving`` arrives at the result."""
        w = empty(self.geometry.w)
        self._to_weight(source=source, result=arriving, w=w)
        return w

    def _is_even(self) -> bool:
        """Whether stride is 1 and padding the same on both sides, so that sizes stay."""
        geometry = self.geometry
        return set(geometry.stride) == {1} and all(
            2 * p == k - 1 for p, k in zip(geometry.pad, geometry.w[2:], strict=True)
        )


plan = cache(Plan)


class Convolve(_Function):
    """Source to result, with gradients."""

    @staticmethod
    def forward(ctx, source: Tensor, w: Tensor, found: Plan) -> Tensor:
        ctx.save_for_backward(source, w)
        ctx.plan = found
        return found.result(source, w)

    @staticmethod
    def backward(ctx, arriving: Tensor) -> tuple[Tensor | None, ...]:
        source, w = ctx.saved_tensors
        arriving = arriving.contiguous()
        needed = ctx.next_functions[0][0]
        return (
            ctx.plan.to_source(arriving, w) if needed else None,
            ctx.plan.to_weight(source, arriving),
            None,
        )


# -------------------------------------------------------------------------- in place of MindSpore's


class Conv3D(ops.Conv3D):
    """MindSpore's operation, except when PyNative mode calls it."""

    def __call__(self, x: Tensor, w: Tensor) -> Tensor:
        if not takes(self, x, w):
            return super().__call__(x, w)
        return Convolve.apply(
            x.contiguous(), w.contiguous(), plan(geometry(self, x.shape, w.shape))
        )


class Conv3DTranspose(ops.Conv3DTranspose):
    """MindSpore's operation, except when PyNative mode calls it."""

    def __call__(self, y: Tensor, w: Tensor) -> Tensor:
        if not takes(self, y, w):
            return super().__call__(y, w)
        return Convolve.apply(
            y.contiguous(), w.contiguous(), plan(geometry(self, y.shape, w.shape))
        )


def geometry(operation: ops.Conv3D | ops.Conv3DTranspose, source: Shape, w: Shape) -> Geometry:
    """Sizes of what ``operation`` makes of a source."""
    stride, kernel = operation.stride[-3:], w[2:]
    if isinstance(operation, ops.Conv3D):
        pad = padding(operation, operation.padding, w)
        size = [
            (n + 2 * p - k) // s + 1
            for n, p, k, s in zip(source[2:], pad, kernel, stride, strict=True)
        ]
        return Geometry(source, w, (source[0], w[0], *size), stride, pad, False)
    pad = padding(operation, operation.pad_list, w)
    size = [
        (n - 1) * s + k - 2 * p + more
        for n, s, k, p, more in zip(
            source[2:], stride, kernel, pad, operation.output_padding[-3:], strict=True
        )
    ]
    return Geometry((source[0], w[1], *size), w, source, stride, pad, True)


def padding(operation: ops.Conv3D | ops.Conv3DTranspose, given: Shape, w: Shape) -> Shape:
    """Voxels of zeros before the volume along its three axes; :func:`suits` made sure that there
    are as many behind.
    """
    return tuple(k // 2 for k in w[2:]) if operation.pad_mode == "same" else tuple(given[::2])


def takes(operation: ops.Conv3D | ops.Conv3DTranspose, x: Tensor, w: Tensor) -> bool:
    """Whether a call can run here: 32-bit floats, no mixed precision, no graph under construction,
    not in a forked child.
    """
    layer = getattr(operation, "layer", None)  # a copy of the operation has none
    mixed = (
        layer is None
        or layer.mixed_precision_type is not None
        or get_curr_amp_strategy() is not None
    )
    plain = x.dtype == w.dtype == ms.float32 and 0 not in x.shape
    return plain and not mixed and not jit_context() and load_library().process == os.getpid()


def suits(operation: ops.Conv3D | ops.Conv3DTranspose, given: Shape) -> bool:
    """Whether a convolution is of the kind that this module does: no groups, no dilation, the same
    padding on both sides.
    """
    even = operation.pad_mode != "same" or (
        set(operation.stride) == {1} and all(k % 2 for k in operation.kernel_size)
    )
    return (
        operation.group == 1
        and set(operation.dilation) == {1}
        and given[::2] == given[1::2]
        and even
    )


def convolutions() -> str:
    """``"onednn"`` or ``"mindspore"``: whose kernels compute the convolutions of networks that are
    built from now on.

    MindSpore's, where the user asks for them or the library is missing, on other devices than a
    CPU, with the launch queue, which fills arrays later, and in processes that ``msrun`` started,
    which share the cores.
    """
    choice = os.environ.get("UNET3D_CONVOLUTIONS", "")
    if choice not in ("", "mindspore"):
        raise ValueError(f"UNET3D_CONVOLUTIONS: expected mindspore or nothing, found {choice!r}")
    fits = (
        ms.get_context("device_target") == "CPU"
        and launch_mode() == "at once"
        and "MS_ROLE" not in os.environ
    )
    return "onednn" if fits and not choice and load_library() else "mindspore"


def exchange_convolutions(network: nn.Cell) -> None:
    """Let the 3-D convolutions of ``network`` run here, in place.

    Each keeps its operation, name and attributes, so graphs are what they were; only the
    operation's class changes.
    """
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv3d) and suits(cell.conv3d, cell.conv3d.padding):
            _exchange(cell.conv3d, Conv3D, cell)
        elif isinstance(cell, nn.Conv3dTranspose) and suits(
            cell.conv3d_transpose, cell.conv3d_transpose.pad_list
        ):
            _exchange(cell.conv3d_transpose, Conv3DTranspose, cell)


def _exchange(operation: ops.Primitive, kind: type, layer: nn.Cell) -> None:
    operation.__class__ = kind
    # MindSpore's own way would make it an attribute of the graph.
    object.__setattr__(operation, "layer", layer)
