"""What may be put around a step: each option against the arithmetic that it stands for."""

from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from unet3d_tutorial.config import TrainConfig
from unet3d_tutorial.losses import DiceCELoss
from unet3d_tutorial.model import ResidualUNet3D, half_precision
from unet3d_tutorial.runs.checkpoints import RunState
from unet3d_tutorial.training_step import (
    SLOW_HALF,
    MovingAverage,
    TrainStep,
    gradient_norm,
    make_train_step,
)

START = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)


class Product(nn.Cell):
    """Four weights and a bias: the gradient of the loss below can be written down."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(Tensor(START.copy()), name="weight")
        self.bias = Parameter(Tensor([0.25], ms.float32), name="bias")

    def construct(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


class Half(nn.Cell):
    """Half of the squared distance, in the form of the package's loss: a sum and its two parts."""

    def construct(self, y: Tensor, target: Tensor):
        loss = 0.5 * ((y - target) ** 2).sum()
        return loss, loss * 0.75, loss * 0.25


def batch(seed: int):
    rng = np.random.default_rng(seed)
    return Tensor(rng.normal(size=(2, 2)).astype(np.float32)), Tensor(
        rng.normal(size=(2, 2)).astype(np.float32)
    )


def step(options: TrainConfig, batches, steps: int = 1, rate: float = 0.1):
    """Weights, losses and state after plain gradient descent with ``options``."""
    network, state = Product(), RunState(loss_scale=options.loss_scale)
    optimizer = nn.SGD(network.trainable_params(), learning_rate=rate)
    train_step = TrainStep(network, Half(), optimizer, options, state)
    losses = [train_step(batches) for _ in range(steps)]
    return network, losses, state


def gradient(x, target, weight=START, bias=0.25) -> np.ndarray:
    return (x.asnumpy() * weight + bias - target.asnumpy()) * x.asnumpy()


PLAIN = replace(TrainConfig(), loss_scale=1.0)


def test_with_the_defaults_it_is_the_plain_step():
    network, other = Product(), Product()
    optimizer = nn.Adam(network.trainable_params(), 0.1), nn.Adam(other.trainable_params(), 0.1)
    plain, full = (
        make_train_step(network, Half(), optimizer[0]),
        TrainStep(other, Half(), optimizer[1], PLAIN, RunState()),
    )
    for seed in range(3):
        assert [float(v.asnumpy()) for v in plain(*batch(seed))] == full([batch(seed)]).tolist()
    assert np.array_equal(network.weight.asnumpy(), other.weight.asnumpy())


def test_accumulated_batches_give_the_mean_gradient_and_loss():
    network, losses, _ = step(PLAIN, [batch(0), batch(1)])
    mean = (gradient(*batch(0)) + gradient(*batch(1))) / 2
    assert np.allclose(network.weight.asnumpy(), START - 0.1 * mean, atol=1e-6)
    singles = [step(PLAIN, [batch(seed)])[1][0] for seed in (0, 1)]
    assert losses[0] == pytest.approx(np.mean(singles, axis=0))


@pytest.mark.parametrize("clip_norm", [0.25, 1e6])
def test_a_long_gradient_is_shortened_and_keeps_its_direction(clip_norm):
    free, _, _ = step(PLAIN, [batch(0)])
    clipped, _, _ = step(replace(PLAIN, clip_norm=clip_norm), [batch(0)])
    moved = [
        np.append(START - n.weight.asnumpy(), 0.25 - n.bias.asnumpy()) / 0.1
        for n in (free, clipped)
    ]
    length = np.linalg.norm(moved[0])
    assert length > 0.25
    assert np.allclose(moved[1], moved[0] * min(1, clip_norm / length), atol=1e-5)


def test_a_loss_scale_changes_neither_loss_nor_weights():
    plain, losses, _ = step(PLAIN, [batch(0)])
    scaled, same, state = step(replace(PLAIN, loss_scale=256.0), [batch(0)])
    assert np.array_equal(plain.weight.asnumpy(), scaled.weight.asnumpy()) and same[
        0
    ] == pytest.approx(losses[0])
    assert state.skipped == 0


def test_an_overflow_is_skipped_counted_and_halves_a_dynamic_scale():
    huge = 2.0**70
    still, _, state = step(replace(PLAIN, loss_scale=huge), [batch(0)], steps=3)
    assert np.array_equal(still.weight.asnumpy(), START) and (state.skipped, state.loss_scale) == (
        3,
        huge,
    )
    moved, losses, state = step(
        replace(PLAIN, loss_scale=huge, dynamic_loss_scale=True), [batch(0)], steps=12
    )
    assert 0 < state.skipped < 12 and state.loss_scale == huge / 2**state.skipped
    assert (
        not np.array_equal(moved.weight.asnumpy(), START)
        and np.isfinite(moved.weight.asnumpy()).all()
    )


def test_a_dynamic_scale_grows_after_many_steps_without_overflow(monkeypatch):
    monkeypatch.setattr("unet3d_tutorial.training_step.SCALE_GROWS_AFTER", 4)
    _, _, state = step(
        replace(PLAIN, loss_scale=8.0, dynamic_loss_scale=True), [batch(0)], steps=9, rate=1e-3
    )
    assert (state.loss_scale, state.scale_age, state.skipped) == (32.0, 1, 0)


def test_weight_decay_shrinks_weights_but_no_biases():
    plain, _, _ = step(PLAIN, [batch(0)])
    decayed, _, _ = step(replace(PLAIN, weight_decay=0.5), [batch(0)])
    assert np.allclose(
        plain.weight.asnumpy() - decayed.weight.asnumpy(), 0.1 * 0.5 * START, atol=1e-6
    )
    assert np.array_equal(plain.bias.asnumpy(), decayed.bias.asnumpy())


def after_three_steps(**options) -> np.ndarray:
    """The weights after three steps of Adam, whose update is compiled at the first one."""
    network = Product()
    optimizer = nn.Adam(network.trainable_params(), 0.1)
    train_step = TrainStep(network, Half(), optimizer, replace(PLAIN, **options), RunState())
    for seed in range(3):
        train_step([batch(seed)])
    return network.weight.asnumpy()


def test_weights_that_decay_a_little_move_as_those_that_do_not():
    assert np.allclose(after_three_steps(weight_decay=1e-9), after_three_steps(), atol=1e-6)
    assert abs(after_three_steps() - START).max() > 0.2


def test_the_optimiser_goes_on_after_the_averages_were_in_place():
    found = []
    for decay in (0.0, 0.75):
        network = Product()
        optimizer = nn.Adam(network.trainable_params(), 0.1)
        train_step, average = (
            TrainStep(network, Half(), optimizer, PLAIN, RunState()),
            MovingAverage(network, decay),
        )
        for seed in range(2):
            train_step([batch(seed)])
            average.update()
            with average.in_place():
                pass
        found.append(network.weight.asnumpy())
    assert np.array_equal(*found)


def test_the_gradient_is_as_long_as_it_is():
    assert gradient_norm([Tensor([3.0, 0.0], ms.float32), Tensor([[4.0]], ms.float32)]) == 5.0


def test_the_moving_average_is_in_place_for_a_while():
    network = Product()
    average = MovingAverage(network, 0.75)
    network.weight.set_data(Tensor(START + 4))
    average.update()
    with average.in_place():
        assert np.allclose(network.weight.asnumpy(), START + 1)
    assert np.array_equal(network.weight.asnumpy(), START + 4)
    none = MovingAverage(network, 0.0)
    none.update()
    with none.in_place():
        assert np.array_equal(network.weight.asnumpy(), START + 4)


def test_mixed_precision_keeps_weights_in_32_bits_and_stays_close(capsys):
    class Small(nn.Cell):
        def __init__(self):
            super().__init__()
            ms.set_seed(1)
            self.conv = nn.Conv3d(1, 2, 3, pad_mode="pad", padding=1, has_bias=False)

        def construct(self, x):
            return self.conv(x)

    rng = np.random.default_rng(0)
    x, y = (Tensor(rng.normal(size=(1, c, 8, 8, 8)).astype(np.float32)) for c in (1, 2))
    found = {}
    for mixed in (False, True):
        network = Small()
        optimizer = nn.SGD(network.trainable_params(), 1e-4)
        options = replace(PLAIN, mixed_precision=mixed, loss_scale=16.0)
        found[mixed] = TrainStep(network, Half(), optimizer, options, RunState(loss_scale=16.0))(
            [(x, y)]
        )[0]
        assert network.conv.weight.dtype == ms.float32
    assert found[True] != found[False] and found[True] == pytest.approx(found[False], rel=1e-3)
    assert capsys.readouterr().out == SLOW_HALF + "\n"  # once, on a processor


def test_mixed_precision_is_the_models_half_precision():
    """The step's logits are those of ``half_precision``, through the real network and loss."""
    rng = np.random.default_rng(0)
    image = Tensor(rng.normal(size=(2, 1, 16, 16, 16)).astype(np.float32))
    label = Tensor(rng.integers(0, 4, (2, 16, 16, 16)).astype(np.int32))
    losses = []
    for prepare in (half_precision, lambda network: network):
        ms.set_seed(1)
        network = prepare(ResidualUNet3D(1, 4, (2, 3, 4, 5, 6)))
        network.set_train(True)
        optimizer = nn.Adam(network.trainable_params(), 1e-3)
        options = replace(PLAIN, mixed_precision=prepare is not half_precision, loss_scale=256.0)
        train_step = TrainStep(
            network, DiceCELoss(), optimizer, options, RunState(loss_scale=256.0)
        )
        losses.append([train_step([(image, label)]).tolist() for _ in range(3)])
    assert losses[0] == losses[1]


def test_gradients_too_large_for_16_bits_halve_a_dynamic_scale_until_they_fit():
    rng = np.random.default_rng(0)
    image = Tensor(rng.normal(size=(2, 1, 16, 16, 16)).astype(np.float32))
    label = Tensor(rng.integers(0, 4, (2, 16, 16, 16)).astype(np.int32))
    ms.set_seed(1)
    network, state = ResidualUNet3D(1, 4, (2, 3, 4, 5, 6)), RunState(loss_scale=2.0**24)
    network.set_train(True)
    options = replace(PLAIN, mixed_precision=True, loss_scale=2.0**24, dynamic_loss_scale=True)
    train_step = TrainStep(
        network, DiceCELoss(), nn.Adam(network.trainable_params(), 1e-3), options, state
    )
    losses = [train_step([(image, label)])[0] for _ in range(16)]
    assert 0 < state.skipped < 16 and state.loss_scale == 2.0**24 / 2**state.skipped
    assert losses[-1] < losses[0] and all(
        np.isfinite(p.asnumpy()).all() for p in network.get_parameters()
    )
