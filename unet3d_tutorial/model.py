"""The case's network: a residual 3D U-Net.

Tensors are ``(N, C, D, H, W)``: batch, channel, then the three axes of the volume. This package feeds volumes in RAS
order, so D runs from left to right, H from posterior to anterior, W from inferior to superior.
"""

import mindspore as ms
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


def conv3d(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Conv3d:
    """A convolution without bias (a batch-norm follows) whose output has the input's size divided by ``stride``."""
    fan_in = HeNormal(nonlinearity="leaky_relu", negative_slope=0.25)
    return nn.Conv3d(in_channels, out_channels, kernel_size, stride=stride, pad_mode="pad", padding=kernel_size // 2,
                     weight_init=fan_in)


class ResidualUnit(nn.Cell):
    """Two convolutions beside a shortcut: ``(N, C_in, D, H, W) -> (N, C_out, D / stride, H / stride, W / stride)``."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut_kernel: int, momentum: float):
        super().__init__()
        self.down_conv_1 = conv3d(in_channels, out_channels, stride=stride)
        self.batchNormal1 = BatchNorm3d(out_channels, momentum)
        self.relu1 = PReLU()
        self.down_conv_2 = conv3d(out_channels, out_channels)
        self.batchNormal2 = BatchNorm3d(out_channels, momentum)
        self.relu2 = PReLU()
        self.residual = conv3d(in_channels, out_channels, shortcut_kernel, stride)

    def construct(self, x: Tensor) -> Tensor:
        y = self.relu1(self.batchNormal1(self.down_conv_1(x)))
        y = self.relu2(self.batchNormal2(self.down_conv_2(y)))
        return y + self.residual(x)


class IdentityUnit(nn.Cell):
    """One convolution beside the identity: ``(N, C, D, H, W) -> (N, C, D, H, W)``."""

    def __init__(self, channels: int, momentum: float):
        super().__init__()
        self.down_conv_1 = conv3d(channels, channels)
        self.batchNormal1 = BatchNorm3d(channels, momentum)
        self.relu1 = PReLU()

    def construct(self, x: Tensor) -> Tensor:
        return x + self.relu1(self.batchNormal1(self.down_conv_1(x)))


class OutputUnit(nn.Cell):
    """One plain convolution, so that logits can take any value: ``(N, C, D, H, W) -> (N, C, D, H, W)``."""

    def __init__(self, channels: int):
        super().__init__()
        self.down_conv_1 = conv3d(channels, channels)

    def construct(self, x: Tensor) -> Tensor:
        return self.down_conv_1(x)


class Down(nn.Cell):
    """One level of the encoder; ``stride=2`` halves the volume."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2, shortcut_kernel: int = 3,
                 momentum: float = 0.9):
        super().__init__()
        self.down_conv = ResidualUnit(in_channels, out_channels, stride, shortcut_kernel, momentum)

    def construct(self, x: Tensor) -> Tensor:
        return self.down_conv(x)


class Up(nn.Cell):
    """One level of the decoder: join the skip connection, double the volume, refine."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, is_output: bool = False,
                 momentum: float = 0.9):
        super().__init__()
        fan_in = HeNormal(nonlinearity="leaky_relu", negative_slope=0.25)
        self.conv3d_transpose = nn.Conv3dTranspose(in_channels + skip_channels, out_channels, 3, stride=2,
                                                   pad_mode="pad", padding=1, output_padding=1, weight_init=fan_in)
        self.batchNormal1 = BatchNorm3d(out_channels, momentum)
        self.relu = PReLU()
        self.conv = OutputUnit(out_channels) if is_output else IdentityUnit(out_channels, momentum)

    def construct(self, x: Tensor, skip: Tensor) -> Tensor:
        x = ops.concat((x, skip), axis=1)
        return self.conv(self.relu(self.batchNormal1(self.conv3d_transpose(x))))


class ResidualUNet3D(nn.Cell):
    """The case's network: five residual encoder levels, four of them with stride 2, and four decoder levels.

    ``momentum`` is the share of the old value in the running statistics of batch-norm, per step.

    Logits come out at the input's size: ``(N, in_channels, D, H, W) -> (N, num_classes, D, H, W)``.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 4, channels: tuple[int, ...] = (16, 32, 64, 128, 256),
                 momentum: float = 0.9):
        super().__init__()
        c1, c2, c3, c4, c5 = channels
        self.down1 = Down(in_channels, c1, momentum=momentum)
        self.down2 = Down(c1, c2, momentum=momentum)
        self.down3 = Down(c2, c3, momentum=momentum)
        self.down4 = Down(c3, c4, momentum=momentum)
        self.down5 = Down(c4, c5, stride=1, shortcut_kernel=1, momentum=momentum)
        self.up1 = Up(c5, c4, c3, momentum=momentum)
        self.up2 = Up(c3, c3, c2, momentum=momentum)
        self.up3 = Up(c2, c2, c1, momentum=momentum)
        self.up4 = Up(c1, c1, num_classes, is_output=True, momentum=momentum)

    def construct(self, x: Tensor) -> Tensor:
        x1 = self.down1(x)
        x2 = self.down2(x1)
        x3 = self.down3(x2)
        x4 = self.down4(x3)
        x = self.up1(self.down5(x4), x4)
        x = self.up2(x, x3)
        x = self.up3(x, x2)
        return self.up4(x, x1)
