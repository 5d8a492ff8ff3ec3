"""A faster 3x3x3 convolution with few channels on a CPU, computed by MindSpore's own kernels.

It is used where :mod:`.layers` cannot compute the convolutions.
"""

import unet3d_tutorial.environment  # noqa: F401

import numpy as np
from mindspore import Tensor, nn, ops

from ..model import OutputUnit


class TiledConv3d(nn.Conv3d):
    """A 3x3x3 convolution with few channels that computes tiles of 2x2x2 voxels in training.

    The input is ``(N, C, D, H, W)`` with even D, H and W. MindSpore turns a convolution into a
    matrix product with one column for each output channel. Only four columns use the processor
    badly, and each voxel is copied 27 times to make the rows. A tile depends on 4x4x4 voxels, so a
    convolution with this kernel size and stride 2 gives the 8 voxels of each tile as ``8 C``
    channels, with only 8 copies of each voxel. A transposed convolution with a weight of zeros and
    ones then puts the voxels of the tiles in place. The weight is that of the plain layer, and
    results agree to within rounding. In evaluation mode this is the plain layer, so that an
    exported network stays simple.

    :func:`tile` turns a plain layer into this one.
    """

    taps: Tensor
    layout: Tensor
    tiles: ops.Conv3D
    lay_out: ops.Conv3DTranspose

    def construct(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.conv3d(x, self.weight)
        c = self.out_channels
        weight = ops.matmul(self.weight.reshape((c * c, 27)), self.taps.astype(self.weight.dtype))
        weight = weight.reshape((c, c, 8, 64)).transpose((0, 2, 1, 3)).reshape((8 * c, c, 4, 4, 4))
        return self.lay_out(self.tiles(x, weight), self.layout.astype(x.dtype))


def tile(layer: nn.Conv3d) -> None:
    """Let a 3x3x3 convolution with equal numbers of input and output channels compute tiles.

    ``layer`` is changed in place.
    """
    channels = layer.out_channels
    taps, layout = tile_weights(channels)
    layer.__class__ = TiledConv3d
    layer.taps = Tensor(taps)
    layer.layout = Tensor(layout)
    layer.tiles = ops.Conv3D(8 * channels, 4, pad_mode="pad", pad=1, stride=2)
    layer.lay_out = ops.Conv3DTranspose(8 * channels, channels, 2, stride=2, pad_mode="valid")


def tile_outputs(network: nn.Cell) -> None:
    """Let the last convolution of the case's network compute tiles, in place."""
    for _, cell in network.cells_and_names():
        if type(cell) is OutputUnit and type(cell.down_conv_1) is nn.Conv3d:
            tile(cell.down_conv_1)


def tile_weights(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The constant weights of :class:`TiledConv3d`, zeros and ones, for taps and for voxels.

    Taps, ``(27, 8 * 64)``: tap ``t`` of a 3x3x3 kernel, for the voxel at corner ``v`` of a tile, is
    at position ``t + v`` of the 4x4x4 kernel. Voxels, ``(8 * channels, channels, 2, 2, 2)``:
    channel ``8 c + v`` becomes the voxel at corner ``v`` of channel ``c``.
    """
    taps = np.zeros((3, 3, 3, 2, 2, 2, 4, 4, 4), np.float32)
    voxels = np.zeros((channels, 2, 2, 2, channels, 2, 2, 2), np.float32)
    for corner in np.ndindex(2, 2, 2):
        for tap in np.ndindex(3, 3, 3):
            place = np.add(tap, corner)
            taps[(*tap, *corner, *place)] = 1
        for channel in range(channels):
            voxels[(channel, *corner, channel, *corner)] = 1
    return taps.reshape(27, 8 * 64), voxels.reshape(8 * channels, channels, 2, 2, 2)
