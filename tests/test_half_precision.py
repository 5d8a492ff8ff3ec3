"""A whole run in 16-bit floats, on CPU: repeatable, with a checkpoint like any other."""

import numpy as np
import pytest

from runs import settings, write_data
from unet3d_tutorial.runs.checkpoints import STATE, read_checkpoint
from unet3d_tutorial.training import load_network, train

STATIC = ("train.mixed_precision=true", "train.loss_scale=256")
DYNAMIC = ("train.mixed_precision=true", "train.loss_scale=65536", "train.dynamic_loss_scale=true")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def full(data, tmp_path_factory):
    return train(settings(data, tmp_path_factory.mktemp("run") / "full"))


@pytest.mark.parametrize("options", [STATIC, DYNAMIC], ids=["static scale", "dynamic scale"])
def test_training_in_16_bits_goes_the_way_of_32(data, full, tmp_path, options, capsys) -> None:
    half = train(settings(data, tmp_path / "half", *options))
    assert capsys.readouterr().out.count("a CPU takes longer in 16 bits") == 1
    assert half.history["loss"] != full.history["loss"]
    assert half.history["loss"] == pytest.approx(full.history["loss"], rel=0.02)
    assert half.history["norm"] == pytest.approx(full.history["norm"], rel=0.1)


def test_checkpoint_of_16_bits_has_the_names_and_kinds_of_32(data, full, tmp_path) -> None:
    config = settings(data, tmp_path / "half", *STATIC)
    half = train(config)
    entries = {
        name: (p.dtype, p.shape)
        for name, p in read_checkpoint(half.checkpoint).items()
        if name != STATE
    }
    assert entries == {
        name: (p.dtype, p.shape)
        for name, p in read_checkpoint(full.checkpoint).items()
        if name != STATE
    }
    weights = load_network(config, half.checkpoint).down1.down_conv.down_conv_1.weight.asnumpy()
    assert weights.dtype == np.float32 and np.isfinite(weights).all()
    again = train(settings(data, tmp_path / "again", *STATIC))
    assert again.checkpoint.read_bytes() == half.checkpoint.read_bytes()
