"""The case's network in evaluation mode as one program of :mod:`.cpu.onednn`, from the image to the
logits.

A prediction keeps nothing for a gradient, and batch-norm is a factor and a shift for each channel.
So a convolution does the rest of its unit while it writes its result: factor, shift, PReLU and the
sum with the shortcut are its *post-ops*. No array between image and logits is plain, and arrays
that are not needed at the same time share memory. MindSpore sees one call. Results are the layers'
own, to rounding. :func:`takes` says when the layers run instead.

Sources: oneDNN's developer guide, https://uxlfoundation.github.io/oneDNN, "Primitive Attributes:
Post-ops", "Deconvolution".
"""

import unet3d_tutorial.environment  # noqa: F401

from ctypes import byref, c_void_p
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore.graph.api import _pynative_executor

from ..model import Down, OutputUnit, PReLU, ResidualUNet3D
from . import onednn
from . import units as fused
from .onednn import DIRECT, DST, SRC, WEIGHTS, Geometry, Memory, Program, Shape, empty
from .units import FusedIdentityUnit, FusedResidualUnit, FusedUp

# The numbers that oneDNN's C header, dnnl_types.h, gives to its names.
INFERENCE, TRANSPOSED_DIRECT, ADD, MULTIPLY = 96, 0xA, 0x1FFF0, 0x1FFF1
SECOND_SRC, SEVERAL_SRC, POST_OP, EACH_CHANNEL = 2, 1024, 32768, 2
#: Input channels up to which a transposed convolution may have post-ops. From 192 on, oneDNN 3.2
#: was found to apply them more than once, to sums over some of the channels. Above this limit they
#: run alone; maps with many channels are small.
MANY = 64


class Layer(NamedTuple):
    """A convolution, and the batch-norm and PReLU that follow it in a unit."""

    conv: nn.Conv3d | nn.Conv3dTranspose
    norm: nn.Cell | None = None
    act: PReLU | None = None

    @property
    def operation(self) -> onednn.Conv3D | onednn.Conv3DTranspose:
        return self.conv.conv3d if isinstance(self.conv, nn.Conv3d) else self.conv.conv3d_transpose


def layers(network: nn.Cell) -> list[Layer]:
    """All convolutions of the case's network with what follows them, in the order of
    :class:`ForwardPlan`.
    """
    found = []
    for level in network.cells():
        if isinstance(level, Down):
            unit = level.down_conv
            found += [
                Layer(unit.residual),
                Layer(unit.down_conv_1, unit.batchNormal1, unit.relu1),
                Layer(unit.down_conv_2, unit.batchNormal2, unit.relu2),
            ]
        else:
            unit = level.conv
            found += [
                Layer(level.conv3d_transpose, level.batchNormal1, level.relu),
                Layer(
                    unit.down_conv_1,
                    getattr(unit, "batchNormal1", None),
                    getattr(unit, "relu1", None),
                ),
            ]
    return found


def is_as_built(network: nn.Cell) -> bool:
    """Whether each level and unit is still the package's own.

    One that somebody put in its place may do something else.
    """
    levels = list(network.cells())
    units = [
        level.down_conv if type(level) is Down else getattr(level, "conv", None) for level in levels
    ]
    ups = len(levels) // 2
    expected = (
        [(Down, FusedResidualUnit)] * (ups + 1)
        + [(FusedUp, FusedIdentityUnit)] * (ups - 1)
        + [(FusedUp, OutputUnit)]
    )
    return [
        (type(level), type(unit)) for level, unit in zip(levels, units, strict=True)
    ] == expected


def plan(found: list[Layer], shape: Shape) -> "ForwardPlan":
    """The program for these convolutions and a batch of images of ``shape``.

    It lives as long as the process.
    """
    key = shape, *((layer.conv.weight.shape, layer.operation.stride) for layer in found)
    if key not in _PLANS:
        _PLANS[key] = ForwardPlan(found, shape)
    return _PLANS[key]


class ForwardPlan:
    """The program of :func:`layers` for one shape of image.

    It keeps their sizes, and reads their weights at each call.
    """

    def __init__(self, found: list[Layer], shape: Shape):
        self.dnnl = dnnl = onednn.load_library()
        self.program = Program(dnnl)
        self.waiting = enumerate(found)
        x, skips = Map(self.program.plain("image", shape), shape), []
        levels = (
            len(found) + 2
        ) // 5  # three convolutions for each in the encoder; two in the decoder, of one level less
        for _ in range(levels):
            shortcut = self.next(x)
            x = self.next(self.next(x), plus=shortcut)
            skips.append(x)
        x = skips.pop()
        while len(skips) > 1:
            x = self.next(self.joined(x, skips.pop()))
            x = self.next(x, plus=x)
        last = self.next(self.joined(x, skips.pop()))
        self.shape = self.next(last, "logits").shape

    def next(self, x: "Map", result: str = "", *, plus: "Map | None" = None) -> "Map":
        """Add the next convolution with the rest of its unit, and ``plus`` in the end.

        A named ``result`` is plain.
        """
        number, layer = next(self.waiting)
        geometry = onednn.geometry(layer.operation, x.shape, layer.conv.weight.shape)
        shape = geometry.result
        program = self.program
        factors = {}
        if layer.norm is not None:
            vector = (1, shape[1], 1, 1, 1)
            factors = {
                name: program.plain(f"{name} {number}", vector)
                for name in ("factor", "shift", "slope")
            }
        alone = geometry.transposed and x.shape[1] > MANY
        attributes, reads = self.post_ops({} if alone else factors, plus)
        target = program.plain(result, shape) if result else None
        weight = program.given(f"weight {number}", weight_layout(self.dnnl, geometry))
        convolution = descriptor(self.dnnl, geometry, attributes)
        made = program.add(convolution, {SRC: x.memory, WEIGHTS: weight}, {DST: target}, reads)[DST]
        return Map(self.alone(made, shape[1], factors) if alone else made, shape)

    def post_ops(
        self, factors: dict[str, Memory], plus: "Map | None"
    ) -> tuple[c_void_p, dict[int, Memory]]:
        """What a primitive does with its result, in this order, and the arrays that it needs for
        it.
        """
        operations = c_void_p()
        attributes = c_void_p()
        reads = {}
        call = self.dnnl.call
        call("post_ops_create", byref(operations))
        for name, memory in (*factors.items(), *([("plus", plus.memory)] if plus else [])):
            argument = POST_OP * (len(reads) + 1)
            if name == "slope":
                call("post_ops_append_prelu", operations, EACH_CHANNEL)
                reads[argument | WEIGHTS] = memory
            else:
                call(
                    "post_ops_append_binary",
                    operations,
                    MULTIPLY if name == "factor" else ADD,
                    memory.layout,
                )
                reads[argument | SECOND_SRC] = memory
        call("primitive_attr_create", byref(attributes))
        call("primitive_attr_set_post_ops", attributes, operations)
        return attributes, reads

    def alone(self, y: Memory, channels: int, factors: dict[str, Memory]) -> Memory:
        """Add factor, shift and PReLU as primitives of their own."""
        scaled = c_void_p()
        bent = c_void_p()
        engine = self.dnnl.engine
        layout = y.layout
        attributes, reads = self.post_ops({"shift": factors["shift"]}, None)
        self.dnnl.call(
            "binary_primitive_desc_create",
            byref(scaled),
            engine,
            MULTIPLY,
            layout,
            factors["factor"].layout,
            layout,
            attributes,
        )
        y = self.program.add(scaled, {SRC: y, SECOND_SRC: factors["factor"]}, {DST: None}, reads)[
            DST
        ]
        self.dnnl.call(
            "prelu_forward_primitive_desc_create",
            byref(bent),
            engine,
            INFERENCE,
            layout,
            self.dnnl.layout((1, channels, 1, 1, 1)),
            layout,
            None,
        )
        return self.program.add(bent, {SRC: y, WEIGHTS: factors["slope"]}, {DST: None})[DST]

    def joined(self, x: "Map", skip: "Map") -> "Map":
        """Add the concatenation along the channels."""
        made, parts = c_void_p(), (c_void_p * 2)(x.memory.layout, skip.memory.layout)
        self.dnnl.call(
            "concat_primitive_desc_create", byref(made), self.dnnl.engine, None, 2, 1, parts, None
        )
        both = self.program.add(
            made, {}, {DST: None}, {SEVERAL_SRC: x.memory, SEVERAL_SRC + 1: skip.memory}
        )[DST]
        return Map(both, (x.shape[0], x.shape[1] + skip.shape[1], *x.shape[2:]))

    def __call__(self, image: Tensor, found: list[Layer]) -> Tensor:
        """Logits of a batch of images, with the weights that the layers have now."""
        logits, inputs = empty(self.shape), {}
        for number, layer in enumerate(found):
            inputs[f"weight {number}"] = layer.conv.weight.contiguous()
            if layer.norm is not None:
                inputs |= {
                    f"{name} {number}": Tensor(values)
                    for name, values in channel_factors(layer).items()
                }
        self.program(image=image, logits=logits, **inputs)
        return logits


class Map(NamedTuple):
    """Feature maps, ``(N, C, D, H, W)``, in a layout of oneDNN's choice."""

    memory: Memory
    shape: Shape


_PLANS: dict[tuple, ForwardPlan] = {}


def weight_layout(dnnl: onednn.Library, geometry: Geometry) -> c_void_p:
    """The layout of MindSpore's weights; those of a transposed convolution with the first two axes
    in oneDNN's order.
    """
    if not geometry.transposed:
        return dnnl.plain(geometry.w)
    k, c, *kernel = geometry.w
    made, size = c_void_p(), int(np.prod(kernel))
    strides = (size, c * size, kernel[1] * kernel[2], kernel[2], 1)
    dnnl.call(
        "memory_desc_create_with_strides",
        byref(made),
        5,
        onednn.numbers((c, k, *kernel)),
        onednn.FLOAT32,
        onednn.numbers(strides),
    )
    return made


def descriptor(dnnl: onednn.Library, geometry: Geometry, attributes: c_void_p) -> c_void_p:
    """The convolution or transposed convolution with its post-ops."""
    made, (k, c, *kernel) = c_void_p(), geometry.w
    kind, algorithm, w = (
        ("deconvolution", TRANSPOSED_DIRECT, (c, k, *kernel))
        if geometry.transposed
        else ("convolution", DIRECT, geometry.w)
    )
    dnnl.call(
        f"{kind}_forward_primitive_desc_create",
        byref(made),
        dnnl.engine,
        INFERENCE,
        algorithm,
        dnnl.layout(geometry.source),
        dnnl.layout(w),
        None,
        dnnl.layout(geometry.result),
        *geometry.form,
        attributes,
    )
    return made


def channel_factors(layer: Layer) -> dict[str, np.ndarray]:
    """What follows a convolution in use, a number for each channel: first ``x * factor + shift``,
    then PReLU's ``slope``.

    Batch-norm in use is a factor and a shift (arXiv:1502.03167, algorithm 2).
    """
    norm = layer.norm.bn2d
    gamma, beta, mean, variance = (
        p.asnumpy() for p in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    factor = gamma / np.sqrt(variance + np.float32(norm.eps))
    return {
        "factor": factor,
        "shift": beta - mean * factor,
        "slope": np.full_like(factor, layer.act.w.asnumpy()),
    }


# ----------------------------------------------------------------------------------- in the network


def takes(network: nn.Cell, image: Tensor) -> bool:
    """Whether a call can run here: evaluation mode, PyNative mode, no gradient, no hooks, and the
    units of the case.

    All that :func:`unet3d_tutorial.cpu.units.fits` asks, too: batch-norm, 32-bit floats, the second
    oneDNN.
    """
    if (
        network.training
        or ms.get_context("mode") != ms.PYNATIVE_MODE
        or _pynative_executor.requires_grad()
    ):
        return False
    if not is_as_built(network) or any(
        fused.watched(cell) for _, cell in network.cells_and_names()
    ):
        return False
    return all(_fits(layer, image) for layer in layers(network))


def _fits(layer: Layer, image: Tensor) -> bool:
    if layer.norm is None:
        known = isinstance(layer.operation, onednn.Conv3D) and not layer.conv.has_bias
        return known and onednn.takes(layer.operation, image, layer.conv.weight)
    return fused.fits(layer.operation, *layer, image) and not layer.norm.bn2d.training


def run(network: nn.Cell, image: Tensor) -> Tensor:
    """Logits ``(N, classes, D, H, W)`` of the case's network for images ``(N, C, D, H, W)`` that
    :func:`takes` takes.
    """
    found = layers(network)
    return plan(found, image.shape)(image.contiguous(), found)


class OneProgramResidualUNet3D(ResidualUNet3D):
    """The case's network, whose layers are one program in use, where that can be."""

    def __call__(self, x: Tensor) -> Tensor:
        self.check_input(x.shape)
        if takes(self, x):
            return run(self, x)
        return super().__call__(x)


def make_one_program(network: nn.Cell) -> None:
    """Let ``network`` run as one program, in place, if it is the case's own.

    A derived class may do something else.
    """
    if type(network) is ResidualUNet3D:
        network.__class__ = OneProgramResidualUNet3D
