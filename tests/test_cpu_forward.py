"""The case's network as one program: its results are those of its layers.

The layers themselves run wherever something wants more than results.
"""

import copy
import gc
import weakref

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from unet3d_tutorial.cpu import accelerate, forward, onednn
from unet3d_tutorial.cpu.program import share_buffer
from unet3d_tutorial.model import Down, PReLU, ResidualUNet3D, half_precision
from unet3d_tutorial.runs.device import setup

pytestmark = pytest.mark.skipif(
    onednn.load_library() is None, reason=f"needs the package {onednn.PACKAGE}"
)
SMALL = (1, 4, (8, 16, 16, 32, 32))


@pytest.fixture(autouse=True)
def automatic(monkeypatch) -> None:
    for name in ("UNET3D_CONVOLUTIONS", "UNET3D_LAUNCH", "MS_ROLE"):
        monkeypatch.delenv(name, raising=False)
    setup(seed=1)


@pytest.fixture
def runs(monkeypatch) -> list[int]:
    """A list that grows with each forward pass that runs as one program."""
    calls, run = [], forward.run_as_one
    monkeypatch.setattr(forward, "run_as_one", lambda *inputs: calls.append(1) or run(*inputs))
    return calls


def trained(*arguments, **options) -> ResidualUNet3D:
    """A network in evaluation mode whose statistics, factors and slopes are not the first ones."""
    network, rng = accelerate(ResidualUNet3D(*arguments, **options)), np.random.default_rng(0)
    for parameter in network.get_parameters():
        if parameter.ndim < 5:
            parameter.set_data(
                Tensor(parameter.asnumpy() + 0.3 * rng.random(parameter.shape, np.float32))
            )
    return network.set_train(False)


def noise(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(1).normal(size=shape).astype(np.float32))


def by_layers(network: nn.Cell, image: Tensor) -> np.ndarray:
    """Logits of the layers one by one, in place of the program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forward, "can_run_as_one", lambda *inputs: False)
        return network(image).asnumpy()


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert (
        found.shape == expected.shape and abs(found - expected).max() <= 1e-5 * abs(expected).max()
    )


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ((1, 4), (2, 1, 32, 32, 48)),
        ((2, 4), (1, 2, 48, 16, 32)),
        (SMALL, (2, 1, 32, 32, 16)),
        ((3, 2, (5, 7, 9, 11, 13)), (1, 3, 16, 32, 16)),  # no channel number fills a block
        # Every transposed convolution with more than MANY channels.
        ((1, 3, (32, 64, 128, 256, 320)), (1, 1, 16, 16, 16)),
        ((1, 2, (32, 32, 32, 32, 32)), (1, 1, 32, 32, 16)),  # each with as many as MANY
    ],
    ids=str,
)
def test_logits_are_those_of_the_layers_and_repeat_to_the_bit(arguments, shape, runs) -> None:
    network, image = trained(*arguments), noise(*shape)
    expected = by_layers(network, image)
    assert not runs
    found = network(image).asnumpy()
    assert runs
    assert_close(found, expected)
    assert np.array_equal(network(image).asnumpy(), found)


def test_it_reads_the_weights_at_each_call(runs) -> None:
    network, image = trained(*SMALL), noise(1, 1, 16, 16, 32)
    before = network(image).asnumpy()
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(parameter.asnumpy() * np.float32(1.1)))
    after = network(image).asnumpy()
    assert len(runs) == 2 and abs(after - before).max() > 0.01
    assert_close(after, by_layers(network, image))


def test_networks_of_one_shape_do_not_mix(runs) -> None:
    image, one, other = noise(1, 1, 16, 16, 16), trained(*SMALL), trained(*SMALL)
    first = one(image).asnumpy()
    assert abs(other(image).asnumpy() - first).max() > 0.01 and np.array_equal(
        one(image).asnumpy(), first
    )
    other.up4 = trained(1, 3, SMALL[2]).up4  # another number of classes, at the same shape of image
    assert other(image).shape == (1, 3, 16, 16, 16) and len(runs) == 4
    assert_close(other(image).asnumpy(), by_layers(other, image))


def test_part_of_an_array_and_an_array_in_another_order(runs) -> None:
    network, batch = trained(*SMALL), noise(3, 1, 16, 32, 48)
    for view in (
        lambda t: t[1:],
        lambda t: t[:, :, :, 16:],
        lambda t: t.transpose((0, 1, 4, 3, 2)),
    ):
        assert_close(network(view(batch)).asnumpy(), by_layers(network, view(batch)))
    assert len(runs) == 3


def test_a_gradient_goes_through_the_layers(runs) -> None:
    network, image = trained(*SMALL), noise(1, 1, 16, 16, 16)
    for wanted in (lambda image: (network(image) ** 2).mean(), network):
        gradient = ops.grad(wanted, 0, None)(image).asnumpy()
        assert abs(gradient).max() > 0 and not runs
    weights = ops.grad(
        lambda image: (network(image) ** 2).mean(), None, network.trainable_params()
    )(image)
    assert all(abs(gradient.asnumpy()).max() > 0 for gradient in weights) and not runs


def test_training_mode_of_all_or_of_one_layer(runs) -> None:
    network, image = trained(*SMALL), noise(2, 1, 16, 16, 16)
    network.up1.batchNormal1.set_train(True)
    before = network.up1.batchNormal1.bn2d.moving_mean.asnumpy().copy()
    network(image)
    assert abs(network.up1.batchNormal1.bn2d.moving_mean.asnumpy() - before).max() > 0 and not runs
    network.set_train(True)(image)
    assert not runs
    network.set_train(False)(image)
    assert runs


@pytest.mark.parametrize(
    "place", ["", "down2", "up4.conv", "down3.down_conv.relu1", "up4.conv.down_conv_1"]
)
def test_a_hook_sees_what_its_layer_gave(place, runs) -> None:
    network, seen = trained(*SMALL), []
    cell = dict(network.cells_and_names())[place]
    hook = cell.register_forward_hook(lambda cell, inputs, output: seen.append(output.shape))
    network(noise(1, 1, 16, 16, 16))
    assert len(seen) == 1 and not runs
    hook.remove()
    network(noise(1, 1, 16, 16, 16))
    assert len(seen) == 1 and runs


def test_other_norms_graphs_and_half_precision_are_left_alone(runs) -> None:
    image = noise(1, 1, 16, 16, 16)
    for other in (trained(*SMALL, norm="group"), half_precision(trained(*SMALL))):
        assert other(image).shape == (1, 4, 16, 16, 16)
    network = trained(*SMALL)
    network.up4.conv.down_conv_1.to_float(ms.float16)
    network(image)
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        trained(*SMALL)(image)
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)
    assert not runs


def test_a_network_of_the_readers_own_is_left_alone(runs) -> None:
    class Doubled(ResidualUNet3D):
        def construct(self, x: Tensor) -> Tensor:
            return super().construct(x) * 2

    network, image = accelerate(Doubled(*SMALL)).set_train(False), noise(1, 1, 16, 16, 16)
    plain = accelerate(ResidualUNet3D(*SMALL)).set_train(False)
    for its, own in zip(plain.get_parameters(), network.get_parameters(), strict=True):
        its.set_data(Tensor(own.asnumpy()))
    assert_close(network(image).asnumpy(), 2 * by_layers(plain, image))
    assert not runs


class Gated(Down):
    """A level with a gate behind it."""

    def __init__(self, level: Down):
        nn.Cell.__init__(self)
        self.down_conv, self.gate = level.down_conv, 0.5

    def construct(self, x: Tensor) -> Tensor:
        return self.down_conv(x) * self.gate


class Steep(PReLU):
    """A PReLU with something behind it."""

    def construct(self, x: Tensor) -> Tensor:
        return 3 * super().construct(x)


def steep_in_one_unit(network: ResidualUNet3D) -> None:
    network.down2.down_conv.relu1 = Steep()


def longer_end(network: ResidualUNet3D) -> None:
    network.up4.conv = nn.SequentialCell(network.up4.conv, nn.Conv3d(4, 3, 1))


CHANGES = {
    "a level with a gate": lambda network: setattr(network, "down3", Gated(network.down3)),
    "another end": longer_end,
    "dropout at the bottom": lambda network: setattr(
        network, "down5", nn.SequentialCell(network.down5, nn.Dropout(p=0.2))
    ),
    "another activation": steep_in_one_unit,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_part_that_was_put_in_counts(name, runs, monkeypatch) -> None:
    network, image = trained(*SMALL), noise(1, 1, 16, 16, 16)
    before = network(image).asnumpy()
    CHANGES[name](network)
    found = network.set_train(False)(image).asnumpy()
    assert len(runs) == 1
    monkeypatch.setenv("UNET3D_CONVOLUTIONS", "mindspore")
    plain = accelerate(ResidualUNet3D(*SMALL)).set_train(False)
    CHANGES[name](plain)
    plain.set_train(False)
    for its, own in zip(plain.get_parameters(), network.get_parameters(), strict=True):
        its.set_data(Tensor(own.asnumpy()))
    assert_close(found, plain(image).asnumpy())
    assert (
        name == "dropout at the bottom"
        or found.shape != before.shape
        or abs(found - before).max() > 0.01
    )


def test_an_instances_own_construct_counts(runs) -> None:
    network, image = trained(*SMALL), noise(1, 1, 16, 16, 16)
    assert abs(network(image).asnumpy()).max() > 0 and len(runs) == 1
    network.construct = lambda x: x * 0
    assert abs(network(image).asnumpy()).max() == 0 and len(runs) == 1


def test_weights_that_are_views_of_other_arrays(runs, monkeypatch) -> None:
    """As when weights are taken over from a program with another order of axes."""
    network, image = trained(*SMALL), noise(1, 1, 16, 16, 16)
    expected = network(image).asnumpy()
    for cell in (
        network.down2.down_conv.down_conv_1,
        network.up2.conv3d_transpose,
        network.down1.down_conv.residual,
    ):
        turned = np.ascontiguousarray(cell.weight.asnumpy().transpose(4, 3, 2, 1, 0))
        cell.weight.set_data(Tensor(turned).transpose((4, 3, 2, 1, 0)))
    gamma = network.up1.batchNormal1.bn2d.gamma
    gamma.set_data(Tensor(np.stack([gamma.asnumpy()] * 3, axis=1))[:, 1])
    assert_close(network(image).asnumpy(), expected)
    assert_close(by_layers(network, image), expected)
    assert len(runs) == 2


def test_input_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^input: expected shape \(N, 1, D, H, W\), found \(1, 2, 16, 16, 16\)"
    ):
        trained(*SMALL)(noise(1, 2, 16, 16, 16))
    with pytest.raises(ValueError, match="^input: expected D, H and W that are multiples of 16"):
        trained(*SMALL)(noise(1, 1, 16, 16, 24))


def test_a_network_that_ran_can_be_copied_and_forgotten() -> None:
    network, image = trained(*SMALL), noise(1, 1, 16, 16, 16)
    expected = network(image).asnumpy()
    assert_close(copy.deepcopy(network)(image).asnumpy(), expected)
    gone = weakref.ref(network)
    del network
    gc.collect()
    assert gone() is None


# ------------------------------------------------------------------------------ arrays share memory


class Array:
    """What :func:`share_buffer` knows of an array."""

    def __init__(self, size: int):
        self.bytes = size


class Step:
    """What it knows of a step."""

    def __init__(self, *arrays: Array):
        self.uses = set(arrays)


def test_arrays_share_memory_unless_a_step_lies_between() -> None:
    a, b, c, d = Array(128), Array(64), Array(192), Array(64)
    places = share_buffer([a, b, c, d], [Step(a, b), Step(b, c), Step(c, d)])
    assert places[c] == 0 and places[a] == 0  # never needed together
    assert places[b] == 192 and places[d] == 192
    assert share_buffer([], []) == {}


def test_no_two_arrays_that_are_needed_at_once_overlap() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        arrays = [Array(64 * int(n)) for n in rng.integers(1, 20, 30)]
        steps = [Step(*(arrays[i] for i in rng.choice(30, 3))) for _ in range(20)] + [
            Step(*arrays[:1]),
            Step(*arrays),
        ]
        if rng.random() < 0.5:
            steps.pop()
            arrays = [array for array in arrays if any(array in step.uses for step in steps)]
        places = share_buffer(arrays, steps)
        life = {
            array: [number for number, step in enumerate(steps) if array in step.uses]
            for array in arrays
        }
        for one in arrays:
            for other in arrays:
                together = max(life[one][0], life[other][0]) <= min(life[one][-1], life[other][-1])
                apart = (
                    places[one] + one.bytes <= places[other]
                    or places[other] + other.bytes <= places[one]
                )
                assert one is other or not together or apart


def test_a_forward_pass_shares_most_of_its_memory() -> None:
    network, image = trained(1, 4), noise(1, 1, 32, 32, 32)
    network(image)
    program = forward.network_program(forward.layers_of(network), image.shape).program
    used = max(start + memory.bytes for memory, start in program.places.items())
    assert used < 0.5 * sum(memory.bytes for memory in program.inside)
