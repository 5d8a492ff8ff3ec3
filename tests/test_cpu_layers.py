"""The second oneDNN agrees with MindSpore to rounding, and steps aside where it does not fit."""

import copy
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from unet3d_tutorial import doctor
from unet3d_tutorial.cpu import accelerate, layers, onednn, program
from unet3d_tutorial.cpu.tiles import TiledConv3d
from unet3d_tutorial.model import ResidualUNet3D, UNet3D
from unet3d_tutorial.runs.device import setup

needs_library = pytest.mark.skipif(
    onednn.load_library() is None, reason=f"needs the package {onednn.PACKAGE}"
)
SAME = {"pad_mode": "same"}
PAD = {"pad_mode": "pad", "padding": 1}
LAYERS = {
    "first": (nn.Conv3d(1, 16, 3, stride=2, **PAD), (2, 1, 8, 12, 10)),
    "few channels": (nn.Conv3d(4, 4, 3, **PAD), (2, 4, 6, 8, 10)),
    "odd channels": (nn.Conv3d(5, 7, 3, **PAD), (1, 5, 6, 7, 9)),
    "stride 2": (nn.Conv3d(16, 32, 3, stride=2, **PAD), (2, 16, 8, 8, 12)),
    "same": (nn.Conv3d(16, 32, 3, has_bias=True, **SAME), (1, 16, 6, 4, 8)),
    "valid": (nn.Conv3d(3, 16, 3, pad_mode="valid", has_bias=True), (1, 3, 7, 8, 9)),
    "1x1x1": (nn.Conv3d(32, 16, 1, pad_mode="pad"), (2, 32, 4, 4, 4)),
    "different axes": (
        nn.Conv3d(2, 3, (1, 3, 5), stride=(1, 2, 1), pad_mode="pad", padding=(0, 0, 1, 1, 2, 2)),
        (1, 2, 4, 6, 8),
    ),
    "up": (nn.Conv3dTranspose(32, 16, 3, stride=2, output_padding=1, **PAD), (2, 32, 4, 5, 6)),
    "up to few channels": (
        nn.Conv3dTranspose(32, 4, 3, stride=2, output_padding=1, **PAD),
        (2, 32, 4, 4, 6),
    ),
    "up, stride 1": (nn.Conv3dTranspose(16, 4, 3, **PAD), (1, 16, 4, 4, 6)),
    "up, valid": (nn.Conv3dTranspose(8, 8, 2, stride=2, pad_mode="valid"), (1, 8, 3, 4, 5)),
}


@pytest.fixture(scope="module", autouse=True)
def mindspore_set_up() -> None:
    setup(seed=1)


@pytest.fixture(autouse=True)
def automatic(monkeypatch) -> None:
    for name in ("UNET3D_CONVOLUTIONS", "UNET3D_LAUNCH", "MS_ROLE"):
        monkeypatch.delenv(name, raising=False)


def both(layer: nn.Cell) -> tuple[nn.Cell, nn.Cell]:
    """A layer with MindSpore's kernels and one with ours, of the same weights."""
    ours = copy.deepcopy(layer)
    for mine, its in zip(ours.get_parameters(), layer.get_parameters(), strict=True):
        mine.set_data(Tensor(its.asnumpy()))
    layers.exchange_convolutions(ours)
    return layer, ours


def values_and_gradients(layer: nn.Cell, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Result, gradient of the input and of each weight, with noise arriving."""
    rng = np.random.default_rng(0)
    x = Tensor(rng.normal(size=shape).astype(np.float32))
    arriving = Tensor(rng.normal(size=layer(x).shape).astype(np.float32))

    def forward(x: Tensor):
        y = layer(x)
        return (y * arriving).sum(), y

    (_, y), (dx, weights) = ops.value_and_grad(forward, 0, layer.trainable_params(), has_aux=True)(
        x
    )
    return [value.asnumpy() for value in (y, dx, *weights)]


def count_calls(monkeypatch) -> list[int]:
    """A list that grows with each program of the second oneDNN."""
    calls, run = [], program.Program.__call__

    def counted(self, **tensors):
        calls.append(1)
        run(self, **tensors)

    monkeypatch.setattr(program.Program, "__call__", counted)
    return calls


@needs_library
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_those_of_mindspore(name, monkeypatch) -> None:
    layer, shape = LAYERS[name]
    theirs, ours = both(layer)
    expected = values_and_gradients(theirs, shape)
    calls = count_calls(monkeypatch)
    found = values_and_gradients(ours, shape)
    assert len(calls) == 4  # the result twice, and two gradients
    for a, b in zip(expected, found, strict=True):
        assert a.shape == b.shape and abs(a - b).max() <= 1e-5 * abs(a).max()


@needs_library
def test_part_of_an_array_and_an_array_in_another_order() -> None:
    theirs, ours = both(nn.Conv3d(3, 16, 3, **PAD))
    x = Tensor(np.random.default_rng(0).normal(size=(3, 3, 6, 8, 10)).astype(np.float32))
    for view in (lambda t: t[1:], lambda t: t[:, :, 2:], lambda t: t.transpose((0, 1, 4, 3, 2))):
        assert np.allclose(theirs(view(x)).asnumpy(), ours(view(x)).asnumpy(), atol=1e-5)


@needs_library
@pytest.mark.parametrize("build", [ResidualUNet3D, UNet3D])
def test_networks_use_it_and_repeat_to_the_bit(build, monkeypatch) -> None:
    def train_twice() -> list[np.ndarray]:
        ms.set_seed(1)
        network = accelerate(build(1, 4, (8, 16, 16, 32, 32)))
        network.set_train(True)
        optimizer = nn.Adam(network.trainable_params(), 1e-2)
        gradients = ops.value_and_grad(
            lambda x: (network(x) ** 2).mean(), None, network.trainable_params()
        )
        for _ in range(2):
            optimizer(
                gradients(
                    Tensor(
                        np.random.default_rng(0).normal(size=(2, 1, 32, 32, 16)).astype(np.float32)
                    )
                )[1]
            )
        return [p.asnumpy() for p in network.get_parameters()]

    calls = count_calls(monkeypatch)
    first, again = train_twice(), train_twice()
    assert calls and all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    monkeypatch.setenv("UNET3D_CONVOLUTIONS", "mindspore")
    before = len(calls)
    plain = train_twice()
    assert len(calls) == before
    # Other kernels, other rounding.
    assert not all(np.array_equal(a, b) for a, b in zip(first, plain, strict=True))


@needs_library
def test_parameters_keep_their_names_and_no_tiles_are_cut(monkeypatch) -> None:
    network = accelerate(ResidualUNet3D(1, 4))
    monkeypatch.setenv("UNET3D_CONVOLUTIONS", "mindspore")
    plain = accelerate(ResidualUNet3D(1, 4))
    assert [p.name for p in network.get_parameters()] == [p.name for p in plain.get_parameters()]
    last = network.up4.conv.down_conv_1, plain.up4.conv.down_conv_1
    assert [type(layer) for layer in last] == [nn.Conv3d, TiledConv3d]


@needs_library
def test_a_compiled_graph_has_mindspores_kernels(monkeypatch) -> None:
    theirs, ours = both(nn.Conv3d(2, 4, 3, **PAD))
    x = Tensor(np.random.default_rng(0).normal(size=(1, 2, 4, 6, 8)).astype(np.float32))
    calls = count_calls(monkeypatch)
    assert np.array_equal(ms.jit(ours.construct)(x).asnumpy(), theirs(x).asnumpy()) and not calls
    assert np.allclose(ours(x).asnumpy(), theirs(x).asnumpy(), atol=1e-5) and calls


@needs_library
def test_mixed_precision_stays_mixed(monkeypatch) -> None:
    x = Tensor(np.random.default_rng(0).normal(size=(1, 2, 4, 6, 8)).astype(np.float32))
    calls = count_calls(monkeypatch)
    for mix in (
        lambda cell: cell.to_float(ms.float16),
        lambda cell: ms.amp.auto_mixed_precision(cell, "auto", ms.float16),
    ):
        assert mix(both(nn.Conv3d(2, 4, 3, **PAD))[1])(x).dtype == ms.float16
    assert not calls


@needs_library
@pytest.mark.parametrize("options", [{"dilation": 2}, {"padding": (0, 1, 1, 1, 1, 1)}])
def test_what_it_cannot_do_is_left_to_mindspore(options) -> None:
    layer = nn.Conv3d(2, 2, 3, pad_mode="pad", **options)
    layers.exchange_convolutions(layer)
    assert type(layer.conv3d) is ops.Conv3D


def test_without_the_library_or_where_it_does_not_fit(monkeypatch) -> None:
    for name, value in (
        ("UNET3D_CONVOLUTIONS", "mindspore"),
        ("UNET3D_LAUNCH", "queue"),
        ("MS_ROLE", "MS_WORKER"),
    ):
        monkeypatch.setenv(name, value)
        assert layers.kernels() == "mindspore"
        monkeypatch.delenv(name)
    monkeypatch.setattr(layers, "load_library", lambda: None)
    assert layers.kernels() == "mindspore"
    assert "MindSpore's own" in doctor.CONVOLUTIONS[layers.kernels()]


def test_a_library_that_does_not_load_is_as_good_as_none(monkeypatch, tmp_path) -> None:
    class File:
        name = "libdnnl.so.3"

        def locate(self) -> str:
            (tmp_path / self.name).write_bytes(b"not a library")
            return str(tmp_path / self.name)

    monkeypatch.setattr(onednn.metadata, "files", lambda package: [File()])
    assert onednn.load_library.__wrapped__() is None
    monkeypatch.setattr(onednn.metadata, "files", lambda package: None)
    assert onednn.load_library.__wrapped__() is None


def test_unknown_choice_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("UNET3D_CONVOLUTIONS", "fast")
    with pytest.raises(
        ValueError, match="^UNET3D_CONVOLUTIONS: expected mindspore or nothing, found 'fast'"
    ):
        layers.kernels()


FORKED = """
import os, numpy as np, mindspore as ms
from unet3d_tutorial.cpu import accelerate, layers, onednn, program
from unet3d_tutorial.cpu.tiles import TiledConv3d
from unet3d_tutorial.runs.device import setup
setup()
x = ms.Tensor(np.ones((2, 16, 8, 8, 8), np.float32))
layer = ms.nn.Conv3d(16, 16, 3)
layers.exchange_convolutions(layer)
layer(x)
if os.fork() == 0:
    os._exit(int(layers.can_run(layer.conv3d, x, layer.weight)))
print("child took it:", os.wait()[1] != 0)
"""


@needs_library
def test_a_forked_child_leaves_it_alone() -> None:
    """Threads do not survive a fork: a worker that waited for them would wait for ever."""
    found = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True)
    assert found.stdout.strip() == "child took it: False", found.stderr
