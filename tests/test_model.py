"""The network: its size and names, its parts against NumPy, and sizes that do not fit."""

import re

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from unet3d_tutorial import config
from unet3d_tutorial.config import Config
from unet3d_tutorial.cpu.tiles import tile
from unet3d_tutorial.losses import DiceCELoss
from unet3d_tutorial.model import (
    NETWORKS,
    NORMALISATIONS,
    BatchNorm3d,
    Down,
    PReLU,
    ResidualUNet3D,
    ResidualUnit,
    UNet3D,
    Up,
    conv3d,
    half_precision,
    make_network,
    valid_size,
)
from unet3d_tutorial.runs.checkpoints import assign_weights
from unet3d_tutorial.runs.device import setup
from unet3d_tutorial.training import build_network, make_train_step


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
    """He and others, 2015, equation 15: standard deviation sqrt(2 / ((1 + a^2) n)) with a = 0.25
    and n inputs.
    """
    weight = conv3d(32, 64).weight.asnumpy()
    assert weight.std() == pytest.approx(np.sqrt(2 / ((1 + 0.25**2) * 27 * 32)), rel=0.02)
    assert abs(weight.mean()) < 3 * weight.std() / np.sqrt(weight.size)


@pytest.mark.parametrize("size", [(17, 16, 16), (16, 24, 16), (16, 16, 40), (0, 16, 16)])
def test_sizes_that_are_no_multiple_of_16_are_refused(network, size) -> None:
    with pytest.raises(
        ValueError, match=r"^input: .* multiples of 16, found " + re.escape(str(size))
    ):
        network(
            Tensor(np.zeros((1, 1, *size), np.float32)) if all(size) else Placeholder((1, 1, *size))
        )


class Placeholder:
    """Stands for a tensor without entries, which MindSpore would not make."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape


@pytest.mark.parametrize("shape", [(1, 2, 16, 16, 16), (1, 16, 16, 16), (16, 16, 16)])
def test_wrong_number_of_channels_or_axes_is_refused(network, shape) -> None:
    with pytest.raises(
        ValueError,
        match=r"^input: expected shape \(N, 1, D, H, W\), found " + re.escape(str(shape)),
    ):
        network(Tensor(np.zeros(shape, np.float32)))


@pytest.mark.parametrize("channels", [(16, 32, 64, 128), (16, 32, 64, 128, 256, 512)])
def test_five_levels_are_expected(channels) -> None:
    with pytest.raises(
        ValueError, match=f"^channels: expected five, one for each level, found {len(channels)}"
    ):
        ResidualUNet3D(channels=channels)


def test_last_convolution_in_tiles_is_the_plain_one() -> None:
    """In training and in evaluation mode the same values and gradients, from one weight of the
    plain shape.
    """
    layer, x, arriving = (
        conv3d(4, 4),
        random(2, 4, 6, 8, 10),
        random(2, 4, 6, 8, 10, seed=1),
    )
    tile(layer)
    assert {p.name: p.shape for p in layer.get_parameters()} == {"weight": (4, 4, 3, 3, 3)}
    found = {}
    for training in (True, False):
        layer.set_train(training)
        gradient = ms.grad(
            lambda v: (layer(v) * Tensor(arriving)).sum(), 0, layer.trainable_params()
        )
        to_input, (to_weight,) = gradient(Tensor(x))
        found[training] = [layer(Tensor(x)).asnumpy(), to_input.asnumpy(), to_weight.asnumpy()]
        again = gradient(Tensor(x))
        assert np.array_equal(again[1][0].asnumpy(), to_weight.asnumpy())
    for tiled, plain in zip(found[True], found[False], strict=True):
        np.testing.assert_allclose(tiled, plain, atol=1e-5 * abs(plain).max())


def test_training_step_gives_the_same_bits_again() -> None:
    results = []
    for _ in range(2):
        setup(seed=3)
        small = ResidualUNet3D(1, 4, (2, 3, 4, 5, 6))
        small.set_train(True)
        step = make_train_step(small, DiceCELoss(), nn.Adam(small.trainable_params(), 1e-2))
        image, label = (
            Tensor(random(2, 1, 32, 16, 16)),
            Tensor(np.arange(2 * 32 * 16 * 16).reshape(2, 32, 16, 16) % 4),
        )
        losses = [float(step(image, label)[0].asnumpy()) for _ in range(3)]
        results.append((losses, {p.name: p.asnumpy() for p in small.get_parameters()}))
    assert results[0][0] == results[1][0]
    assert all(np.array_equal(results[0][1][name], value) for name, value in results[1][1].items())


# ------------------------------------------------------------------------------ the paper's network


def test_number_of_parameters_is_the_paper_s() -> None:
    """Convolutions' weights and biases, transposed ones without bias, batch-norm not counted:
    19,069,955.
    """
    counted = [p for p in UNet3D(3, 3).trainable_params() if "norm" not in p.name]
    assert sum(p.size for p in counted) == 19_069_955


def test_channels_at_each_step_are_those_of_the_paper_s_figure() -> None:
    network = UNet3D(3, 3)
    levels = (*network.down, *network.join)
    convolutions = [
        (unit.conv.in_channels, unit.conv.out_channels) for level in levels for unit in level
    ]
    assert convolutions == [
        (3, 32),
        (32, 64),
        (64, 64),
        (64, 128),
        (128, 128),
        (128, 256),
        (256, 256),
        (256, 512),
        (768, 256),
        (256, 256),
        (384, 128),
        (128, 128),
        (192, 64),
        (64, 64),
    ]
    assert [(up.in_channels, up.out_channels) for up in network.up] == [
        (512, 512),
        (256, 256),
        (128, 128),
    ]
    assert (network.head.in_channels, network.head.out_channels, network.head.kernel_size) == (
        64,
        3,
        (1, 1, 1),
    )


def test_sizes_without_padding_are_those_of_the_paper_s_figure() -> None:
    assert valid_size((132, 132, 116)) == (44, 44, 28)
    network = UNet3D(1, 2, (2, 2, 2), padding="valid")
    for size in ((44, 44, 44), (48, 44, 52)):
        assert network(Tensor(random(1, 1, *size))).shape == (1, 2, *valid_size(size, levels=3))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((45, 44, 44), "45 voxels become 41 before a pooling"),
        ((20, 44, 44), "20 voxels are too few for 3 levels"),
    ],
)
def test_sizes_that_do_not_go_through_without_padding_are_refused(size, message) -> None:
    with pytest.raises(ValueError, match=f"^input: {message}"):
        UNet3D(1, 2, (2, 2, 2), padding="valid")(Tensor(random(1, 1, *size)))


@pytest.mark.parametrize("norm", NORMALISATIONS)
@pytest.mark.parametrize("channels", [(4, 8), (2, 4, 6, 8)])
def test_paper_s_network_of_any_width_and_depth_keeps_the_size(norm, channels) -> None:
    network = UNet3D(2, 3, channels, norm=norm)
    assert network(Tensor(random(1, 2, 8, 16, 8))).shape == (1, 3, 8, 16, 8)


def test_options_of_the_paper_s_network_are_checked() -> None:
    with pytest.raises(ValueError, match="^norm: expected one of .*'bach'; did you mean 'batch'"):
        UNet3D(norm="bach")
    with pytest.raises(ValueError, match="^padding: expected one of same, valid, found 'full'"):
        UNet3D(padding="full")
    with pytest.raises(ValueError, match="^channels: expected at least two levels"):
        UNet3D(channels=(8,))
    with pytest.raises(ValueError, match="multiples of 8, found"):
        UNet3D(1, 2, (2, 2, 2, 2))(Tensor(random(1, 1, 12, 8, 8)))


# ----------------------------------------------------------------------------- by name, from a file


def test_network_by_name() -> None:
    assert isinstance(make_network("UNet3D", 1, 2, (2, 4)), UNet3D)
    assert isinstance(build_network(Config.preset("quick")), ResidualUNet3D)
    assert tuple(NETWORKS) == config.NETWORK_NAMES
    with pytest.raises(ValueError, match="^model.name: .*found 'Unet3d'; did you mean 'UNet3D'"):
        make_network("Unet3d", 1, 2, (2, 4))


def zoo_checkpoint() -> dict[str, ms.Parameter]:
    """Names and shapes as the model zoo's Unet3d writes them, worked out from its layers, with an
    optimizer's state.
    """
    shapes, channels = {}, (1, 2, 3, 4, 5, 6)

    def norm(path: str, c: int) -> None:
        shapes.update(
            {
                f"{path}.bn2d.{last}": (c,)
                for last in ("moving_mean", "moving_variance", "gamma", "beta")
            }
        )

    for i in range(1, 6):
        a, b, path, k = channels[i - 1], channels[i], f"down{i}.down_conv", 1 if i == 5 else 3
        shapes |= {
            f"{path}.down_conv_1.weight": (b, a, 3, 3, 3),
            f"{path}.down_conv_2.weight": (b, b, 3, 3, 3),
            f"{path}.residual.weight": (b, a, k, k, k),
            f"{path}.relu1.w": (1,),
            f"{path}.relu2.w": (1,),
        }
        norm(f"{path}.batchNormal1", b)
        norm(f"{path}.batchNormal2", b)
    for i, (a, b, c) in enumerate(((6, 5, 4), (4, 4, 3), (3, 3, 2), (2, 2, 4)), start=1):
        shapes |= {
            f"up{i}.conv3d_transpose.weight": (a + b, c, 3, 3, 3),
            f"up{i}.relu.w": (1,),
            f"up{i}.conv.down_conv_1.weight": (c, c, 3, 3, 3),
        }
        norm(f"up{i}.batchNormal1", c)
        if i < 4:
            shapes[f"up{i}.conv.relu1.w"] = (1,)
            norm(f"up{i}.conv.batchNormal1", c)
    shapes |= {f"moment1.{name}": shape for name, shape in shapes.items()}
    shapes |= {"learning_rate": (1,), "global_step": (1,), "beta1_power": (1,)}
    rng = np.random.default_rng(0)
    return {
        name: ms.Parameter(Tensor(rng.normal(size=shape), ms.float32), name=name)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("prefix", ["", "network.", "_backbone."])
def test_checkpoint_of_the_model_zoo_loads(prefix) -> None:
    weights = {prefix + name: value for name, value in zoo_checkpoint().items()}
    network = ResidualUNet3D(1, 4, (2, 3, 4, 5, 6))
    assign_weights(network, weights)
    for parameter in network.get_parameters():
        assert np.array_equal(parameter.asnumpy(), weights[prefix + parameter.name].asnumpy())


def test_every_wrong_parameter_is_listed_and_nothing_is_changed() -> None:
    weights = zoo_checkpoint()
    del weights["up4.relu.w"], weights["down1.down_conv.relu1.w"]
    weights["down9.weight"] = weights["down1.down_conv.residual.weight"]
    weights["up1.conv3d_transpose.weight"] = ms.Parameter(
        Tensor(np.zeros((11, 4, 2, 2, 2)), ms.float32)
    )
    network = ResidualUNet3D(1, 4, (2, 3, 4, 5, 6))
    before = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    with pytest.raises(ValueError) as error:
        assign_weights(network, weights, source="other.ckpt")
    text = str(error.value)
    assert text.startswith("other.ckpt is of another network than ResidualUNet3D: ")
    assert text.split(": ", 1)[1].split("; ") == [
        "missing down1.down_conv.relu1.w",
        "missing up4.relu.w",
        "extra down9.weight",
        "up1.conv3d_transpose.weight of shape (11, 4, 2, 2, 2), expected (11, 4, 3, 3, 3)",
    ]
    assert all(np.array_equal(before[p.name], p.asnumpy()) for p in network.get_parameters())


@pytest.mark.parametrize("level", ["O2", "O3"])
def test_half_precision_stays_close_and_keeps_its_weights(level) -> None:
    setup(seed=1)
    network, x = ResidualUNet3D(1, 4, (2, 3, 4, 5, 6)), Tensor(random(1, 1, 16, 16, 16))
    network.set_train(False)
    full = network(x).asnumpy()
    names = [p.name for p in network.get_parameters()]
    half = half_precision(network, level)
    logits = half(x)
    assert half is network and logits.dtype == ms.float32
    error = abs(logits.asnumpy() - full).max() / abs(full).max()
    assert 1e-6 < error < 1e-2  # rounded to float16, and no worse
    assert [p.name for p in network.get_parameters()] == names
    assert all(p.dtype == ms.float32 for p in network.get_parameters())
    # Twice is once.
    assert np.array_equal(half_precision(network, level)(x).asnumpy(), logits.asnumpy())


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_half_precision_of_the_paper_s_network(norm) -> None:
    setup(seed=1)
    network, x = UNet3D(1, 3, (4, 8), norm=norm), Tensor(random(1, 1, 8, 8, 8))
    network.set_train(False)
    full = network(x).asnumpy()
    logits = half_precision(network)(x)
    assert logits.dtype == ms.float32
    assert 1e-6 < abs(logits.asnumpy() - full).max() / abs(full).max() < 1e-2


def test_gradients_in_half_precision_stay_close_and_do_not_feel_the_loss_scale() -> None:
    x, labels = (
        Tensor(random(1, 1, 16, 16, 16)),
        Tensor(np.arange(16**3).reshape(1, 16, 16, 16) % 4),
    )
    found, loss_fn = [], DiceCELoss()
    for scale, half in ((1.0, False), (1.0, True), (256.0, True)):
        setup(seed=1)
        network = ResidualUNet3D(1, 4, (2, 3, 4, 5, 6))
        network.set_train(True)
        forward = half_precision(network) if half else network
        gradient = ms.grad(
            lambda v, f=forward, s=scale: loss_fn(f(v), labels)[0] * s,
            None,
            network.trainable_params(),
        )
        parts = gradient(x)
        assert all(part.dtype == ms.float32 for part in parts)
        found.append(np.concatenate([part.asnumpy().ravel() for part in parts]) / scale)
    full, *halves = found
    for half in halves:
        assert 1e-6 < np.linalg.norm(half - full) / np.linalg.norm(full) < 0.05


def test_weights_may_be_loaded_while_an_optimiser_is_at_work() -> None:
    """A parameter that is set anew, not changed in place, drops out of the optimiser's compiled
    graph.
    """
    setup(seed=1)
    network, other = (ResidualUNet3D(1, 4, (4, 4, 4, 4, 4)) for _ in range(2))
    optimizer = nn.Adam(network.trainable_params(), 1e-2)
    gradients = tuple(Tensor(np.ones(p.shape, np.float32)) for p in network.trainable_params())
    optimizer(gradients)
    assign_weights(network, {p.name: p for p in other.get_parameters()})
    loaded = [p.asnumpy().copy() for p in network.trainable_params()]
    assert all(
        np.array_equal(a, p.asnumpy())
        for a, p in zip(loaded, other.trainable_params(), strict=True)
    )
    optimizer(gradients)
    assert all(
        (abs(p.asnumpy() - a) > 1e-3).all()
        for a, p in zip(loaded, network.trainable_params(), strict=True)
    )


def test_half_precision_of_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="^level: expected one of O2, O3, found 'O9'"):
        half_precision(ResidualUNet3D(1, 4, (2, 3, 4, 5, 6)), "O9")


# -------------------------------------------------------------------------------------------- PReLU


@pytest.mark.parametrize("slope", [0.0, 0.25, 1.0, -0.5])
def test_prelu_against_the_closed_form(slope) -> None:
    x, arriving = random(2, 3, 8, 9, 10), random(2, 3, 8, 9, 10, seed=1)
    layer = PReLU(slope)
    value = layer(Tensor(x)).asnumpy()
    assert np.array_equal(value, np.where(x > 0, x, np.float32(slope) * x))

    loss = ms.value_and_grad(
        lambda v: (layer(v) * Tensor(arriving)).sum(), 0, layer.trainable_params()
    )
    _, (to_input, (to_slope,)) = loss(Tensor(x))
    np.testing.assert_allclose(to_input.asnumpy(), arriving * np.where(x > 0, 1, slope), rtol=1e-6)
    true = (np.minimum(x, 0).astype(np.float64) * arriving).sum()
    assert float(to_slope.asnumpy()[0]) == pytest.approx(true, rel=1e-5, abs=1e-4)


def test_prelu_gradient_is_exact_and_repeatable_on_a_large_array() -> None:
    """Where nn.PReLU is off by some tenths of a percent and changes from call to call."""
    x, arriving = random(2, 16, 32, 32, 32), random(2, 16, 32, 32, 32, seed=1) + np.float32(0.1)
    layer = PReLU()
    gradient = ms.grad(
        lambda v: (layer(v) * Tensor(arriving)).sum(), None, layer.trainable_params()
    )
    found = [gradient(Tensor(x))[0].asnumpy() for _ in range(4)]
    true = (np.minimum(x, 0).astype(np.float64) * arriving).sum()
    assert float(found[0][0]) == pytest.approx(true, rel=2e-5)
    assert all(np.array_equal(found[0], again) for again in found[1:])


# --------------------------------------------------------------------------------------- batch-norm


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
    mean, variance, gamma, beta = (
        np.reshape(numbers, (1, 2, 1, 1, 1)) for numbers in values.values()
    )
    found = norm(Tensor(x)).asnumpy()
    np.testing.assert_allclose(
        found, gamma * (x - mean) / np.sqrt(variance + norm.bn2d.eps) + beta, atol=1e-5
    )
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


# --------------------------------------------------------------------------------------- the blocks


def test_convolution_against_numpy() -> None:
    layer = conv3d(2, 3, stride=2)
    x, weight = random(1, 2, 6, 4, 8), layer.weight.asnumpy().astype(np.float64)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), axis=(2, 3, 4))[
        :, :, ::2, ::2, ::2
    ]
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
    """Logits must be free to take any value: the last layer is linear, so twice the weights give
    twice the logits.
    """
    up = Up(2, 2, 4, is_output=True)
    up.set_train(False)
    x = Tensor(random(1, 2, 4, 4, 4))
    once = up(x, x).asnumpy()
    up.conv.down_conv_1.weight.set_data(up.conv.down_conv_1.weight * -2)
    np.testing.assert_allclose(up(x, x).asnumpy(), -2 * once, atol=1e-4)
    assert once.min() < 0 < once.max()


def test_with_group_norm_a_volume_does_not_feel_its_neighbours():
    """In training, where with batch-norm it does; both have as many weights."""
    x, found = (
        Tensor(random(2, 1, 16, 16, 16) * np.array([1, 5], np.float32).reshape(2, 1, 1, 1, 1)),
        {},
    )
    for norm in ("batch", "group"):
        network = make_network("ResidualUNet3D", 1, 4, (4, 4, 8, 8, 16), norm)
        network.set_train(True)
        together, alone = (
            network(x).asnumpy(),
            np.concatenate([network(x[:1]).asnumpy(), network(x[1:]).asnumpy()]),
        )
        found[norm] = float(np.abs(together - alone).max() / np.abs(together).max())
        assert sum(p.size for p in network.trainable_params()) == sum(
            p.size for p in ResidualUNet3D(1, 4, (4, 4, 8, 8, 16)).trainable_params()
        )
    assert found["group"] < 1e-5 < 1e-2 < found["batch"]
