"""Exported files compute what the network computes, for every window, or are refused."""

from collections import Counter

import mindspore as ms
import numpy as np
import onnx
import pytest

from unet3d_tutorial import export
from unet3d_tutorial.config import Config
from unet3d_tutorial.export import (
    ExportError,
    export_checkpoint,
    mindir_predictor,
    to_mindir,
    to_onnx,
)
from unet3d_tutorial.predict.engines import load_onnx
from unet3d_tutorial.runs.device import setup
from unet3d_tutorial.training import build_network, predictor, save_checkpoint

SMALL = Config.from_dict(
    {"model": {"channels": [2, 3, 4, 5, 6]}, "inference": {"roi_size": [32, 32, 16]}}
)
SHAPES = [(1, 2, 32, 32, 16), (3, 2, 16, 48, 32)]


@pytest.fixture(scope="module")
def network():
    """A small network whose batch-norm statistics are not the trivial ones."""
    setup(seed=3)
    cell, rng = build_network(SMALL), np.random.default_rng(3)
    for parameter in cell.get_parameters():
        if "moving_" in parameter.name or "gamma" in parameter.name:
            parameter.set_data(ms.Tensor(rng.uniform(0.5, 1.5, parameter.shape).astype(np.float32)))
    return cell.set_train(False)


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return to_onnx(network, folder / "a.onnx", SMALL), to_mindir(
        network, folder / "a.mindir", SMALL
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_both_files_give_the_networks_logits_for_any_batch_and_window(network, files, shape):
    batch = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = predictor(network)(batch)
    for exported in (load_onnx(files[0])[0], mindir_predictor(files[1])):
        assert np.allclose(exported(batch), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_onnx_has_one_operator_for_each_layer_and_dynamic_axes(files):
    model = onnx.load(files[0])
    assert Counter(node.op_type for node in model.graph.node) == {
        "Conv": 19,
        "ConvTranspose": 4,
        "PRelu": 17,
        "Add": 8,
        "Concat": 4,
    }
    axes = [
        axis.dim_param or axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim
    ]
    assert axes == ["N", 2, "D", "H", "W"] and model.opset_import[0].version == 11


def test_the_onnx_file_brings_its_configuration(files):
    _, config = load_onnx(files[0])
    assert (config.data, config.model, config.inference) == (
        SMALL.data,
        SMALL.model,
        SMALL.inference,
    )


def test_no_number_in_the_file_is_beyond_float16(tmp_path):
    """A running variance of 1e8, as a trained network may have, is absorbed: who converts the file
    to float16 can.
    """
    setup(seed=4)
    cell = build_network(SMALL)
    for parameter in cell.get_parameters():
        if "moving_variance" in parameter.name:
            parameter.set_data(ms.Tensor(np.full(parameter.shape, 1e8, np.float32)))
    model = onnx.load(to_onnx(cell, tmp_path / "v.onnx", SMALL))
    largest = max(
        np.abs(onnx.numpy_helper.to_array(tensor)).max() for tensor in model.graph.initializer
    )
    assert largest < 10 and np.isfinite(np.float16(largest))


def test_fixed_files_take_one_window(network, tmp_path):
    path = to_onnx(network, tmp_path / "f.onnx", SMALL, fixed=True)
    shape = [axis.dim_value for axis in onnx.load(path).graph.input[0].type.tensor_type.shape.dim]
    assert shape == [1, 2, 32, 32, 16]
    window = np.ones((1, 2, 32, 32, 16), np.float32)
    mindir = mindir_predictor(to_mindir(network, tmp_path / "f.mindir", SMALL, fixed=True))
    assert np.allclose(load_onnx(path)[0](window), mindir(window), atol=1e-5)


def test_files_are_ordinary_and_nothing_else_is_left(files):
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in files)
    assert sorted(path.name for path in files[0].parent.iterdir()) == ["a.mindir", "a.onnx"]


@pytest.mark.parametrize("write", [to_onnx, to_mindir])
def test_a_file_that_differs_is_refused_and_an_older_one_kept(
    write, network, tmp_path, monkeypatch
):
    """An exporter that loses a little: the last bias is gone."""
    path = tmp_path / f"a.{write.__name__.removeprefix('to_')}"
    path.write_bytes(b"older")
    bias = next(p for p in network.get_parameters() if p.name == "up4.batchNormal1.bn2d.beta")
    sound, defective = bias.asnumpy().copy(), bias.asnumpy() + 0.05
    place = (export, "load_onnx") if write is to_onnx else (export, "mindir_predictor")
    load = getattr(*place)

    def load_and_restore(part):
        loaded = load(part)
        bias.set_data(ms.Tensor(sound))
        return loaded

    monkeypatch.setattr(*place, load_and_restore)
    bias.set_data(ms.Tensor(defective))
    with pytest.raises(
        ExportError, match=f"{path.name}: expected the network's logits to within 0.0001"
    ):
        write(network, path, SMALL)
    assert path.read_bytes() == b"older" and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_layer_that_mindspore_cannot_write_as_onnx_is_named(tmp_path):
    setup(seed=5)
    config = SMALL.updated({"model": {"norm": "group", "channels": (2, 4, 4, 4, 8)}})
    with pytest.raises(
        ExportError, match="n.onnx: MindSpore cannot write this network as ONNX: .*GroupNorm"
    ) as caught:
        to_onnx(build_network(config), tmp_path / "n.onnx", config)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    assert to_mindir(build_network(config), tmp_path / "n.mindir", config).is_file()


def test_verify_refuses_other_shapes_and_what_is_not_a_number():
    shape, three_classes = (1, 4, 4, 4, 4), (1, 3, 4, 4, 4)
    for found, message in (
        (np.full(shape, np.nan), "difference of nan"),
        (np.ones(three_classes), "logits of shape"),
    ):
        with pytest.raises(ExportError, match=f"x.onnx: expected .*{message}"):
            export.verify(
                lambda batch, found=found: found,
                lambda batch: np.ones(shape),
                [shape, shape],
                "x.onnx",
            )


def test_export_checkpoint_names_the_file_after_the_configuration(network, tmp_path):
    save_checkpoint(network, tmp_path / "w.ckpt")
    config = SMALL.updated({"export": {"file_name": "lungs", "file_format": "MINDIR"}})
    assert export_checkpoint(tmp_path / "w.ckpt", config) == tmp_path / "lungs.mindir"
    assert export_checkpoint(tmp_path / "w.ckpt", config, tmp_path / "x.onnx").is_file()
    with pytest.raises(ValueError, match="ends in .onnx or .mindir, found"):
        export_checkpoint(tmp_path / "w.ckpt", config, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="ends in .onnx, found 'x.mindir'"):
        to_onnx(network, tmp_path / "x.mindir", config)


def test_group_norm_goes_to_mindir_only(tmp_path):
    config = Config.preset("quick").override(["model.norm=group", "model.channels=[2, 2, 4, 4, 8]"])
    network = build_network(config)
    with pytest.raises(ExportError, match="GroupNorm"):
        to_onnx(network, tmp_path / "a.onnx", config)
    assert to_mindir(network, tmp_path / "a.mindir", config).is_file()
