"""A 3-D convolution and its two gradients as programs of oneDNN.

MindSpore passes plain ``(N, C, D, H, W)`` arrays to its own copy of oneDNN. For these, oneDNN has
no AVX-512 kernel and computes matrix products in AVX2. Here oneDNN chooses the layouts itself
(memory format ``any``): usually 16 channels are next to each other. Each array is reordered before
and after; PyTorch does the same. See oneDNN's developer guide,
https://uxlfoundation.github.io/oneDNN, "Memory Format Propagation" and "Convolution".

Second derivatives are not supported.
"""

import unet3d_tutorial.environment  # noqa: F401

import ctypes
from ctypes import c_void_p
from functools import cache
from typing import Any, NamedTuple

from mindspore import Tensor, ops
from mindspore.common._grad_function import _Function

from .onednn import (
    BLOCKED,
    DIFF_DST,
    DIFF_SRC,
    DIFF_WEIGHTS,
    DIRECT,
    DST,
    SRC,
    TRAINING,
    WEIGHTS,
    Library,
    Shape,
    int64s,
    library,
)
from .program import Memory, Program, empty, reorder, round_up

BLOCK = 16  #: float32 numbers in a cache line
FEW = 3  #: oneDNN has special kernels for convolutions with at most this many input channels


class Geometry(NamedTuple):
    """Sizes of a convolution that maps ``x`` with the weight ``w`` to ``y``.

    ``x`` is ``(N, C, D, H, W)``, ``w`` is ``(K, C, d, h, w)``, ``y`` is ``(N, K, ...)``. A
    transposed convolution has the same geometry, but maps ``y`` to ``x``. In both cases, *source*
    is the input and *result* the output.
    """

    x: Shape
    w: Shape
    y: Shape
    stride: Shape
    pad: Shape  #: voxels of zeros before the volume, along each axis
    transposed: bool

    @property
    def source(self) -> Shape:
        """Shape of what goes in."""
        return self.y if self.transposed else self.x

    @property
    def result(self) -> Shape:
        """Shape of what comes out."""
        return self.x if self.transposed else self.y

    @property
    def form(self) -> tuple[ctypes.Array, ...]:
        """Stride, dilation, padding before and padding after, as oneDNN expects them."""
        dilation = (0, 0, 0)
        behind = []
        for axis in range(3):
            covered = (self.y[2 + axis] - 1) * self.stride[axis] + self.w[2 + axis]
            behind.append(covered - self.x[2 + axis] - self.pad[axis])
        return int64s(self.stride), int64s(dilation), int64s(self.pad), int64s(behind)

    @property
    def keeps_size(self) -> bool:
        """Whether the result has the source's size: stride 1, and a padding of half the kernel."""
        half = all(2 * p == k - 1 for p, k in zip(self.pad, self.w[2:], strict=True))
        return half and set(self.stride) == {1}


class ConvolutionPrimitives:
    """The convolution of a :class:`Geometry` and its two gradients, to be added to a program."""

    def __init__(self, dnnl: Library, geometry: Geometry):
        self.dnnl = dnnl
        self.geometry = geometry
        x = dnnl.layout(geometry.x)
        w = dnnl.layout(geometry.w)
        y = dnnl.layout(geometry.y)
        no_bias = None
        no_attributes = None
        form = geometry.form
        self.to_y = dnnl.describe(
            "convolution_forward", TRAINING, DIRECT, x, w, no_bias, y, *form, no_attributes
        )
        self.to_x = dnnl.describe(
            "convolution_backward_data", DIRECT, x, w, y, *form, self.to_y, no_attributes
        )
        self.to_w = dnnl.describe(
            "convolution_backward_weights",
            DIRECT,
            x,
            w,
            no_bias,
            y,
            *form,
            self.to_y,
            no_attributes,
        )

    def add_result(
        self, program: Program, source: Memory, w: Memory, target: Memory | None = None
    ) -> Memory:
        """Add the convolution; return the array that it writes (see :meth:`.Program.add`)."""
        if self.geometry.transposed:
            return self._add_to_x(program, source, w, target)
        return self._add_to_y(program, source, w, target)

    def add_source_gradient(
        self, program: Program, result_gradient: Memory, w: Memory, target: Memory | None = None
    ) -> Memory:
        """Add the gradient of the source, computed from that of the result."""
        if self.geometry.transposed:
            return self._add_to_y(program, result_gradient, w, target)
        return self._add_to_x(program, result_gradient, w, target)

    def add_weight_gradient(
        self, program: Program, source: Memory, result_gradient: Memory, target: Memory
    ) -> None:
        """Add the gradient of the weight, computed from source and gradient of the result."""
        x, y = source, result_gradient
        if self.geometry.transposed:
            x, y = result_gradient, source
        channels = self.geometry.x[1]
        if channels > FEW and channels % BLOCK:
            self._add_weight_gradient_in_parts(program, x, y, target)
        else:
            program.add(self.to_w, {SRC: x, DIFF_DST: y}, {DIFF_WEIGHTS: target})

    def result_layout(self) -> c_void_p:
        """The layout that oneDNN prefers for the result."""
        if self.geometry.transposed:
            return self.dnnl.layout_of(self.to_x, DIFF_SRC)
        return self.dnnl.layout_of(self.to_y, DST)

    def _add_to_y(self, program: Program, x: Memory, w: Memory, target: Memory | None) -> Memory:
        return program.add(self.to_y, {SRC: x, WEIGHTS: w}, {DST: target})[DST]

    def _add_to_x(self, program: Program, y: Memory, w: Memory, target: Memory | None) -> Memory:
        return program.add(self.to_x, {DIFF_DST: y, WEIGHTS: w}, {DIFF_SRC: target})[DIFF_SRC]

    def _add_weight_gradient_in_parts(
        self, program: Program, x: Memory, y: Memory, target: Memory
    ) -> None:
        """Add the gradient of the weight for a few channels of ``x`` at a time.

        oneDNN has a kernel for a few channels. For all channels at once it computes matrix
        products, which are slower if the channels do not fill whole blocks. The kernel needs ``y``
        in whole blocks of channels. The last block is padded with zeros, so the same bytes can be
        read as an array with more channels; the gradients for these are discarded.
        """
        dnnl = self.dnnl
        geometry = self.geometry
        out_channels, in_channels, *kernel = geometry.w
        filled = round_up(out_channels, BLOCK)
        y_filled = (geometry.y[0], filled, *geometry.y[2:])

        x = program.read(x, dnnl.plain(geometry.x))
        y = program.read(y, dnnl.layout(geometry.y, BLOCKED))
        y = y.seen_as(dnnl.layout(y_filled, BLOCKED))

        for first in range(0, in_channels, FEW):
            few = min(FEW, in_channels - first)
            part = Geometry(
                x=(geometry.x[0], few, *geometry.x[2:]),
                w=(filled, few, *kernel),
                y=y_filled,
                stride=geometry.stride,
                pad=geometry.pad,
                transposed=geometry.transposed,
            )
            gradient = program.own(dnnl.plain(part.w))
            x_part = x.seen_as(dnnl.box(x.layout, part.x, (0, first, 0, 0, 0)))
            primitive = ConvolutionPrimitives(dnnl, part).to_w
            program.add(primitive, {SRC: x_part, DIFF_DST: y}, {DIFF_WEIGHTS: gradient})

            kept = (out_channels, few, *kernel)
            used = gradient.seen_as(dnnl.box(gradient.layout, kept, (0, 0, 0, 0, 0)))
            place = target.seen_as(dnnl.box(target.layout, kept, (0, first, 0, 0, 0)))
            program.steps.append(reorder(dnnl, used, place))


class ConvolutionPrograms:
    """The programs of a convolution and its two gradients, cached until the process ends."""

    def __init__(self, geometry: Geometry):
        self.geometry = geometry
        primitives = ConvolutionPrimitives(library(), geometry)
        self._result = self._result_program(primitives)
        self._source_gradient = self._source_gradient_program(primitives)
        self._weight_gradient = self._weight_gradient_program(primitives)

    def _result_program(self, primitives: ConvolutionPrimitives) -> Program:
        program, source, w, result = self._arrays()
        primitives.add_result(program, source, w, result)
        return program

    def _source_gradient_program(self, primitives: ConvolutionPrimitives) -> Program:
        program, source, w, result = self._arrays()
        primitives.add_source_gradient(program, result, w, source)
        return program

    def _weight_gradient_program(self, primitives: ConvolutionPrimitives) -> Program:
        program, source, w, result = self._arrays()
        primitives.add_weight_gradient(program, source, result, w)
        return program

    def _arrays(self) -> tuple[Program, Memory, Memory, Memory]:
        """An empty program with the plain arrays ``source``, ``w`` and ``result``."""
        program = Program(library())
        source = program.plain("source", self.geometry.source)
        w = program.plain("w", self.geometry.w)
        result = program.plain("result", self.geometry.result)
        return program, source, w, result

    def result(self, source: Tensor, w: Tensor) -> Tensor:
        """The convolution."""
        result = empty(self.geometry.result)
        self._result(source=source, w=w, result=result)
        return result

    def source_gradient(self, result_gradient: Tensor, w: Tensor) -> Tensor:
        """The gradient of the source, computed from that of the result."""
        geometry = self.geometry
        if not geometry.transposed and geometry.keeps_size and geometry.x[1] < BLOCK:
            # With few channels, a forward convolution with the mirrored weight is faster.
            mirrored = ops.flip(w, (2, 3, 4)).swapaxes(0, 1).contiguous()
            forwards = geometry._replace(x=geometry.y, w=mirrored.shape, y=geometry.x)
            return convolution_programs(forwards).result(result_gradient, mirrored)
        source = empty(geometry.source)
        self._source_gradient(result=result_gradient, w=w, source=source)
        return source

    def weight_gradient(self, source: Tensor, result_gradient: Tensor) -> Tensor:
        """The gradient of the weight, computed from source and gradient of the result."""
        w = empty(self.geometry.w)
        self._weight_gradient(source=source, result=result_gradient, w=w)
        return w


convolution_programs = cache(ConvolutionPrograms)


class Convolution(_Function):
    """The convolution of source and weight as a differentiable function."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, w: Tensor, programs: ConvolutionPrograms) -> Tensor:
        ctx.save_for_backward(source, w)
        ctx.programs = programs
        return programs.result(source, w)

    @staticmethod
    def backward(ctx: Any, result_gradient: Tensor) -> tuple[Tensor | None, ...]:
        source, w = ctx.saved_tensors
        result_gradient = result_gradient.contiguous()
        source_needs_gradient = ctx.next_functions[0][0]
        source_gradient = None
        if source_needs_gradient:
            source_gradient = ctx.programs.source_gradient(result_gradient, w)
        return source_gradient, ctx.programs.weight_gradient(source, result_gradient), None
