"""Convolution, batch-norm and PReLU as one operation give the layers' own results.

The layers themselves run where they must.
"""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from unet3d_tutorial.cpu import accelerate, onednn, units
from unet3d_tutorial.cpu.units import FUSED
from unet3d_tutorial.model import IdentityUnit, ResidualUNet3D, ResidualUnit, Up
from unet3d_tutorial.runs.device import setup

pytestmark = pytest.mark.skipif(
    onednn.load_library() is None, reason=f"needs the package {onednn.PACKAGE}"
)
CELLS = {
    "residual unit": (lambda: ResidualUnit(2, 16, 2, 3, 0.9), [(2, 2, 8, 8, 12)]),
    "residual unit at the bottom": (lambda: ResidualUnit(32, 48, 1, 1, 0.7), [(2, 32, 4, 4, 6)]),
    "odd channels": (lambda: ResidualUnit(3, 7, 1, 3, 0.9), [(1, 3, 6, 4, 10)]),
    "identity unit": (lambda: IdentityUnit(16, 0.9), [(1, 16, 6, 6, 8)]),
    "up": (lambda: Up(32, 16, 16), [(2, 32, 2, 4, 6), (2, 16, 2, 4, 6)]),
    "up to few channels": (
        lambda: Up(16, 16, 4, is_output=True),
        [(2, 16, 4, 4, 6), (2, 16, 4, 4, 6)],
    ),
    "one voxel": (lambda: ResidualUnit(4, 8, 2, 3, 0.9), [(1, 4, 2, 2, 2)]),
}


@pytest.fixture(autouse=True)
def automatic(monkeypatch) -> None:
    for name in ("UNET3D_CONVOLUTIONS", "UNET3D_LAUNCH", "MS_ROLE"):
        monkeypatch.delenv(name, raising=False)
    setup(seed=1)


def pair(build) -> tuple[nn.Cell, nn.Cell]:
    """A cell as it is, with MindSpore's kernels, and a fused one with the same weights, which are
    not the first ones.
    """
    plain, ours = build(), build()
    rng = np.random.default_rng(0)
    for theirs, mine in zip(plain.get_parameters(), ours.get_parameters(), strict=True):
        value = theirs.asnumpy() + 0.1 * rng.random(theirs.shape, np.float32)
        theirs.set_data(Tensor(value))
        mine.set_data(Tensor(value))
    assert type(accelerate(ours)) is FUSED[type(plain)]
    return plain, ours


def everything(cell: nn.Cell, shapes: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Result, gradients of inputs and weights with noise arriving, and what is in the parameters
    afterwards.
    """
    rng = np.random.default_rng(1)
    inputs = [Tensor(rng.normal(size=shape).astype(np.float32)) for shape in shapes]

    def forward(*inputs: Tensor):
        y = cell(*inputs)
        return (
            y * Tensor(np.random.default_rng(2).normal(size=y.shape).astype(np.float32))
        ).sum(), y

    weights = cell.trainable_params()
    (_, y), (of_inputs, of_weights) = ops.value_and_grad(
        forward, tuple(range(len(inputs))), weights, has_aux=True
    )(*inputs)
    of_inputs = of_inputs if isinstance(of_inputs, tuple) else (of_inputs,)
    found = {"result": y} | {f"input {n}": g for n, g in enumerate(of_inputs)}
    found |= {f"gradient of {p.name}": g for p, g in zip(weights, of_weights, strict=True)}
    found |= {p.name: p for p in cell.get_parameters()}
    return {name: value.asnumpy() for name, value in found.items()}


def count_units(monkeypatch) -> list[int]:
    """A list that grows with each unit that runs as one operation."""
    calls, run = [], units.Unit.apply
    monkeypatch.setattr(units.Unit, "apply", lambda *inputs: calls.append(1) or run(*inputs))
    return calls


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", CELLS)
def test_results_gradients_and_statistics_are_the_layers_own(name, training, monkeypatch) -> None:
    build, shapes = CELLS[name]
    plain, ours = (cell.set_train(training) for cell in pair(build))
    expected, calls = everything(plain, shapes), count_units(monkeypatch)
    found = everything(ours, shapes)
    assert calls
    for key, value in expected.items():
        if name == "one voxel" and training and "variance" in key:
            assert np.isfinite(
                found[key]
            ).all()  # MindSpore divides by the number of other voxels, which is 0
        elif name != "one voxel" or not training:  # there, the deviation is 0 and rounding decides
            assert abs(found[key] - value).max() <= 2e-4 * max(abs(value).max(), 1e-2), key


def test_in_half_of_the_operations_and_to_the_bit(monkeypatch) -> None:
    network = accelerate(ResidualUNet3D(1, 4, (8, 16, 16, 32, 32))).set_train(True)
    x = Tensor(np.random.default_rng(0).normal(size=(2, 1, 32, 32, 16)).astype(np.float32))
    gradients = ops.value_and_grad(
        lambda x: (network(x) ** 2).mean(), None, network.trainable_params()
    )
    calls = count_units(monkeypatch)
    first, again = gradients(x)[1], gradients(x)[1]
    assert len(calls) == 2 * 17  # every convolution that a batch-norm follows
    assert all(np.array_equal(a.asnumpy(), b.asnumpy()) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("watch", ["unit", "down_conv_1", "batchNormal1", "relu1"])
def test_a_hook_sees_what_its_layer_gave(watch, monkeypatch) -> None:
    plain, ours = (cell.set_train(True) for cell in pair(lambda: IdentityUnit(4, 0.9)))
    x, seen = Tensor(np.random.default_rng(0).normal(size=(1, 4, 4, 4, 6)).astype(np.float32)), []
    calls = count_units(monkeypatch)
    for cell in (plain, ours):
        part = cell if watch == "unit" else getattr(cell, watch)
        part.register_forward_hook(lambda cell, inputs, output: seen.append(output.asnumpy()))
        cell(x)
    assert len(seen) == 2 and np.allclose(*seen, atol=1e-5) and not calls
    ours.set_train(True)(x)
    assert not calls and len(seen) == 3


def test_statistics_that_do_not_follow_training_and_other_norms_are_left_alone(monkeypatch) -> None:
    calls = count_units(monkeypatch)
    x = Tensor(np.ones((1, 4, 4, 4, 6), np.float32))
    _, frozen = pair(lambda: IdentityUnit(4, 0.9))
    frozen.batchNormal1.bn2d.use_batch_statistics = False
    frozen.set_train(True)(x)
    group = IdentityUnit(4, 0.9, "group")
    assert accelerate(group) is group and group.set_train(True)(x).shape == x.shape and not calls


def test_a_compiled_graph_knows_nothing_of_it(monkeypatch) -> None:
    plain, ours = (cell.set_train(False) for cell in pair(lambda: IdentityUnit(4, 0.9)))
    x = Tensor(np.random.default_rng(0).normal(size=(1, 4, 4, 4, 6)).astype(np.float32))
    calls = count_units(monkeypatch)
    assert np.array_equal(ms.jit(ours.construct)(x).asnumpy(), ms.jit(plain.construct)(x).asnumpy())
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        assert np.allclose(ours(x).asnumpy(), plain(x).asnumpy(), atol=1e-5) and not calls
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)


def test_it_goes_with_the_convolutions(monkeypatch) -> None:
    monkeypatch.setenv("UNET3D_CONVOLUTIONS", "mindspore")
    cell = IdentityUnit(4, 0.9)
    assert type(accelerate(cell)) is IdentityUnit
