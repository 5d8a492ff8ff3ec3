"""Convolution, batch-norm and PReLU as one operation of oneDNN, in the case's network.

Separately, each of the three returns a plain array, so the arrays between them are copied and read
again. Together, on CPU and in PyNative mode, they pass on arrays in oneDNN's own layout, which is
also the fastest for oneDNN's batch-norm and PReLU; PyTorch reorders around each convolution.
Results agree with those of the layers to within rounding. If a layer has a hook, or
:func:`.layers.can_run` is false, the layers run separately.

Sources: arXiv:1502.03167 for batch-norm; the pages of oneDNN's developer guide on convolution,
batch-norm and PReLU.
"""

import unet3d_tutorial.environment  # noqa: F401

from ctypes import c_float
from functools import cache
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common._grad_function import _Function
from mindspore.graph.jit_context import jit_context

from ..model import BatchNorm3d, IdentityUnit, PReLU, ResidualUnit, Up
from .convolution import ConvolutionPrimitives, Geometry
from .layers import Conv3D, Conv3DTranspose, can_run, geometry_of
from .onednn import (
    BACKWARD,
    DIFF_DST,
    DIFF_SCALE,
    DIFF_SHIFT,
    DIFF_SRC,
    DIFF_WEIGHTS,
    DST,
    GIVEN_STATISTICS,
    MEAN,
    SCALE,
    SHIFT,
    SRC,
    TRAINING,
    VARIANCE,
    WEIGHTS,
    WITH_SCALE,
    WITH_SHIFT,
    library,
)
from .program import Memory, Program, empty, empty_bytes

# ------------------------------------------------------------------------------------- the programs


class UnitPrograms:
    """The forward and backward programs of one unit of fixed sizes, cached in the process.

    The convolution maps ``x`` to ``y``, batch-norm ``y`` to ``n``, and PReLU ``n`` to ``z``. The
    backward pass needs ``y`` and ``n``, so the caller keeps them.
    """

    def __init__(self, geometry: Geometry, training: bool, epsilon: float):
        self.geometry = geometry
        self.training = training
        self.channels = geometry.result[1]
        self.dnnl = library()
        self.convolution = ConvolutionPrimitives(self.dnnl, geometry)
        self.kept_layout = self.convolution.result_layout()
        self.kept_bytes = Memory(self.dnnl, self.kept_layout).bytes
        self._describe_norm(epsilon)
        self._describe_activation()
        self.forward = self._forward()
        self.backward = self._backward(with_source_gradient=True)
        self.backward_to_weights = self._backward(with_source_gradient=False)

    def _describe_norm(self, epsilon: float) -> None:
        layout = self.kept_layout
        flags = WITH_SCALE | WITH_SHIFT
        if not self.training:
            flags |= GIVEN_STATISTICS
        self.norm = self.dnnl.describe(
            "batch_normalization_forward", TRAINING, layout, layout, c_float(epsilon), flags, None
        )
        self.norm_back = self.dnnl.describe(
            "batch_normalization_backward",
            BACKWARD,
            layout,
            layout,
            layout,
            c_float(epsilon),
            flags,
            self.norm,
            None,
        )

    def _describe_activation(self) -> None:
        layout = self.kept_layout
        slopes = self.dnnl.layout((1, self.channels, 1, 1, 1))
        self.activation = self.dnnl.describe(
            "prelu_forward", TRAINING, layout, slopes, layout, None
        )
        self.activation_back = self.dnnl.describe(
            "prelu_backward", layout, slopes, layout, slopes, layout, self.activation, None
        )

    def _forward(self) -> Program:
        program = Program(self.dnnl)
        x = program.plain("x", self.geometry.source)
        w = program.plain("w", self.geometry.w)
        y = program.given("y", self.kept_layout)
        n = program.given("n", self.kept_layout)
        z = program.plain("z", self.geometry.result)

        self.convolution.add_result(program, x, w, y)

        statistics = self._statistics(program)
        reads = {
            SRC: y,
            SCALE: self._channel_vector(program, "gamma"),
            SHIFT: self._channel_vector(program, "beta"),
        }
        writes: dict[int, Memory | None] = {DST: n}
        # In training, this batch's statistics are written; otherwise the running ones are read.
        if self.training:
            writes |= statistics
        else:
            reads |= statistics
        program.add(self.norm, reads, writes)

        program.add(self.activation, {SRC: n, WEIGHTS: self._slopes(program, "slopes")}, {DST: z})
        return program

    def _backward(self, with_source_gradient: bool) -> Program:
        program = Program(self.dnnl)
        x = program.plain("x", self.geometry.source)
        w = program.plain("w", self.geometry.w)
        y = program.given("y", self.kept_layout)
        n = program.given("n", self.kept_layout)
        dz = program.plain("dz", self.geometry.result)

        reads = {SRC: n, WEIGHTS: self._slopes(program, "slopes"), DIFF_DST: dz}
        writes: dict[int, Memory | None] = {
            DIFF_SRC: None,
            DIFF_WEIGHTS: self._slopes(program, "dslopes"),
        }
        dn = program.add(self.activation_back, reads, writes)[DIFF_SRC]

        reads = {SRC: y, DIFF_DST: dn, **self._statistics(program)}
        reads[SCALE] = self._channel_vector(program, "gamma")
        writes = {
            DIFF_SRC: None,
            DIFF_SCALE: self._channel_vector(program, "dgamma"),
            DIFF_SHIFT: self._channel_vector(program, "dbeta"),
        }
        dy = program.add(self.norm_back, reads, writes)[DIFF_SRC]

        dw = program.plain("dw", self.geometry.w)
        self.convolution.add_weight_gradient(program, x, dy, dw)
        if with_source_gradient:
            dx = program.plain("dx", self.geometry.source)
            self.convolution.add_source_gradient(program, dy, w, dx)
        return program

    def _statistics(self, program: Program) -> dict[int, Memory]:
        return {
            MEAN: self._channel_vector(program, "mean"),
            VARIANCE: self._channel_vector(program, "variance"),
        }

    def _channel_vector(self, program: Program, name: str) -> Memory:
        return program.plain(name, (self.channels,))

    def _slopes(self, program: Program, name: str) -> Memory:
        return program.plain(name, (1, self.channels, 1, 1, 1))


unit_programs = cache(UnitPrograms)


class Unit(_Function):
    """A unit with gradients for ``x``, ``w``, ``gamma``, ``beta`` and ``slopes``.

    In training it writes the batch's statistics to ``mean`` and ``variance``; otherwise it reads
    the running statistics from them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor,
        gamma: Tensor,
        beta: Tensor,
        slopes: Tensor,
        mean: Tensor,
        variance: Tensor,
        programs: UnitPrograms,
    ) -> Tensor:
        arrays = {
            "x": x,
            "w": w.contiguous(),
            "gamma": gamma.contiguous(),
            "slopes": slopes.contiguous(),
            "mean": mean.contiguous(),
            "variance": variance.contiguous(),
        }
        ctx.programs = programs
        ctx.kept = {name: empty_bytes(programs.kept_bytes) for name in ("y", "n")}
        ctx.names = tuple(arrays)
        ctx.save_for_backward(*arrays.values())
        z = empty(programs.geometry.result)
        programs.forward(**arrays, beta=beta.contiguous(), z=z, **ctx.kept)
        return z

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, ...]:
        arrays = dict(zip(ctx.names, ctx.saved_tensors, strict=True))
        channels = arrays["gamma"].shape
        dx = None
        gradients = {
            "dw": empty(arrays["w"].shape),
            "dgamma": empty(channels),
            "dbeta": empty(channels),
            "dslopes": empty(channels),
        }
        source_needs_gradient = bool(ctx.next_functions[0][0])
        if source_needs_gradient:
            dx = empty(arrays["x"].shape)
            ctx.programs.backward(**arrays, **ctx.kept, dz=dz.contiguous(), dx=dx, **gradients)
        else:
            ctx.programs.backward_to_weights(**arrays, **ctx.kept, dz=dz.contiguous(), **gradients)
        return dx, *gradients.values(), None, None, None


def unit(conv: nn.Conv3d | nn.Conv3dTranspose, norm: nn.Cell, act: PReLU, x: Tensor) -> Tensor:
    """``act(norm(conv(x)))``, as one operation where possible."""
    if not can_fuse(conv, norm, act, x):
        return act(norm(conv(x)))
    bn = norm.bn2d
    geometry = geometry_of(operation_of(conv), x.shape, conv.weight.shape)
    programs = unit_programs(geometry, bn.training, bn.eps)
    slopes = act.w * ops.ones((programs.channels,), ms.float32)
    mean = bn.moving_mean
    variance = bn.moving_variance
    if bn.training:
        mean = empty(mean.shape)
        variance = empty(mean.shape)
    z = Unit.apply(x.contiguous(), conv.weight, bn.gamma, bn.beta, slopes, mean, variance, programs)
    if bn.training:
        count = z.size // programs.channels
        # The running variance is unbiased; the batch's variance is divided by the count.
        unbiased = variance * (count / max(count - 1, 1))
        move_towards(bn.moving_mean, mean, bn.momentum)
        move_towards(bn.moving_variance, unbiased, bn.momentum)
    return z


def move_towards(running: ms.Parameter, new: Tensor, share: float) -> None:
    """Update a running statistic with ``share`` of the new value."""
    running.set_data(running * (1 - share) + new * share)


def operation_of(conv: nn.Conv3d | nn.Conv3dTranspose) -> Conv3D | Conv3DTranspose:
    """The operation that a layer calls."""
    return conv.conv3d if isinstance(conv, nn.Conv3d) else conv.conv3d_transpose


def can_fuse(conv: nn.Cell, norm: nn.Cell, act: nn.Cell, x: Tensor) -> bool:
    """Whether convolution, normalisation and activation can run as one operation.

    This requires a convolution without bias that :mod:`.layers` has exchanged, batch-norm, PReLU,
    and no hooks. Types must match exactly, because a derived class may compute something different.
    """
    operation = operation_of(conv)
    if not isinstance(operation, Conv3D | Conv3DTranspose) or conv.has_bias:
        return False
    if type(act) is not PReLU or type(norm) is not BatchNorm3d:
        return False
    if type(norm.bn2d) is not nn.BatchNorm2d:  # wrapped for 16 bits
        return False
    if norm.bn2d.use_batch_statistics is not None:
        return False
    if any(is_watched(cell) for cell in (conv, norm, norm.bn2d, act)):
        return False
    return can_run(operation, x, conv.weight)


def is_watched(cell: nn.Cell) -> bool:
    """Whether a cell has hooks, or its call does more than ``construct``."""
    hooks = (
        cell._forward_pre_hook,
        cell._forward_hook,
        cell._backward_pre_hook,
        cell._backward_hook,
    )
    # A construct of the instance's own takes the place of the class's.
    has_own_construct = "construct" in vars(cell)
    more_than_construct = cell._recompute_cell is not None or cell.requires_grad
    return any(hooks) or has_own_construct or more_than_construct


# ----------------------------------------------------------------------------------- in the network


class FusedCell(nn.Cell):
    """A cell that runs ``units`` in PyNative mode: the same as ``construct``, but faster."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        is_pynative = ms.get_context("mode") == ms.PYNATIVE_MODE and not jit_context()
        if is_pynative and not is_watched(self):
            return self.units(*inputs)
        return super().__call__(*inputs)


class FusedResidualUnit(FusedCell, ResidualUnit):
    """A residual unit that runs as two operations and the shortcut."""

    def units(self, x: Tensor) -> Tensor:
        y = unit(self.down_conv_1, self.batchNormal1, self.relu1, x)
        y = unit(self.down_conv_2, self.batchNormal2, self.relu2, y)
        return y + self.residual(x)


class FusedIdentityUnit(FusedCell, IdentityUnit):
    """An identity unit that runs as one operation and the identity."""

    def units(self, x: Tensor) -> Tensor:
        return x + unit(self.down_conv_1, self.batchNormal1, self.relu1, x)


class FusedUp(FusedCell, Up):
    """A decoder level whose transposed convolution, batch-norm and PReLU are one operation."""

    def units(self, x: Tensor, skip: Tensor) -> Tensor:
        x = ops.concat((x, skip), axis=1)
        x = unit(self.conv3d_transpose, self.batchNormal1, self.relu, x)
        return self.conv(x)


#: Each block of the network and its faster form: the same parameters, the same graph.
FUSED = {ResidualUnit: FusedResidualUnit, IdentityUnit: FusedIdentityUnit, Up: FusedUp}


def fuse(network: nn.Cell) -> None:
    """Fuse convolution, batch-norm and PReLU of ``network`` in PyNative mode, in place.

    Only the package's own classes, listed in :data:`FUSED`, are replaced; a user's class is not.
    """
    for _, cell in network.cells_and_names():
        cell.__class__ = FUSED.get(type(cell), type(cell))
