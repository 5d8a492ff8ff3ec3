"""The network: its size and names, its parts against closed forms in NumPy, and what it does with sizes that do not fit."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from unet3d_tutorial.config import Config
from unet3d_tutorial.model import BatchNorm3d, Down, PReLU, ResidualUNet3D, ResidualUnit, Up, conv3d
from unet3d_tutorial.runtime import setup
from unet3d_tutorial.training import build_network


@pytest.fixture(scope="module")
def network() -> ResidualUNet3D:
    setup(seed=1)
    network = ResidualUNet3D(in_channels=1, num_classes=4)
    network.set_train(False)
    return network


def trained(cell) -> int:
    return sum(parameter.size for parameter in cell.trainable_params())


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_number_of_parameters_is_the_case_s(network) -> None:
    assert trained(network) == 4_809_257
    assert trained(build_network(Config.preset("luna16"))) == 4_809_257
    assert trained(build_network(Config.preset("quick"))) == 4_809_257 + 2 * 27 * 16


def test_number_of_parameters_of_one_level(network) -> None:
    assert trained(network.down1) == 27 * (16 + 16 * 16 + 16) + 2 * 2 * 16 + 2
    assert trained(network.down5) == 27 * (128 * 256 + 256 * 256) + 128 * 256 + 2 * 2 * 256 + 2
    assert trained(network.up4) == 27 * (32 * 4 + 4 * 4) + 2 * 4 + 1


def test_names_of_the_parameters(network) -> None:
    shapes = {parameter.name: parameter.shape for parameter in network.get_parameters()}
    assert shapes["down1.down_conv.down_conv_1.weight"] == (16, 1, 3, 3, 3)
    assert shapes["down1.down_conv.residual.weight"] == (16, 1, 3, 3, 3)
    assert shapes["down5.down_conv.residual.weight"] == (256, 128, 1, 1, 1)
    assert shapes["up1.conv3d_transpose.weight"] == (384, 64, 3, 3, 3)
    assert shapes["up1.conv.down_conv_1.weight"] == (64, 64, 3, 3, 3)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        assert shapes[f"down1.down_conv.batchNormal1.bn2d.{name}"] == (16,)
    assert len(shapes) == len(list(network.get_parameters()))  # no name twice


@pytest.mark.parametrize("size", [(16, 16, 16), (32, 16, 48)])
def test_logits_have_the_size_of_the_input(network, size) -> None:
    logits = network(Tensor(random(2, 1, *size))).asnumpy()
    assert logits.shape == (2, 4, *size)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_same_seed_same_weights() -> None:
    weights = []
    for seed in (1, 1, 2):
        setup(seed=seed)
        weights.append(Down(1, 4).down_conv.down_conv_1.weight.asnumpy())
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_first_weights_keep_the_spread() -> None:
    """He and others, 2015, equation 15: standard deviation sqrt(2 / ((1 + a^2) n)) with a = 0.25 and n inputs."""
    weight = conv3d(32, 64).weight.asnumpy()
    assert weight.std() == pytest.approx(np.sqrt(2 / ((1 + 0.25**2) * 27 * 32)), rel=0.02)
    assert abs(weight.mean()) < 3 * weight.std() / np.sqrt(weight.size)


@pytest.mark.parametrize("size", [(17, 16, 16), (16, 24, 16), (16, 16, 40)])
def test_sizes_that_are_no_multiple_of_16_are_refused(network, size) -> None:
    with pytest.raises(ValueError, match="Concat"):
        network(Tensor(np.zeros((1, 1, *size), np.float32))).asnumpy()


def test_wrong_number_of_input_channels_is_refused(network) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        network(Tensor(np.zeros((1, 2, 16, 16, 16), np.float32))).asnumpy()


def test_four_dimensions_are_refused(network) -> None:
    with pytest.raises((ValueError, RuntimeError, TypeError)):
        network(Tensor(np.zeros((1, 16, 16, 16), np.float32))).asnumpy()


@pytest.mark.parametrize("channels", [(16, 32, 64, 128), (16, 32, 64, 128, 256, 512)])
def test_five_levels_are_expected(channels) -> None:
    with pytest.raises(ValueError):
        ResidualUNet3D(channels=channels)


# ------------------------------------------------------------------------------------------------------------- PReLU


@pytest.mark.parametrize("slope", [0.0, 0.25, 1.0, -0.5])
def test_prelu_against_the_closed_form(slope) -> None:
    x, arriving = random(2, 3, 8, 9, 10), random(2, 3, 8, 9, 10, seed=1)
    layer = PReLU(slope)
    value = layer(Tensor(x)).asnumpy()
    assert np.array_equal(value, np.where(x > 0, x, np.float32(slope) * x))

    loss = ms.value_and_grad(lambda v: (layer(v) * Tensor(arriving)).sum(), 0, layer.trainable_params())
    _, (to_input, (to_slope,)) = loss(Tensor(x))
    np.testing.assert_allclose(to_input.asnumpy(), arriving * np.where(x > 0, 1, slope), rtol=1e-6)
    true = (np.minimum(x, 0).astype(np.float64) * arriving).sum()
    assert float(to_slope.asnumpy()[0]) == pytest.approx(true, rel=1e-5, abs=1e-4)


def test_prelu_gradient_is_exact_and_repeatable_on_a_large_array() -> None:
    """Where nn.PReLU is off by some tenths of a percent and changes from call to call."""
    x, arriving = random(2, 16, 32, 32, 32), random(2, 16, 32, 32, 32, seed=1) + np.float32(0.1)
    layer = PReLU()
    gradient = ms.grad(lambda v: (layer(v) * Tensor(arriving)).sum(), None, layer.trainable_params())
    found = [gradient(Tensor(x))[0].asnumpy() for _ in range(4)]
    true = (np.minimum(x, 0).astype(np.float64) * arriving).sum()
    assert float(found[0][0]) == pytest.approx(true, rel=2e-5)
    assert all(np.array_equal(found[0], again) for again in found[1:])


# -------------------------------------------------------------------------------------------------------- batch-norm


def test_batch_norm_in_training_mode_against_numpy() -> None:
    x = random(2, 3, 4, 5, 6) * 3 + 5
    norm = BatchNorm3d(3, momentum=0.9)
    norm.set_train(True)
    found = norm(Tensor(x)).asnumpy()
    x = x.astype(np.float64)
    mean, variance = x.mean((0, 2, 3, 4), keepdims=True), x.var((0, 2, 3, 4), keepdims=True)
    np.testing.assert_allclose(found, (x - mean) / np.sqrt(variance + norm.bn2d.eps), atol=1e-5)
    np.testing.assert_allclose(norm.bn2d.moving_mean.asnumpy(), 0.1 * mean.ravel(), rtol=1e-5)
    count = x.size // 3
    unbiased = variance.ravel() * count / (count - 1)
    np.testing.assert_allclose(norm.bn2d.moving_variance.asnumpy(), 0.9 + 0.1 * unbiased, rtol=1e-4)


def test_batch_norm_in_evaluation_mode_uses_its_memory() -> None:
    x = random(1, 2, 4, 4, 4)
    norm = BatchNorm3d(2, momentum=0.9)
    norm.set_train(False)
    values = {"moving_mean": [1, 2], "moving_variance": [4, 9], "gamma": [2, 3], "beta": [-1, 1]}
    for name, numbers in values.items():
        getattr(norm.bn2d, name).set_data(Tensor(numbers, ms.float32))
    mean, variance, gamma, beta = (np.reshape(numbers, (1, 2, 1, 1, 1)) for numbers in values.values())
    found = norm(Tensor(x)).asnumpy()
    np.testing.assert_allclose(found, gamma * (x - mean) / np.sqrt(variance + norm.bn2d.eps) + beta, atol=1e-5)
    assert norm.bn2d.moving_mean.asnumpy().tolist() == [1, 2]


def test_a_neighbour_in_the_batch_matters_in_training_mode_only() -> None:
    setup(seed=1)
    network = ResidualUNet3D(channels=(2, 3, 4, 5, 6))
    one, two = random(1, 1, 16, 16, 16), 3 * random(1, 1, 16, 16, 16, seed=1) + 1
    for training in (True, False):
        network.set_train(training)
        alone = network(Tensor(one)).asnumpy()[0]
        beside = network(Tensor(np.concatenate([one, two]))).asnumpy()[0]
        assert np.allclose(alone, beside, atol=1e-4) is not training


# -------------------------------------------------------------------------------------------------------- the blocks


def test_convolution_against_numpy() -> None:
    layer = conv3d(2, 3, stride=2)
    x, weight = random(1, 2, 6, 4, 8), layer.weight.asnumpy().astype(np.float64)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), axis=(2, 3, 4))[:, :, ::2, ::2, ::2]
    expected = np.einsum("ncdhwijk,ocijk->nodhw", windows, weight)
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), expected, atol=1e-5)
    assert layer.bias is None


def test_residual_unit_without_its_left_branch_is_the_shortcut() -> None:
    unit = ResidualUnit(2, 4, stride=2, shortcut_kernel=3, momentum=0.9)
    unit.set_train(False)
    unit.batchNormal2.bn2d.gamma.set_data(Tensor(np.zeros(4), ms.float32))
    x = Tensor(random(1, 2, 8, 8, 8))
    assert np.array_equal(unit(x).asnumpy(), unit.residual(x).asnumpy())


def test_down_halves_or_keeps_and_up_doubles() -> None:
    x = Tensor(random(1, 2, 8, 6, 4))
    assert Down(2, 4)(x).shape == (1, 4, 4, 3, 2)
    assert Down(2, 4, stride=1, shortcut_kernel=1)(x).shape == (1, 4, 8, 6, 4)
    assert Up(2, 3, 5)(x, Tensor(random(1, 3, 8, 6, 4))).shape == (1, 5, 16, 12, 8)


def test_last_unit_has_no_activation() -> None:
    """Logits must be free to take any value: the last layer is linear, so twice the weights give twice the logits."""
    up = Up(2, 2, 4, is_output=True)
    up.set_train(False)
    x = Tensor(random(1, 2, 4, 4, 4))
    once = up(x, x).asnumpy()
    up.conv.down_conv_1.weight.set_data(up.conv.down_conv_1.weight * -2)
    np.testing.assert_allclose(up(x, x).asnumpy(), -2 * once, atol=1e-4)
    assert once.min() < 0 < once.max()
