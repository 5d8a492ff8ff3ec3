"""Costs by hand: one convolution, one transposed convolution."""

import numpy as np
import pytest
from mindspore import nn

from unet3d_tutorial.costs import count_macs, gradient_bytes, step_memory


def test_a_convolution_multiplies_once_for_each_output_voxel_and_weight():
    network = nn.SequentialCell(nn.Conv3d(2, 3, 3, stride=2, pad_mode="pad", padding=1, has_bias=False))
    assert count_macs(network, (2, 2, 8, 8, 8)) == 2 * 4**3 * (3 * 2 * 27)
    assert gradient_bytes(network) == 4 * 3 * 2 * 27


def test_a_transposed_convolution_multiplies_once_for_each_input_voxel_and_weight():
    up = nn.Conv3dTranspose(2, 3, 2, stride=2, pad_mode="valid", has_bias=False)
    assert count_macs(nn.SequentialCell(up), (1, 2, 4, 4, 4)) == 4**3 * (2 * 3 * 8)


def test_memory_of_a_step_holds_weights_gradients_and_adams_means_whatever_this_process_holds():
    parameters, ballast = 4_809_257, np.ones(200_000_000, np.float32)
    assert ballast.nbytes == 800_000_000
    assert 4 * 4 * parameters < step_memory("ResidualUNet3D", (1, 1, 16, 16, 16)) < 20 * 4 * parameters


def test_memory_of_an_unknown_network_names_it():
    with pytest.raises(RuntimeError, match="^step_memory of ResUNet: KeyError: 'ResUNet'"):
        step_memory("ResUNet", (1, 1, 16, 16, 16))
