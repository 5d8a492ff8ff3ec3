"""What the networks are built of: convolutions, normalisation, PReLU, and the units and levels of the case's network.

Tensors are ``(N, C, D, H, W)``, as in :mod:`.model`. Everything here is plain MindSpore; what :mod:`.onednn` and
:mod:`.fused` exchange to be faster on a CPU gives the same results.
"""

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import HeNormal


class PReLU(nn.Cell):
    """``max(x, 0) + a * min(x, 0)`` with one learned slope ``a`` (He et al., 2015, equation 1).

    MindSpore's own PReLU has a slightly wrong gradient on CPU that may change from call to call. This form is exact and
    repeatable, and its parameter has the same name, ``w``.
    """

    def __init__(self, slope: float = 0.25):
        super().__init__()
        self.w = Parameter(Tensor([slope], ms.float32))

    def construct(self, x: Tensor) -> Tensor:
        return ops.relu(x) - self.w * ops.relu(-x)


class BatchNorm3d(nn.Cell):
    """Batch normalisation of ``(N, C, D, H, W)``: fold D and H into one axis and use the 2-D kernel.

    The statistics run over all axes but C, so folding changes nothing. The layout is the one that the public model zoo's
    checkpoints were written with.
    """

    def __init__(self, channels: int, momentum: float):
        super().__init__()
        self.bn2d = nn.BatchNorm2d(channels, momentum=momentum)

    def construct(self, x: Tensor) -> Tensor:
        n, c, d, h, w = x.shape
        return self.bn2d(x.reshape((n, c, d * h, w))).reshape((n, c, d, h, w))


NORMALISATIONS = ("batch", "group", "instance", "none")


def normalisation(kind: str, channels: int, momentum: float = 0.9) -> nn.Cell:
    """The layer between convolution and ReLU: ``"batch"``, ``"group"`` (8 groups at most), ``"instance"`` or ``"none"``.

    Instance norm is group norm with a group for each channel, and has a CPU kernel only in that form.
    """
    if kind == "batch":
        return BatchNorm3d(channels, momentum)
    if kind == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    return nn.GroupNorm(channels, channels) if kind == "instance" else nn.Identity()


def he_normal() -> HeNormal:
    """First weights that keep the spread of the values through a PReLU of slope 0.25 (He et al., 2015, equation 15)."""
    return HeNormal(nonlinearity="leaky_relu", negative_slope=0.25)


def conv3d(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Conv3d:
    """A convolution without bias (a batch-norm follows) whose output has the input's size divided by ``stride``."""
    return nn.Conv3d(in_channels, out_channels, kernel_size, stride=stride, pad_mode="pad", padding=kernel_size // 2,
                     weight_init=he_normal())


class TiledConv3d(nn.Conv3d):
    """A 3x3x3 convolution of few channels that, in training, computes tiles of 2x2x2 voxels: ``(N, C, D, H, W)``, even axes.

    MindSpore turns a convolution into a product of matrices with one column for each output channel. Four columns waste
    the processor, and each voxel is copied 27 times to make the rows. A tile depends on 4x4x4 voxels, so a convolution
    of that kernel and stride 2 gives the 8 voxels of each tile as ``8 C`` channels, with 8 copies of each voxel; a
    transposed convolution with zeros and ones then lays the tiles out. The weight is the plain layer's, and so are the
    results, to rounding. In evaluation mode this is the plain layer, so that an exported network stays simple, and so it is
    with the kernels of :mod:`.onednn`, which set ``tiled`` to false: they do not need the detour.
    """

    def __init__(self, channels: int, weight_init):
        super().__init__(channels, channels, 3, pad_mode="pad", padding=1, weight_init=weight_init)
        taps, layout = tile_weights(channels)
        self.tiled = True
        self.taps, self.layout = Tensor(taps), Tensor(layout)
        self.tiles = ops.Conv3D(8 * channels, 4, pad_mode="pad", pad=1, stride=2)
        self.lay_out = ops.Conv3DTranspose(8 * channels, channels, 2, stride=2, pad_mode="valid")

    def construct(self, x: Tensor) -> Tensor:
        if not (self.training and self.tiled):
            return self.conv3d(x, self.weight)
        c = self.out_channels
        weight = ops.matmul(self.weight.reshape((c * c, 27)), self.taps.astype(self.weight.dtype))
        weight = weight.reshape((c, c, 8, 64)).transpose((0, 2, 1, 3)).reshape((8 * c, c, 4, 4, 4))
        return self.lay_out(self.tiles(x, weight), self.layout.astype(x.dtype))


def tile_weights(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Zeros and ones of :class:`TiledConv3d`: where each tap of a 3x3x3 kernel goes, and where each voxel of a tile goes.

    ``(27, 8 * 64)``: tap ``t`` of the voxel at corner ``v`` of a tile falls on place ``t + v`` of the 4x4x4 kernel.
    ``(8 * channels, channels, 2, 2, 2)``: channel ``8 c + v`` becomes the voxel at corner ``v`` of channel ``c``.
    """
    taps = np.zeros((3, 3, 3, 2, 2, 2, 4, 4, 4), np.float32)
    layout = np.zeros((channels, 2, 2, 2, channels, 2, 2, 2), np.float32)
    for voxel in np.ndindex(2, 2, 2):
        for tap in np.ndindex(3, 3, 3):
            taps[(*tap, *voxel, *np.add(tap, voxel))] = 1
        for c in range(channels):
            layout[(c, *voxel, c, *voxel)] = 1
    return taps.reshape(27, 8 * 64), layout.reshape(8 * channels, channels, 2, 2, 2)


class ResidualUnit(nn.Cell):
    """Two convolutions beside a shortcut: ``(N, C_in, D, H, W) -> (N, C_out, D / stride, H / stride, W / stride)``."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut_kernel: int, momentum: float,
                 norm: str = "batch"):
        super().__init__()
        self.down_conv_1 = conv3d(in_channels, out_channels, stride=stride)
        self.batchNormal1 = normalisation(norm, out_channels, momentum)
        self.relu1 = PReLU()
        self.down_conv_2 = conv3d(out_channels, out_channels)
        self.batchNormal2 = normalisation(norm, out_channels, momentum)
        self.relu2 = PReLU()
        self.residual = conv3d(in_channels, out_channels, shortcut_kernel, stride)

    def construct(self, x: Tensor) -> Tensor:
        y = self.relu1(self.batchNormal1(self.down_conv_1(x)))
        y = self.relu2(self.batchNormal2(self.down_conv_2(y)))
        return y + self.residual(x)


class IdentityUnit(nn.Cell):
    """One convolution beside the identity: ``(N, C, D, H, W) -> (N, C, D, H, W)``."""

    def __init__(self, channels: int, momentum: float, norm: str = "batch"):
        super().__init__()
        self.down_conv_1 = conv3d(channels, channels)
        self.batchNormal1 = normalisation(norm, channels, momentum)
        self.relu1 = PReLU()

    def construct(self, x: Tensor) -> Tensor:
        return x + self.relu1(self.batchNormal1(self.down_conv_1(x)))


class OutputUnit(nn.Cell):
    """One plain convolution, so that logits can take any value: ``(N, C, D, H, W) -> (N, C, D, H, W)``."""

    def __init__(self, channels: int):
        super().__init__()
        self.down_conv_1 = TiledConv3d(channels, weight_init=he_normal())

    def construct(self, x: Tensor) -> Tensor:
        return self.down_conv_1(x)


class Down(nn.Cell):
    """One level of the encoder; ``stride=2`` halves the volume."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2, shortcut_kernel: int = 3,
                 momentum: float = 0.9, norm: str = "batch"):
        super().__init__()
        self.down_conv = ResidualUnit(in_channels, out_channels, stride, shortcut_kernel, momentum, norm)

    def construct(self, x: Tensor) -> Tensor:
        return self.down_conv(x)


class Up(nn.Cell):
    """One level of the decoder: join the skip connection, double the volume, refine."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, is_output: bool = False,
                 momentum: float = 0.9, norm: str = "batch"):
        super().__init__()
        self.conv3d_transpose = nn.Conv3dTranspose(in_channels + skip_channels, out_channels, 3, stride=2,
                                                   pad_mode="pad", padding=1, output_padding=1, weight_init=he_normal())
        self.batchNormal1 = normalisation(norm, out_channels, momentum)
        self.relu = PReLU()
        self.conv = OutputUnit(out_channels) if is_output else IdentityUnit(out_channels, momentum, norm)

    def construct(self, x: Tensor, skip: Tensor) -> Tensor:
        x = ops.concat((x, skip), axis=1)
        return self.conv(self.relu(self.batchNormal1(self.conv3d_transpose(x))))
