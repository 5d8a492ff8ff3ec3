"""The two networks, block by block: the case's residual 3D U-Net, and the 3D U-Net of the paper.

Tensors are ``(N, C, D, H, W)``: batch, channel, then the three axes of the volume. This package
feeds volumes in RAS order, so D runs from left to right, H from posterior to anterior, W from
inferior to superior.

Everything here is plain MindSpore and runs on every device that MindSpore supports. What makes a
network faster on a CPU is added from outside, by :func:`unet3d_tutorial.cpu.accelerate`.
"""

import unet3d_tutorial.environment  # noqa: F401

import math

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import HeNormal

from .config import one_of

#: Normalisations that can follow a convolution: over the batch, over groups of channels, over each
#: channel of a sample, or none.
NORMALISATIONS = ("batch", "group", "instance", "none")


# ------------------------------------------------------------------------------------------- layers


class PReLU(nn.Cell):
    """``max(x, 0) + a * min(x, 0)`` with one learned slope ``a`` (He et al., 2015, equation 1).

    MindSpore's own PReLU has a slightly wrong gradient on CPU that may change from call to call.
    This form is exact and repeatable, and its parameter has the same name, ``w``.
    """

    def __init__(self, slope: float = 0.25):
        super().__init__()
        self.w = Parameter(Tensor([slope], ms.float32))

    def construct(self, x: Tensor) -> Tensor:
        return ops.relu(x) - self.w * ops.relu(-x)


class BatchNorm3d(nn.Cell):
    """Batch normalisation of ``(N, C, D, H, W)``, computed by the 2-D kernel.

    D and H are folded into one axis. Statistics are taken over all axes except C, so folding does
    not change them. The checkpoints of MindSpore's public model zoo were written with this layout.
    ``momentum`` is the share of the old value in the running statistics.
    """

    def __init__(self, channels: int, momentum: float):
        super().__init__()
        self.bn2d = nn.BatchNorm2d(channels, momentum=momentum)

    def construct(self, x: Tensor) -> Tensor:
        n, c, d, h, w = x.shape
        folded = x.reshape((n, c, d * h, w))
        return self.bn2d(folded).reshape((n, c, d, h, w))


def normalisation(kind: str, channels: int, momentum: float = 0.9) -> nn.Cell:
    """The layer between a convolution and its activation, by its name in ``NORMALISATIONS``.

    ``"group"`` has at most 8 groups. Instance norm is group norm with one group for each channel;
    only in this form does MindSpore have a CPU kernel for it. Only batch-norm uses ``momentum``.
    """
    if kind == "batch":
        return BatchNorm3d(channels, momentum)
    if kind == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    if kind == "instance":
        return nn.GroupNorm(channels, channels)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"norm: expected one of {', '.join(NORMALISATIONS)}, found {kind!r}")


def he_normal() -> HeNormal:
    """Initial weights that preserve the variance of the values through a PReLU of slope 0.25.

    See He et al., 2015, equation 15.
    """
    return HeNormal(nonlinearity="leaky_relu", negative_slope=0.25)


def conv3d(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Conv3d:
    """A convolution whose output has the input's size divided by ``stride``.

    It has no bias, because the batch-norm that follows would subtract it again.
    """
    return nn.Conv3d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        pad_mode="pad",
        padding=kernel_size // 2,
        weight_init=he_normal(),
    )


# ------------------------------------------------------------------------- shared by both networks


class SegmentationNetwork(nn.Cell):
    """A network that checks the shape of its input before any layer runs.

    The input is ``(N, in_channels, D, H, W)``. D, H and W must be multiples of ``multiple``: each
    halving needs an even size. The logits are float32, also after :func:`half_precision`.
    """

    def __init__(self, in_channels: int, multiple: int):
        super().__init__()
        self.in_channels = in_channels
        self.multiple = multiple

    def __call__(self, x: Tensor) -> Tensor:
        # Here and not in construct, so that an exported graph contains no checks.
        self.check_input(x.shape)
        logits = super().__call__(x)
        if logits.dtype != ms.float32:  # after half_precision
            logits = logits.astype(ms.float32)
        return logits

    def check_input(self, shape: tuple[int, ...]) -> None:
        """Raise ``ValueError`` unless the network can process a batch of this shape."""
        if len(shape) != 5 or shape[1] != self.in_channels:
            expected = f"shape (N, {self.in_channels}, D, H, W)"
            raise ValueError(f"input: expected {expected}, found {shape}")
        size = shape[2:]
        if any(n == 0 or n % self.multiple for n in size):
            expected = f"D, H and W that are multiples of {self.multiple}"
            raise ValueError(f"input: expected {expected}, found {size}")


# ------------------------------------------------------------------------------- the case's network


class ResidualUnit(nn.Cell):
    """Two convolutions, and a shortcut around them that is a convolution, too.

    ``(N, C_in, D, H, W) -> (N, C_out, D / stride, H / stride, W / stride)``
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        shortcut_kernel: int,
        momentum: float,
        norm: str = "batch",
    ):
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
    """One convolution with an identity shortcut: ``(N, C, D, H, W) -> (N, C, D, H, W)``."""

    def __init__(self, channels: int, momentum: float, norm: str = "batch"):
        super().__init__()
        self.down_conv_1 = conv3d(channels, channels)
        self.batchNormal1 = normalisation(norm, channels, momentum)
        self.relu1 = PReLU()

    def construct(self, x: Tensor) -> Tensor:
        return x + self.relu1(self.batchNormal1(self.down_conv_1(x)))


class OutputUnit(nn.Cell):
    """One convolution without normalisation or activation, so that logits can take any value.

    ``(N, C, D, H, W) -> (N, C, D, H, W)``
    """

    def __init__(self, channels: int):
        super().__init__()
        self.down_conv_1 = conv3d(channels, channels)

    def construct(self, x: Tensor) -> Tensor:
        return self.down_conv_1(x)


class Down(nn.Cell):
    """One level of the encoder; ``stride=2`` halves the size along each axis.

    ``(N, C_in, D, H, W) -> (N, C_out, D / stride, H / stride, W / stride)``
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 2,
        shortcut_kernel: int = 3,
        momentum: float = 0.9,
        norm: str = "batch",
    ):
        super().__init__()
        self.down_conv = ResidualUnit(
            in_channels, out_channels, stride, shortcut_kernel, momentum, norm
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.down_conv(x)


class Up(nn.Cell):
    """One level of the decoder: concatenate the skip connection, double the size, refine.

    ``(N, C_in, D, H, W)`` and ``(N, C_skip, D, H, W) -> (N, C_out, 2 D, 2 H, 2 W)``
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        is_output: bool = False,
        momentum: float = 0.9,
        norm: str = "batch",
    ):
        super().__init__()
        self.conv3d_transpose = nn.Conv3dTranspose(
            in_channels + skip_channels,
            out_channels,
            3,
            stride=2,
            pad_mode="pad",
            padding=1,
            output_padding=1,
            weight_init=he_normal(),
        )
        self.batchNormal1 = normalisation(norm, out_channels, momentum)
        self.relu = PReLU()
        if is_output:
            self.conv = OutputUnit(out_channels)
        else:
            self.conv = IdentityUnit(out_channels, momentum, norm)

    def construct(self, x: Tensor, skip: Tensor) -> Tensor:
        x = ops.concat((x, skip), axis=1)
        x = self.relu(self.batchNormal1(self.conv3d_transpose(x)))
        return self.conv(x)


class ResidualUNet3D(SegmentationNetwork):
    """The case's network: five residual levels down, four of them with stride 2, and four up.

    ``momentum`` is the share of the old value in the running statistics of batch-norm, per step.
    ``norm`` is one of ``NORMALISATIONS``. The case uses batch-norm; the layers keep its names even
    if ``norm`` selects a different normalisation.

    Logits have the input's size: ``(N, in_channels, D, H, W) -> (N, num_classes, D, H, W)``, where
    D, H and W are multiples of 16. Raises ``ValueError`` unless ``channels`` has five entries.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 4,
        channels: tuple[int, ...] = (16, 32, 64, 128, 256),
        momentum: float = 0.9,
        *,
        norm: str = "batch",
    ):
        super().__init__(in_channels, multiple=16)
        one_of("norm", norm, NORMALISATIONS)
        if len(channels) != 5:
            found = f"{len(channels)}: {tuple(channels)}"
            raise ValueError(f"channels: expected five, one for each level, found {found}")
        c1, c2, c3, c4, c5 = channels
        self.down1 = Down(in_channels, c1, momentum=momentum, norm=norm)
        self.down2 = Down(c1, c2, momentum=momentum, norm=norm)
        self.down3 = Down(c2, c3, momentum=momentum, norm=norm)
        self.down4 = Down(c3, c4, momentum=momentum, norm=norm)
        # The lowest level keeps its size, so its shortcut needs no more than one voxel.
        self.down5 = Down(c4, c5, stride=1, shortcut_kernel=1, momentum=momentum, norm=norm)
        self.up1 = Up(c5, c4, c3, momentum=momentum, norm=norm)
        self.up2 = Up(c3, c3, c2, momentum=momentum, norm=norm)
        self.up3 = Up(c2, c2, c1, momentum=momentum, norm=norm)
        self.up4 = Up(c1, c1, num_classes, is_output=True, momentum=momentum, norm=norm)

    def construct(self, x: Tensor) -> Tensor:
        x1 = self.down1(x)  # 1/2 of the input's size
        x2 = self.down2(x1)  # 1/4
        x3 = self.down3(x2)  # 1/8
        x4 = self.down4(x3)  # 1/16
        x5 = self.down5(x4)  # 1/16
        y = self.up1(x5, x4)  # 1/8
        y = self.up2(y, x3)  # 1/4
        y = self.up3(y, x2)  # 1/2
        return self.up4(y, x1)  # the input's size


# ------------------------------------------------------------------------------ the paper's network


class ConvUnit(nn.Cell):
    """3x3x3 convolution, normalisation, ReLU; without padding, each axis shrinks by 2 voxels."""

    def __init__(self, in_channels: int, out_channels: int, norm: str, same: bool):
        super().__init__()
        self.conv = nn.Conv3d(
            in_channels,
            out_channels,
            3,
            pad_mode="same" if same else "valid",
            has_bias=True,
            weight_init=HeNormal(),
        )
        self.norm = normalisation(norm, out_channels)

    def construct(self, x: Tensor) -> Tensor:
        return ops.relu(self.norm(self.conv(x)))


def two_convolutions(
    in_channels: int, between: int, out_channels: int, norm: str, same: bool
) -> nn.SequentialCell:
    """Two units in a row, with ``between`` channels between them."""
    first = ConvUnit(in_channels, between, norm, same)
    second = ConvUnit(between, out_channels, norm, same)
    return nn.SequentialCell(first, second)


def double(channels: int) -> nn.Conv3dTranspose:
    """A transposed convolution that doubles the volume and keeps the number of channels."""
    return nn.Conv3dTranspose(
        channels, channels, 2, stride=2, pad_mode="valid", weight_init=HeNormal()
    )


class UNet3D(SegmentationNetwork):
    """The network of the 3D U-Net paper: max-pooling down, transposed convolutions up.

    See Cicek et al., 2016, figure 2. ``channels`` gives the number of feature maps at each level.
    The first convolution of an encoder level has half as many, so the number doubles before the
    pooling. ``norm`` is one of ``NORMALISATIONS``.

    With ``padding="same"``, logits have the input's size:
    ``(N, in_channels, D, H, W) -> (N, num_classes, D, H, W)``. D, H and W are then multiples of 2
    to the power of the number of poolings, which is 8 for four levels. With ``"valid"``, as in the
    paper, convolutions are not padded and the logits are smaller; :func:`valid_size` gives their
    size. Three input channels and three classes give the paper's 19,069,955 parameters, without
    those of batch-norm.

    Raises ``ValueError`` for fewer than two levels, and for a level of fewer than 2 channels.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 4,
        channels: tuple[int, ...] = (64, 128, 256, 512),
        *,
        norm: str = "batch",
        padding: str = "same",
    ):
        levels = len(channels)
        same = padding == "same"
        super().__init__(in_channels, multiple=2 ** (levels - 1) if same else 1)
        one_of("norm", norm, NORMALISATIONS)
        one_of("padding", padding, ("same", "valid"))
        if levels < 2 or min(channels) < 2:
            expected = "at least two levels of at least 2 channels"
            raise ValueError(f"channels: expected {expected}, found {tuple(channels)}")
        self.levels = levels
        self.same = same

        self.pool = nn.MaxPool3d(2, 2)
        encoder = zip((in_channels, *channels[:-1]), channels, strict=True)
        self.down = nn.CellList(
            [two_convolutions(before, after // 2, after, norm, same) for before, after in encoder]
        )
        # From the bottom up: the channels that arrive from below, and those of the skip connection.
        from_bottom = channels[::-1]
        decoder = list(zip(from_bottom[:-1], from_bottom[1:], strict=True))
        self.up = nn.CellList([double(below) for below, _ in decoder])
        self.join = nn.CellList(
            [two_convolutions(below + skip, skip, skip, norm, same) for below, skip in decoder]
        )
        self.head = nn.Conv3d(channels[0], num_classes, 1, has_bias=True, weight_init=HeNormal())

    def check_input(self, shape: tuple[int, ...]) -> None:
        super().check_input(shape)
        if not self.same:
            valid_size(shape[2:], self.levels)

    def construct(self, x: Tensor) -> Tensor:
        skips = []
        for level in range(self.levels - 1):
            x = self.down[level](x)
            skips.append(x)
            x = self.pool(x)
        x = self.down[self.levels - 1](x)
        for level in range(self.levels - 1):
            x = self.up[level](x)
            skip = skips[self.levels - 2 - level]
            skip = skip if self.same else crop(skip, x.shape)
            x = self.join[level](ops.concat((skip, x), axis=1))
        return self.head(x)


def crop(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The centre of ``x`` ``(N, C, D, H, W)``, with the last three sizes of ``shape``."""
    d = (x.shape[2] - shape[2]) // 2
    h = (x.shape[3] - shape[3]) // 2
    w = (x.shape[4] - shape[4]) // 2
    return x[:, :, d : d + shape[2], h : h + shape[3], w : w + shape[4]]


def valid_size(size: tuple[int, ...], levels: int = 4) -> tuple[int, ...]:
    """Size ``(D, H, W)`` of the logits of ``UNet3D(padding="valid")`` for an input of ``size``.

    Raises ``ValueError`` if a level would have to halve an odd size, or has no voxels left.

    >>> valid_size((132, 132, 116))
    (44, 44, 28)
    """
    return tuple(_valid_length(n, levels) for n in size)


def _valid_length(n: int, levels: int) -> int:
    """:func:`valid_size` along one axis."""
    # Two convolutions without padding remove 2 voxels each.
    length = n - 4
    for _ in range(levels - 1):
        if length % 2:
            raise ValueError(
                f"input: {n} voxels become {length} before a pooling, which needs an even number"
            )
        length = length // 2 - 4
        if length < 1:
            break
    if length >= 1:
        for _ in range(levels - 1):
            length = 2 * length - 4
    if length < 1:
        raise ValueError(f"input: {n} voxels are too few for {levels} levels without padding")
    return length


# ----------------------------------------------------------------------- by name, in half precision


NETWORKS: dict[str, type[ResidualUNet3D] | type[UNet3D]] = {
    "ResidualUNet3D": ResidualUNet3D,
    "UNet3D": UNet3D,
}


def make_network(
    name: str, in_channels: int, num_classes: int, channels: tuple[int, ...], norm: str = "batch"
) -> SegmentationNetwork:
    """Build a network by its name in ``NETWORKS``; ``norm`` is one of ``NORMALISATIONS``.

    Raises ``ValueError`` for an unknown name and suggests the nearest known one.
    """
    one_of("model.name", name, tuple(NETWORKS))
    return NETWORKS[name](in_channels, num_classes, channels, norm=norm)


def half_precision(network: nn.Cell, level: str = "O2") -> nn.Cell:
    """Make a network compute in float16 with MindSpore's ``amp``; weights and logits stay float32.

    Level ``"O2"`` keeps batch-norm in float32, as the case does on a GPU (``enable_fp16_gpu``);
    ``"O3"`` is float16 throughout. ``network`` is changed in place and returned; the names and
    values of its parameters do not change. A second call has no effect. The setting
    ``train.mixed_precision`` enables this. Use it together with ``train.loss_scale``, because small
    gradients vanish in float16. The tests run it on a CPU only; nothing in it depends on the
    device.
    """
    one_of("level", level, ("O2", "O3"))
    if not hasattr(network, "half_precision_level"):
        # It returns a wrapper that casts the logits; __call__ does that already.
        ms.amp.auto_mixed_precision(network, level, ms.float16)
        network.half_precision_level = level
    return network
