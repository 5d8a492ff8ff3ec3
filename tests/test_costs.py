"""Costs by hand: one convolution, one transposed convolution."""

import numpy as np
import pytest
from mindspore import nn

from unet3d_tutorial.book.costs import gradient_bytes, multiply_adds, step_memory
from unet3d_tutorial.model import ResidualUNet3D, UNet3D


def test_a_convolution_multiplies_once_for_each_output_voxel_and_weight():
    network = nn.SequentialCell(
        nn.Conv3d(2, 3, 3, stride=2, pad_mode="pad", padding=1, has_bias=False)
    )
    assert multiply_adds(network, (2, 2, 8, 8, 8)) == (2 * 4**3 * (3 * 2 * 27), 2 * 3 * 4**3)
    assert gradient_bytes(network) == 4 * 3 * 2 * 27


def test_a_transposed_convolution_multiplies_once_for_each_input_voxel_and_weight():
    up = nn.Conv3dTranspose(2, 3, 2, stride=2, pad_mode="valid", has_bias=False)
    assert multiply_adds(nn.SequentialCell(up), (1, 2, 4, 4, 4)) == (4**3 * (2 * 3 * 8), 3 * 8**3)


def test_multiply_adds_of_a_network_by_hand() -> None:
    network = UNet3D(1, 3, (2, 4))
    full, half = 4**3, 2**3
    # down, and up.
    products = 27 * (1 * 1 + 1 * 2) * full + 27 * (2 * 2 + 2 * 4) * half + 8 * 4 * 4 * half
    products += 27 * (6 * 2 + 2 * 2) * full + 2 * 3 * full
    maps = (1 + 2) * full + (2 + 4) * half + 4 * full + (2 + 2) * full + 3 * full
    assert multiply_adds(network, (1, 1, 4, 4, 4)) == (products, maps)


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_network_as_it_was(training):
    network = ResidualUNet3D(1, 4, (2, 4, 4, 4, 4)).set_train(training)
    before = [p.asnumpy().copy() for p in network.get_parameters()]
    multiply_adds(network, (1, 1, 16, 16, 16))
    with pytest.raises(ValueError, match="multiples of 16"):
        multiply_adds(network, (1, 1, 16, 16, 17))
    assert all(
        np.array_equal(p.asnumpy(), old)
        for p, old in zip(network.get_parameters(), before, strict=True)
    )
    assert network.training == training and not any(
        cell._forward_hook for _, cell in network.cells_and_names()
    )


def test_memory_of_a_step_holds_weights_gradients_and_adams_means_whatever_this_process_holds():
    parameters, ballast = 4_809_257, np.ones(200_000_000, np.float32)
    assert ballast.nbytes == 800_000_000
    assert (
        4 * 4 * parameters < step_memory("ResidualUNet3D", (1, 1, 16, 16, 16)) < 20 * 4 * parameters
    )


def test_memory_of_an_unknown_network_names_it():
    with pytest.raises(RuntimeError, match="^step_memory of ResUNet: KeyError: 'ResUNet'"):
        step_memory("ResUNet", (1, 1, 16, 16, 16))
