"""The two networks, block by block: the residual 3D U-Net of the case, and that of the 3D U-Net
paper.

Tensors are ``(N, C, D, H, W)``: batch, channel, then the three axes of the volume. This package
feeds volumes in RAS order, so D runs from left to right, H from posterior to anterior, W from
inferior to superior.

Everything here is plain MindSpore and runs on every device that MindSpore has. What makes a network
faster on a CPU is put on from outside, by :func:`unet3d_tutorial.cpu.accelerate`.
"""

import unet3d_tutorial.environment  # noqa: F401

import math

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import HeNormal

from .config import one_of

NORMALISATIONS = ("batch", "group", "instance", "none")


# ------------------------------------------------------------------------------------------ layers


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
    """Batch normalisation of ``(N, C, D, H, W)``: fold D and H into one axis and use the 2-D
    kernel.

    The statistics run over all axes but C, so folding changes nothing. The layout is the one that
    the public model zoo's checkpoints were written with.
    """

    def __init__(self, channels: int, momentum: float):
        super().__init__()
        self.bn2d = nn.BatchNorm2d(channels, momentum=momentum)

    def construct(self, x: Tensor) -> Tensor:
        n, c, d, h, w = x.shape
        return self.bn2d(x.reshape((n, c, d * h, w))).reshape((n, c, d, h, w))


def normalisation(kind: str, channels: int, momentum: float = 0.9) -> nn.Cell:
    """The layer between convolution and ReLU:

    ``"batch"``, ``"group"`` (8 groups at most), ``"instance"`` or ``"none"``.

    Instance norm is group norm with a group for each channel, and has a CPU kernel only in that
    form.
    """
    if kind == "batch":
        return BatchNorm3d(channels, momentum)
    if kind == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    return nn.GroupNorm(channels, channels) if kind == "instance" else nn.Identity()


def he_normal() -> HeNormal:
    """First weights that keep the spread of the values through a PReLU of slope 0.25 (He et al.,
    2015, equation 15).
    """
    return HeNormal(nonlinearity="leaky_relu", negative_slope=0.25)


def conv3d(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Conv3d:
    """A convolution without bias (a batch-norm follows) whose output has the input's size divided
    by ``stride``.
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


# ------------------------------------------------------------------------------ the case's network


class ResidualUnit(nn.Cell):
    """Two convolutions beside a shortcut:

    ``(N, C_in, D, H, W) -> (N, C_out, D / stride, H / stride, W / stride)``.
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
    """One convolution beside the identity: ``(N, C, D, H, W) -> (N, C, D, H, W)``."""

    def __init__(self, channels: int, momentum: float, norm: str = "batch"):
        super().__init__()
        self.down_conv_1 = conv3d(channels, channels)
        self.batchNormal1 = normalisation(norm, channels, momentum)
        self.relu1 = PReLU()

    def construct(self, x: Tensor) -> Tensor:
        return x + self.relu1(self.batchNormal1(self.down_conv_1(x)))


class OutputUnit(nn.Cell):
    """One plain convolution, so that logits can take any value:

    ``(N, C, D, H, W) -> (N, C, D, H, W)``.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.down_conv_1 = conv3d(channels, channels)

    def construct(self, x: Tensor) -> Tensor:
        return self.down_conv_1(x)


class Down(nn.Cell):
    """One level of the encoder; ``stride=2`` halves the volume."""

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
    """One level of the decoder: join the skip connection, double the volume, refine."""

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
        self.conv = (
            OutputUnit(out_channels) if is_output else IdentityUnit(out_channels, momentum, norm)
        )

    def construct(self, x: Tensor, skip: Tensor) -> Tensor:
        x = ops.concat((x, skip), axis=1)
        return self.conv(self.relu(self.batchNormal1(self.conv3d_transpose(x))))


class SegmentationNetwork(nn.Cell):
    """What both networks share: an input that does not fit is refused in one line, before any layer
    sees it.
    """

    def __init__(self, in_channels: int, multiple: int):
        super().__init__()
        self.in_channels = in_channels
        self.multiple = multiple

    def __call__(
        self, x: Tensor
    ) -> Tensor:  # not in construct, so that an exported graph has no checks
        self.check_input(x.shape)
        logits = super().__call__(x)
        # After half_precision.
        return logits if logits.dtype == ms.float32 else logits.astype(ms.float32)

    def check_input(self, shape: tuple[int, ...]) -> None:
        """Raise ``ValueError`` unless a batch of this shape fits."""
        if len(shape) != 5 or shape[1] != self.in_channels:
            raise ValueError(
                f"input: expected shape (N, {self.in_channels}, D, H, W), found {shape}"
            )
        if any(n == 0 or n % self.multiple for n in shape[2:]):
            raise ValueError(
                f"input: expected D, H and W that are multiples of {self.multiple}, found {shape[2:]}"
            )


class ResidualUNet3D(SegmentationNetwork):
    """The case's network: five residual encoder levels, four of them with stride 2, and four
    decoder levels.

    ``momentum`` is the share of the old value in the running statistics of batch-norm, per step.
    ``norm`` is one of ``NORMALISATIONS``; the case has batch-norm, and its layers keep their names
    with another one in their place.

    Logits come out at the input's size: ``(N, in_channels, D, H, W) -> (N, num_classes, D, H, W)``,
    where D, H and W are multiples of 16. Raises ``ValueError`` unless ``channels`` has five
    entries.
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
            raise ValueError(
                f"channels: expected five, one for each level, found {len(channels)}: {tuple(channels)}"
            )
        c1, c2, c3, c4, c5 = channels
        options = {"momentum": momentum, "norm": norm}
        self.down1 = Down(in_channels, c1, **options)
        self.down2 = Down(c1, c2, **options)
        self.down3 = Down(c2, c3, **options)
        self.down4 = Down(c3, c4, **options)
        self.down5 = Down(c4, c5, stride=1, shortcut_kernel=1, **options)
        self.up1 = Up(c5, c4, c3, **options)
        self.up2 = Up(c3, c3, c2, **options)
        self.up3 = Up(c2, c2, c1, **options)
        self.up4 = Up(c1, c1, num_classes, is_output=True, **options)

    def construct(self, x: Tensor) -> Tensor:
        x1 = self.down1(x)
        x2 = self.down2(x1)
        x3 = self.down3(x2)
        x4 = self.down4(x3)
        x = self.up1(self.down5(x4), x4)
        x = self.up2(x, x3)
        x = self.up3(x, x2)
        return self.up4(x, x1)


# ------------------------------------------------------------------------------ the paper's network


class ConvUnit(nn.Cell):
    """3x3x3 convolution, normalisation, ReLU; without padding every axis gets 2 voxels shorter."""

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


class UNet3D(SegmentationNetwork):
    """The network of the 3D U-Net paper (Cicek et al., 2016, figure 2): max-pooling down,
    transposed convolutions up.

    ``channels`` are the feature maps at each level, as many levels as entries; the first
    convolution of a level in the encoder has half of them, so that they double before the pooling.
    ``norm`` is one of ``NORMALISATIONS``.

    With ``padding="same"`` logits come out at the input's size, ``(N, in_channels, D, H, W) -> (N,
    num_classes, D, H, W)``, where D, H and W are multiples of 2 to the number of poolings, 8 with
    four levels. With ``"valid"``, the paper's form, no convolution sees beyond the border and the
    logits are smaller: :func:`valid_size` tells by how much. Three input channels and three classes
    give the paper's 19,069,955 parameters, its batch-norms not counted.
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
        same, levels = padding == "same", len(channels)
        super().__init__(in_channels, multiple=2 ** (levels - 1) if same else 1)
        one_of("norm", norm, NORMALISATIONS)
        one_of("padding", padding, ("same", "valid"))
        if levels < 2 or min(channels) < 2:
            raise ValueError(
                f"channels: expected at least two levels of at least 2 channels, found {tuple(channels)}"
            )
        self.levels = levels
        self.same = same
        self.pool = nn.MaxPool3d(2, 2)
        self.down = nn.CellList(
            [
                nn.SequentialCell(
                    ConvUnit(before, after // 2, norm, same),
                    ConvUnit(after // 2, after, norm, same),
                )
                for before, after in zip((in_channels, *channels), channels, strict=False)
            ]
        )
        # From the bottom: (below, beside)
        pairs = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.up = nn.CellList(
            [
                nn.Conv3dTranspose(
                    below, below, 2, stride=2, pad_mode="valid", weight_init=HeNormal()
                )
                for below, _ in pairs
            ]
        )
        self.join = nn.CellList(
            [
                nn.SequentialCell(
                    ConvUnit(below + beside, beside, norm, same),
                    ConvUnit(beside, beside, norm, same),
                )
                for below, beside in pairs
            ]
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
    """The middle of ``x``, as large as ``shape`` in its last three axes."""
    d = (x.shape[2] - shape[2]) // 2
    h = (x.shape[3] - shape[3]) // 2
    w = (x.shape[4] - shape[4]) // 2
    return x[:, :, d : d + shape[2], h : h + shape[3], w : w + shape[4]]


def valid_size(size: tuple[int, ...], levels: int = 4) -> tuple[int, ...]:
    """Size of the logits of ``UNet3D(padding="valid")`` for an input of ``size``:

    (132, 132, 116) becomes (44, 44, 28).

    Raises ``ValueError`` if a level has an odd size to halve or nothing left.
    """
    found = []
    for n in size:
        down = [n - 4]
        for _ in range(levels - 1):
            if down[-1] % 2:
                raise ValueError(
                    f"input: {n} voxels become {down[-1]} before a pooling, which needs an even number"
                )
            down.append(down[-1] // 2 - 4)
        for _ in range(levels - 1):
            down.append(2 * down[-1] - 4)
        if min(down) < 1:
            raise ValueError(f"input: {n} voxels are too few for {levels} levels without padding")
        found.append(down[-1])
    return tuple(found)


# ----------------------------------------------------------------------------- by name, from a file


NETWORKS = {"ResidualUNet3D": ResidualUNet3D, "UNet3D": UNet3D}


def make_network(
    name: str, in_channels: int, num_classes: int, channels: tuple[int, ...], norm: str = "batch"
) -> SegmentationNetwork:
    """A network by its name, with ``norm`` of ``NORMALISATIONS``.

    Raises ``ValueError`` with the nearest name for an unknown one.
    """
    one_of("model.name", name, tuple(NETWORKS))
    return NETWORKS[name](in_channels, num_classes, channels, norm=norm)


def half_precision(network: nn.Cell, level: str = "O2") -> nn.Cell:
    """The network in float16, by MindSpore's own ``amp``: same weights (kept in float32), logits in
    float32.

    ``"O2"`` keeps batch-norm in float32, as the case does on a GPU (``enable_fp16_gpu``); ``"O3"``
    is float16 throughout. Changes ``network`` in place, names and values of its parameters
    excepted, and gives it back; done twice it is done once. ``train.mixed_precision`` asks for it,
    and ``train.loss_scale`` belongs to it: small gradients vanish in float16. Run by the tests on
    CPU only; there is nothing in it that is particular to a device.
    """
    one_of("level", level, ("O2", "O3"))
    if not hasattr(network, "half_precision_level"):
        # What it returns casts the logits, as __call__ does.
        ms.amp.auto_mixed_precision(network, level, ms.float16)
        network.half_precision_level = level
    return network
