"""Costs by hand: one convolution, one transposed convolution."""

from mindspore import nn

from unet3d_tutorial.costs import count_macs, gradient_bytes


def test_a_convolution_multiplies_once_for_each_output_voxel_and_weight():
    network = nn.SequentialCell(nn.Conv3d(2, 3, 3, stride=2, pad_mode="pad", padding=1, has_bias=False))
    assert count_macs(network, (2, 2, 8, 8, 8)) == 2 * 4**3 * (3 * 2 * 27)
    assert gradient_bytes(network) == 4 * 3 * 2 * 27


def test_a_transposed_convolution_multiplies_once_for_each_input_voxel_and_weight():
    up = nn.Conv3dTranspose(2, 3, 2, stride=2, pad_mode="valid", has_bias=False)
    assert count_macs(nn.SequentialCell(up), (1, 2, 4, 4, 4)) == 4**3 * (2 * 3 * 8)
