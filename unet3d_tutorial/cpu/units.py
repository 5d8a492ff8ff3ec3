"""Convolution, batch-norm and PReLU in turn as one operation of :mod:`.cpu.onednn`, in the case's
network.

Alone, each of the three gives a plain array back, and what lies between them is copied and read
once more. Together, on CPU and in PyNative mode, they hand each other oneDNN's own layout, in which
oneDNN's batch-norm and PReLU are fastest too; PyTorch reorders around each convolution. Results are
the layers' own, to rounding. Where a layer is watched by a hook, or
:func:`unet3d_tutorial.cpu.onednn.takes` says no, the layers run as they are.

Sources: arXiv:1502.03167 for batch-norm; the pages of oneDNN's developer guide on convolution,
batch-norm and PReLU.
"""

import unet3d_tutorial.environment  # noqa: F401

from ctypes import byref, c_float, c_void_p
from functools import cache

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common._grad_function import _Function

from ..model import BatchNorm3d, IdentityUnit, PReLU, ResidualUnit, Up
from . import onednn
from .onednn import (
    DIFF_DST,
    DIFF_SRC,
    DIFF_WEIGHTS,
    DST,
    SRC,
    TRAINING,
    WEIGHTS,
    Descriptors,
    Geometry,
    Program,
    empty,
)

BACKWARD = 128  # of dnnl_types.h, as in :mod:`.cpu.onednn`
MEAN, VARIANCE, SCALE, SHIFT, DIFF_SCALE, DIFF_SHIFT = 49, 50, 51, 52, 255, 256
GIVEN_STATISTICS, WITH_SCALE, WITH_SHIFT = 1, 2, 4


class UnitPlan:
    """The programs of one unit of fixed sizes, forward and backward. Lives as long as the process.

    The convolution makes ``y`` of ``x``, batch-norm ``n`` of that, and PReLU ``z``. ``y`` and ``n``
    are kept.
    """

    def __init__(self, geometry: Geometry, training: bool, epsilon: float):
        self.geometry = geometry
        self.channels = geometry.result[1]
        self.dnnl = dnnl = onednn.load_library()
        self.convolution = Descriptors(dnnl, geometry)
        layout, slopes = self.convolution.layout(), dnnl.layout((1, self.channels, 1, 1, 1))
        flags = WITH_SCALE | WITH_SHIFT | (0 if training else GIVEN_STATISTICS)
        self.norm, self.norm_back, self.act, self.act_back = (c_void_p() for _ in range(4))
        dnnl.call(
            "batch_normalization_forward_primitive_desc_create",
            byref(self.norm),
            dnnl.engine,
            TRAINING,
            layout,
            layout,
            c_float(epsilon),
            flags,
            None,
        )
        dnnl.call(
            "batch_normalization_backward_primitive_desc_create",
            byref(self.norm_back),
            dnnl.engine,
            BACKWARD,
            layout,
            layout,
            layout,
            c_float(epsilon),
            flags,
            self.norm,
            None,
        )
        dnnl.call(
            "prelu_forward_primitive_desc_create",
            byref(self.act),
            dnnl.engine,
            TRAINING,
            layout,
            slopes,
            layout,
            None,
        )
        dnnl.call(
            "prelu_backward_primitive_desc_create",
            byref(self.act_back),
            dnnl.engine,
            layout,
            slopes,
            layout,
            slopes,
            layout,
            self.act,
            None,
        )
        self.forward = self._forward(training)
        self.backward = {needed: self._backward(needed) for needed in (False, True)}

    def _forward(self, training: bool) -> Program:
        program, channels = Program(self.dnnl), (self.channels,)
        x, w = program.plain("x", self.geometry.source), program.plain("w", self.geometry.w)
        y, n = (program.given(name, self.convolution.layout()) for name in "yn")
        self.kept_bytes = y.bytes
        statistics = {
            MEAN: program.plain("mean", channels),
            VARIANCE: program.plain("variance", channels),
        }
        factors = {SCALE: program.plain("gamma", channels), SHIFT: program.plain("beta", channels)}
        self.convolution.result(program, x, w, y)
        if training:
            program.add(self.norm, {SRC: y, **factors}, {DST: n, **statistics})
        else:
            program.add(self.norm, {SRC: y, **factors, **statistics}, {DST: n})
        slopes = program.plain("slopes", (1, self.channels, 1, 1, 1))
        program.add(
            self.act, {SRC: n, WEIGHTS: slopes}, {DST: program.plain("z", self.geometry.result)}
        )
        return program

    def _backward(self, needed: bool) -> Program:
        """``needed``: whether the gradient of ``x`` is."""
        program = Program(self.dnnl)
        channels = (self.channels,)
        slopes = (1, self.channels, 1, 1, 1)
        x, w = program.plain("x", self.geometry.source), program.plain("w", self.geometry.w)
        y, n = (program.given(name, self.convolution.layout()) for name in "yn")
        reads = {
            SRC: n,
            WEIGHTS: program.plain("slopes", slopes),
            DIFF_DST: program.plain("dz", self.geometry.result),
        }
        writes = {DIFF_SRC: None, DIFF_WEIGHTS: program.plain("dslopes", slopes)}
        dn = program.add(self.act_back, reads, writes)[DIFF_SRC]
        reads = {
            SRC: y,
            DIFF_DST: dn,
            MEAN: program.plain("mean", channels),
            VARIANCE: program.plain("variance", channels),
            SCALE: program.plain("gamma", channels),
        }
        writes = {
            DIFF_SRC: None,
            DIFF_SCALE: program.plain("dgamma", channels),
            DIFF_SHIFT: program.plain("dbeta", channels),
        }
        dy = program.add(self.norm_back, reads, writes)[DIFF_SRC]
        self.convolution.weight_gradient(program, x, dy, program.plain("dw", self.geometry.w))
        if needed:
            self.convolution.source_gradient(
                program, dy, w, program.plain("dx", self.geometry.source)
            )
        return program


unit_plan = cache(UnitPlan)


class Unit(_Function):
    """A unit with gradients for ``x``, ``w``, ``gamma``, ``beta`` and ``slopes``.

    Writes or reads the statistics.
    """

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        w: Tensor,
        gamma: Tensor,
        beta: Tensor,
        slopes: Tensor,
        mean: Tensor,
        variance: Tensor,
        plan: UnitPlan,
    ) -> Tensor:
        w, gamma, beta, slopes, mean, variance = (
            t.contiguous() for t in (w, gamma, beta, slopes, mean, variance)
        )
        ctx.plan = plan
        ctx.kept = {name: onednn.empty_bytes(plan.kept_bytes) for name in "yn"}
        ctx.save_for_backward(x, w, gamma, slopes, mean, variance)
        z = empty(plan.geometry.result)
        plan.forward(
            x=x,
            w=w,
            gamma=gamma,
            beta=beta,
            slopes=slopes,
            mean=mean,
            variance=variance,
            z=z,
            **ctx.kept,
        )
        return z

    @staticmethod
    def backward(ctx, dz: Tensor) -> tuple[Tensor | None, ...]:
        x, w, gamma, slopes, mean, variance = ctx.saved_tensors
        needed = bool(ctx.next_functions[0][0])
        dgamma, dbeta, dslopes = (empty(gamma.shape) for _ in range(3))
        dx, dw = empty(x.shape) if needed else None, empty(w.shape)
        ctx.plan.backward[needed](
            x=x,
            w=w,
            gamma=gamma,
            slopes=slopes,
            mean=mean,
            variance=variance,
            dz=dz.contiguous(),
            dx=dx,
            dw=dw,
            dgamma=dgamma,
            dbeta=dbeta,
            dslopes=dslopes,
            **ctx.kept,
        )
        return dx, dw, dgamma, dbeta, dslopes, None, None, None


def unit(conv: nn.Conv3d | nn.Conv3dTranspose, norm: nn.Cell, act: PReLU, x: Tensor) -> Tensor:
    """``act(norm(conv(x)))``, as one operation where that can be."""
    operation = conv.conv3d if isinstance(conv, nn.Conv3d) else conv.conv3d_transpose
    if not fits(operation, conv, norm, act, x):
        return act(norm(conv(x)))
    bn, geometry = norm.bn2d, onednn.geometry(operation, x.shape, conv.weight.shape)
    plan = unit_plan(geometry, bn.training, bn.eps)
    slopes = act.w * ops.ones((plan.channels,), ms.float32)
    mean, variance = bn.moving_mean, bn.moving_variance
    if bn.training:
        mean, variance = empty(mean.shape), empty(mean.shape)
    z = Unit.apply(x.contiguous(), conv.weight, bn.gamma, bn.beta, slopes, mean, variance, plan)
    if bn.training:
        count = z.size // plan.channels
        follow(bn.moving_mean, mean, bn.momentum)
        follow(bn.moving_variance, variance * (count / max(count - 1, 1)), bn.momentum)
    return z


def follow(running: ms.Parameter, new: Tensor, share: float) -> None:
    """Take ``share`` of the new value into a running statistic."""
    running.set_data(running * (1 - share) + new * share)


def fits(operation: ops.Primitive, conv: nn.Cell, norm: nn.Cell, act: nn.Cell, x: Tensor) -> bool:
    """Whether the three may run as one: a convolution of :mod:`.cpu.onednn` without bias,
    batch-norm, PReLU, and no hooks.
    """
    kinds = isinstance(operation, onednn.Conv3D | onednn.Conv3DTranspose) and not conv.has_bias
    # A class that is derived may do something else.
    kinds = kinds and type(act) is PReLU and type(norm) is BatchNorm3d
    kinds = kinds and type(norm.bn2d) is nn.BatchNorm2d  # not wrapped for 16 bits
    if (
        not kinds
        or norm.bn2d.use_batch_statistics is not None
        or any(map(watched, (conv, norm, norm.bn2d, act)))
    ):
        return False
    return onednn.takes(operation, x, conv.weight)


def watched(cell: nn.Cell) -> bool:
    """Whether something waits for the inputs or results of a cell, or its call does more than
    ``construct``.
    """
    hooks = (
        cell._forward_pre_hook,
        cell._forward_hook,
        cell._backward_pre_hook,
        cell._backward_hook,
    )
    return any(hooks) or cell._recompute_cell is not None or cell.requires_grad


# ----------------------------------------------------------------------------------- in the network


class FusedCell(nn.Cell):
    """A cell whose ``construct`` PyNative mode replaces by ``units``, which does the same in fewer
    operations.
    """

    def __call__(self, *inputs: Tensor) -> Tensor:
        if ms.get_context("mode") != ms.PYNATIVE_MODE or onednn.jit_context() or watched(self):
            return super().__call__(*inputs)
        return self.units(*inputs)


class FusedResidualUnit(FusedCell, ResidualUnit):
    """Two operations and the shortcut."""

    def units(self, x: Tensor) -> Tensor:
        y = unit(self.down_conv_1, self.batchNormal1, self.relu1, x)
        y = unit(self.down_conv_2, self.batchNormal2, self.relu2, y)
        return y + self.residual(x)


class FusedIdentityUnit(FusedCell, IdentityUnit):
    """One operation beside the identity."""

    def units(self, x: Tensor) -> Tensor:
        return x + unit(self.down_conv_1, self.batchNormal1, self.relu1, x)


class FusedUp(FusedCell, Up):
    """The transposed convolution as one operation."""

    def units(self, x: Tensor, skip: Tensor) -> Tensor:
        x = ops.concat((x, skip), axis=1)
        return self.conv(unit(self.conv3d_transpose, self.batchNormal1, self.relu, x))


FUSED = {ResidualUnit: FusedResidualUnit, IdentityUnit: FusedIdentityUnit, Up: FusedUp}


def fuse(network: nn.Cell) -> None:
    """Let the units of ``network`` run as one operation each in PyNative mode, in place.

    A class of the reader's own stays what it is: only the package's own are in :data:`FUSED`.
    """
    for _, cell in network.cells_and_names():
        cell.__class__ = FUSED.get(type(cell), type(cell))
