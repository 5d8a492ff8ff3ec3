"""PyTorch twins of both networks, with their part names and a MindSpore network's weights."""

import torch
from torch import nn


class Normed(nn.Module):
    """Batch-norm in the place where ours has ``bn2d``."""

    def __init__(self, channels: int):
        super().__init__()
        self.bn2d = nn.BatchNorm3d(channels, momentum=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn2d(x)


def conv(before: int, after: int, kernel: int = 3, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(before, after, kernel, stride, kernel // 2, bias=False)


class Unit(nn.Module):
    """Residual unit: two convolutions and a shortcut, or one convolution and the identity, or one
    convolution alone.
    """

    def __init__(
        self, before: int, after: int, stride: int = 1, shortcut: int = 0, plain: bool = False
    ):
        super().__init__()
        self.plain = plain
        self.down_conv_1 = conv(before, after, 3, stride)
        if not plain:
            self.batchNormal1, self.relu1 = Normed(after), nn.PReLU()
        if shortcut:
            self.down_conv_2, self.batchNormal2, self.relu2 = (
                conv(after, after),
                Normed(after),
                nn.PReLU(),
            )
            self.residual = conv(before, after, shortcut, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.down_conv_1(x)
        if self.plain:
            return y
        y = self.relu1(self.batchNormal1(y))
        if not hasattr(self, "residual"):
            return x + y
        return self.relu2(self.batchNormal2(self.down_conv_2(y))) + self.residual(x)


class Down(nn.Module):
    def __init__(self, before: int, after: int, stride: int = 2, shortcut: int = 3):
        super().__init__()
        self.down_conv = Unit(before, after, stride, shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_conv(x)


class Up(nn.Module):
    def __init__(self, before: int, skip: int, after: int, plain: bool = False):
        super().__init__()
        self.conv3d_transpose = nn.ConvTranspose3d(
            before + skip, after, 3, 2, 1, output_padding=1, bias=False
        )
        self.batchNormal1, self.relu = Normed(after), nn.PReLU()
        self.conv = Unit(after, after, plain=plain)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.conv(
            self.relu(self.batchNormal1(self.conv3d_transpose(torch.cat((x, skip), 1))))
        )


class ResidualUNet3D(nn.Module):
    def __init__(self, in_channels: int, num_classes: int, channels: tuple[int, ...]):
        super().__init__()
        c1, c2, c3, c4, c5 = channels
        self.down1, self.down2, self.down3 = Down(in_channels, c1), Down(c1, c2), Down(c2, c3)
        self.down4, self.down5 = Down(c3, c4), Down(c4, c5, 1, 1)
        self.up1, self.up2, self.up3 = Up(c5, c4, c3), Up(c3, c3, c2), Up(c2, c2, c1)
        self.up4 = Up(c1, c1, num_classes, plain=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x1 = self.down1(x)
        x2 = self.down2(x1)
        x3 = self.down3(x2)
        x4 = self.down4(x3)
        return self.up4(self.up3(self.up2(self.up1(self.down5(x4), x4), x3), x2), x1)


class ConvUnit(nn.Module):
    def __init__(self, before: int, after: int, norm: str, padding: int):
        super().__init__()
        self.conv = nn.Conv3d(before, after, 3, padding=padding)
        groups = {"group": min(8, after), "instance": after}
        self.norm = (
            Normed(after)
            if norm == "batch"
            else nn.GroupNorm(groups[norm], after)
            if norm in groups
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x)))


class UNet3D(nn.Module):
    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: tuple[int, ...],
        norm: str = "batch",
        padding: str = "same",
    ):
        super().__init__()
        self.same = padding == "same"
        pad = int(self.same)
        self.down, self.up, self.join = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = in_channels
        for after in channels:
            self.down.append(
                nn.Sequential(
                    ConvUnit(before, after // 2, norm, pad), ConvUnit(after // 2, after, norm, pad)
                )
            )
            before = after
        for after in channels[-2::-1]:
            self.up.append(nn.ConvTranspose3d(before, before, 2, 2, bias=False))
            self.join.append(
                nn.Sequential(
                    ConvUnit(before + after, after, norm, pad), ConvUnit(after, after, norm, pad)
                )
            )
            before = after
        self.head = nn.Conv3d(before, num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level in self.down[:-1]:
            x = level(x)
            skips.append(x)
            x = torch.max_pool3d(x, 2)
        x = self.down[-1](x)
        for up, join in zip(self.up, self.join, strict=True):
            x, skip = up(x), skips.pop()
            start = [
                (have - want) // 2 for have, want in zip(skip.shape[2:], x.shape[2:], strict=True)
            ]
            middle = tuple(slice(s, s + n) for s, n in zip(start, x.shape[2:], strict=True))
            x = join(torch.cat((skip[:, :, *middle], x), 1))
        return self.head(x)


ENDINGS = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "w": "weight",
}


def torch_name(name: str) -> str:
    """The twin's name of a MindSpore parameter."""
    *path, last = name.split(".")
    return ".".join([*path, ENDINGS.get(last, last)])


def copy_weights(network, twin: nn.Module) -> None:
    """Give the twin every weight and statistic of a MindSpore network; each must have a place, and
    no place be left.
    """
    weights = {
        torch_name(p.name): torch.from_numpy(p.asnumpy().copy()) for p in network.get_parameters()
    }
    weights |= {
        name: value
        for name, value in twin.state_dict().items()
        if name.endswith("num_batches_tracked")
    }
    twin.load_state_dict(weights, strict=True)
