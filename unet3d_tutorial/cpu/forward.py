"""The case's network in evaluation mode as one program of oneDNN, from the image to the logits.

At inference nothing is kept for gradients, and batch-norm is a factor and a shift for each channel.
So each convolution can do the rest of its unit while it writes its result: factor, shift, PReLU and
the sum with the shortcut are its *post-ops*. All arrays between image and logits keep oneDNN's
layouts, and arrays that are not needed at the same time share memory. For MindSpore it is a single
call. Results agree with those of the layers to within rounding. :func:`can_run_as_one` decides
whether the program or the layers run.

Sources: oneDNN's developer guide, https://uxlfoundation.github.io/oneDNN, "Primitive Attributes:
Post-ops", "Deconvolution".
"""

import unet3d_tutorial.environment  # noqa: F401

import math
from ctypes import c_void_p
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore.graph.api import _pynative_executor

from ..model import Down, OutputUnit, PReLU, ResidualUNet3D
from .convolution import Geometry
from .layers import Conv3D, Conv3DTranspose, can_run, geometry_of
from .onednn import (
    ADD,
    DIRECT,
    DST,
    EACH_CHANNEL,
    INFERENCE,
    MULTIPLY,
    POST_OP,
    SECOND_SRC,
    SEVERAL_SRC,
    SRC,
    TRANSPOSED_DIRECT,
    WEIGHTS,
    Library,
    Shape,
    library,
)
from .program import Memory, Program, empty
from .units import (
    FusedIdentityUnit,
    FusedResidualUnit,
    FusedUp,
    can_fuse,
    is_watched,
    operation_of,
)

#: The most input channels with which a transposed convolution has post-ops. From 192 channels on,
#: oneDNN 3.2 was found to apply them more than once, to partial sums over channels. Above this
#: limit they are separate primitives, at little cost, because maps with many channels are small.
POST_OPS_UP_TO = 64


# ----------------------------------------------------------------------- the network's convolutions


class Layer(NamedTuple):
    """A convolution, and the batch-norm and PReLU that follow it in a unit."""

    conv: nn.Conv3d | nn.Conv3dTranspose
    norm: nn.Cell | None = None
    act: PReLU | None = None

    @property
    def operation(self) -> Conv3D | Conv3DTranspose:
        """The operation that the convolution calls."""
        return operation_of(self.conv)


def layers_of(network: nn.Cell) -> list[Layer]:
    """All convolutions of the case's network, in the order of :class:`NetworkProgram`."""
    layers = []
    for level in network.cells():
        if isinstance(level, Down):
            unit = level.down_conv
            layers.append(Layer(unit.residual))
            layers.append(Layer(unit.down_conv_1, unit.batchNormal1, unit.relu1))
            layers.append(Layer(unit.down_conv_2, unit.batchNormal2, unit.relu2))
        else:
            unit = level.conv
            layers.append(Layer(level.conv3d_transpose, level.batchNormal1, level.relu))
            # The last unit has neither batch-norm nor PReLU.
            norm = getattr(unit, "batchNormal1", None)
            act = getattr(unit, "relu1", None)
            layers.append(Layer(unit.down_conv_1, norm, act))
    return layers


def is_as_built(network: nn.Cell) -> bool:
    """Whether each level and each unit is still of the package's own class.

    A user's replacement may compute something different.
    """
    kinds = []
    for level in network.cells():
        unit = level.down_conv if type(level) is Down else getattr(level, "conv", None)
        kinds.append((type(level), type(unit)))
    ups = len(kinds) // 2
    expected: list[tuple[type, type]] = [(Down, FusedResidualUnit)] * (ups + 1)
    expected += [(FusedUp, FusedIdentityUnit)] * (ups - 1)
    expected += [(FusedUp, OutputUnit)]
    return kinds == expected


class ChannelFactors(NamedTuple):
    """The parameters of what follows a convolution at inference, one number for each channel."""

    factor: np.ndarray  #: ``x * factor + shift`` is batch-norm
    shift: np.ndarray
    slope: np.ndarray  #: slope of PReLU


def channel_factors(layer: Layer) -> ChannelFactors:
    """Batch-norm at inference as factor and shift (arXiv:1502.03167, algorithm 2), and PReLU."""
    assert layer.norm is not None and layer.act is not None
    norm = layer.norm.bn2d
    variance = norm.moving_variance.asnumpy()
    factor = norm.gamma.asnumpy() / np.sqrt(variance + np.float32(norm.eps))
    shift = norm.beta.asnumpy() - norm.moving_mean.asnumpy() * factor
    slope = np.full_like(factor, layer.act.w.asnumpy())
    return ChannelFactors(factor, shift, slope)


# -------------------------------------------------------------------------------------- the program


class FeatureMaps(NamedTuple):
    """Feature maps ``(N, C, D, H, W)`` in a layout that oneDNN has chosen."""

    memory: Memory
    shape: Shape


class NetworkProgram:
    """The program of :func:`layers_of` for images of one shape.

    It depends only on the sizes of the layers; their weights are read at each call.
    """

    def __init__(self, layers: list[Layer], shape: Shape):
        self.dnnl = library()
        self.program = Program(self.dnnl)
        self.layers = enumerate(layers)
        # Three convolutions for each level of the encoder, and two for each level of the decoder,
        # which has one level fewer.
        levels = (len(layers) + 2) // 5
        x = FeatureMaps(self.program.plain("image", shape), shape)
        skips = []
        for _ in range(levels):
            shortcut = self.add_layer(x)
            x = self.add_layer(self.add_layer(x), plus=shortcut)
            skips.append(x)

        x = skips.pop()
        while len(skips) > 1:
            x = self.add_layer(self.add_concatenation(x, skips.pop()))
            x = self.add_layer(x, plus=x)
        x = self.add_layer(self.add_concatenation(x, skips.pop()))
        self.shape = self.add_layer(x, result="logits").shape

    def add_layer(
        self, x: FeatureMaps, *, plus: FeatureMaps | None = None, result: str = ""
    ) -> FeatureMaps:
        """Add the next convolution with the rest of its unit, then the sum with ``plus``.

        If ``result`` is a name, the result is a plain array of the caller with this name.
        """
        number, layer = next(self.layers)
        geometry = geometry_of(layer.operation, x.shape, layer.conv.weight.shape)
        shape = geometry.result
        factors: dict[str, Memory] = {}
        if layer.norm is not None:
            vector = (1, shape[1], 1, 1, 1)
            for name in ChannelFactors._fields:
                factors[name] = self.program.plain(f"{name} {number}", vector)

        separate = geometry.transposed and x.shape[1] > POST_OPS_UP_TO
        attributes, post_op_reads = self.post_ops({} if separate else factors, plus)
        convolution = describe_convolution(self.dnnl, geometry, attributes)
        weight = self.program.given(f"weight {number}", weight_layout(self.dnnl, geometry))
        target = self.program.plain(result, shape) if result else None
        reads = {SRC: x.memory, WEIGHTS: weight}
        y = self.program.add(convolution, reads, {DST: target}, post_op_reads)[DST]
        if separate:
            y = self.add_factors(y, shape[1], factors)
        return FeatureMaps(y, shape)

    def post_ops(
        self, factors: dict[str, Memory], plus: FeatureMaps | None
    ) -> tuple[c_void_p, dict[int, Memory]]:
        """The post-ops of a primitive, in order, and the arrays that they read."""
        operands = dict(factors)
        if plus:
            operands["plus"] = plus.memory
        operations = self.dnnl.create("post_ops_create")
        reads = {}
        for number, (name, memory) in enumerate(operands.items(), start=1):
            argument = POST_OP * number
            if name == "slope":
                self.dnnl.call("post_ops_append_prelu", operations, EACH_CHANNEL)
                reads[argument | WEIGHTS] = memory
            else:
                kind = MULTIPLY if name == "factor" else ADD
                self.dnnl.call("post_ops_append_binary", operations, kind, memory.layout)
                reads[argument | SECOND_SRC] = memory
        attributes = self.dnnl.create("primitive_attr_create")
        self.dnnl.call("primitive_attr_set_post_ops", attributes, operations)
        return attributes, reads

    def add_factors(self, y: Memory, channels: int, factors: dict[str, Memory]) -> Memory:
        """Add factor, shift and PReLU as separate primitives."""
        layout = y.layout
        factor = factors["factor"]
        attributes, post_op_reads = self.post_ops({"shift": factors["shift"]}, None)
        product = self.dnnl.describe("binary", MULTIPLY, layout, factor.layout, layout, attributes)
        reads = {SRC: y, SECOND_SRC: factor}
        y = self.program.add(product, reads, {DST: None}, post_op_reads)[DST]

        slopes = self.dnnl.layout((1, channels, 1, 1, 1))
        prelu = self.dnnl.describe("prelu_forward", INFERENCE, layout, slopes, layout, None)
        return self.program.add(prelu, {SRC: y, WEIGHTS: factors["slope"]}, {DST: None})[DST]

    def add_concatenation(self, x: FeatureMaps, skip: FeatureMaps) -> FeatureMaps:
        """Add the concatenation of two maps along the channels."""
        channel_axis = 1
        layouts = (c_void_p * 2)(x.memory.layout, skip.memory.layout)
        concatenation = self.dnnl.describe("concat", None, 2, channel_axis, layouts, None)
        reads = {SEVERAL_SRC: x.memory, SEVERAL_SRC + 1: skip.memory}
        both = self.program.add(concatenation, {}, {DST: None}, as_it_is=reads)[DST]
        return FeatureMaps(both, (x.shape[0], x.shape[1] + skip.shape[1], *x.shape[2:]))

    def __call__(self, image: Tensor, layers: list[Layer]) -> Tensor:
        """Logits of a batch of images, with the current weights of the layers."""
        logits = empty(self.shape)
        inputs = {}
        for number, layer in enumerate(layers):
            inputs[f"weight {number}"] = layer.conv.weight.contiguous()
            if layer.norm is not None:
                for name, values in channel_factors(layer)._asdict().items():
                    inputs[f"{name} {number}"] = Tensor(values)
        self.program(image=image, logits=logits, **inputs)
        return logits


def weight_layout(dnnl: Library, geometry: Geometry) -> c_void_p:
    """The layout of MindSpore's weights.

    oneDNN swaps the first two axes of the weight of a transposed convolution.
    """
    if not geometry.transposed:
        return dnnl.plain(geometry.w)
    k, c, *kernel = geometry.w
    size = math.prod(kernel)
    strides = (size, c * size, kernel[1] * kernel[2], kernel[2], 1)
    return dnnl.strided((c, k, *kernel), strides)


def describe_convolution(dnnl: Library, geometry: Geometry, attributes: c_void_p) -> c_void_p:
    """The convolution or transposed convolution with its post-ops."""
    k, c, *kernel = geometry.w
    name, algorithm, w = "convolution_forward", DIRECT, geometry.w
    if geometry.transposed:
        name, algorithm, w = "deconvolution_forward", TRANSPOSED_DIRECT, (c, k, *kernel)
    no_bias = None
    return dnnl.describe(
        name,
        INFERENCE,
        algorithm,
        dnnl.layout(geometry.source),
        dnnl.layout(w),
        no_bias,
        dnnl.layout(geometry.result),
        *geometry.form,
        attributes,
    )


_PROGRAMS: dict[tuple, NetworkProgram] = {}


def network_program(layers: list[Layer], shape: Shape) -> NetworkProgram:
    """The program for these layers and images of ``shape``, cached until the process ends."""
    sizes = [(layer.conv.weight.shape, layer.operation.stride) for layer in layers]
    key = (shape, *sizes)
    if key not in _PROGRAMS:
        _PROGRAMS[key] = NetworkProgram(layers, shape)
    return _PROGRAMS[key]


# ----------------------------------------------------------------------------------- in the network


def can_run_as_one(network: nn.Cell, image: Tensor) -> bool:
    """Whether a call can run as one program.

    This requires evaluation mode, PyNative mode, no gradient, no hooks, the units of the case, and
    what :func:`.units.can_fuse` requires: batch-norm, float32, oneDNN.
    """
    if network.training or ms.get_context("mode") != ms.PYNATIVE_MODE:
        return False
    if _pynative_executor.requires_grad() or not is_as_built(network):
        return False
    if any(is_watched(cell) for _, cell in network.cells_and_names()):
        return False
    return all(_can_run_layer(layer, image) for layer in layers_of(network))


def _can_run_layer(layer: Layer, image: Tensor) -> bool:
    if layer.norm is None or layer.act is None:
        known = isinstance(layer.operation, Conv3D) and not layer.conv.has_bias
        return known and can_run(layer.operation, image, layer.conv.weight)
    if not can_fuse(layer.conv, layer.norm, layer.act, image):
        return False
    return not layer.norm.bn2d.training


def run_as_one(network: nn.Cell, image: Tensor) -> Tensor:
    """Logits ``(N, classes, D, H, W)`` of the case's network for images ``(N, C, D, H, W)``."""
    layers = layers_of(network)
    program = network_program(layers, image.shape)
    return program(image.contiguous(), layers)


class OneProgramResidualUNet3D(ResidualUNet3D):
    """The case's network, which runs as one program at inference where possible."""

    def __call__(self, x: Tensor) -> Tensor:
        self.check_input(x.shape)
        if can_run_as_one(self, x):
            return run_as_one(self, x)
        return super().__call__(x)


def make_one_program(network: nn.Cell) -> None:
    """Let ``network`` run as one program, in place, if it is exactly the case's network.

    A derived class does not change, because it may compute something different.
    """
    if type(network) is ResidualUNet3D:
        network.__class__ = OneProgramResidualUNet3D
