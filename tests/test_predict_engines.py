"""Running an exported network.

ONNX Runtime refuses what it cannot vouch for; a device that trades files gives the same.
"""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from test_files_scans import AFFINE, chest

from unet3d_tutorial.config import Config
from unet3d_tutorial.inference import segment
from unet3d_tutorial.predict.engines import (
    CONFIG_KEY,
    check_trained_with,
    dump_config,
    load_onnx,
    parse_config,
    read_results,
    write_windows,
)
from unet3d_tutorial.volume import Volume

CONFIG = Config.from_dict({"inference": {"roi_size": [16, 16, 16]}})


def tiny_onnx(path, config=CONFIG, *, inputs=2, outputs=4, **metadata):
    """A network of one 1 x 1 x 1 convolution: dark voxels are left lung, the others background."""
    weight = np.zeros((outputs, inputs, 1, 1, 1), np.float32)
    weight[0, 0], weight[1, 0] = 9, -9
    bias = np.array([-3.0, 3.0, -9.0, -9.0], np.float32)[:outputs]
    x = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", inputs, "D", "H", "W"])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", outputs, "D", "H", "W"])
    weights = [onnx.numpy_helper.from_array(weight, "w"), onnx.numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w", "b"], ["logits"])], "tiny", [x], [y], weights
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=4)
    helper.set_model_props(model, metadata or {CONFIG_KEY: dump_config(config)})
    onnx.save(model, path)
    return path


def scan() -> Volume:
    return Volume(chest((80, 70, 30)), AFFINE)


def test_load_onnx_gives_predictor_and_configuration(tmp_path):
    network, config = load_onnx(tiny_onnx(tmp_path / "a.onnx"))
    logits = network(np.zeros((3, 2, 5, 6, 7)))
    assert (
        logits.shape == (3, 4, 5, 6, 7) and logits.dtype == np.float32 and (logits[:, 1] == 3).all()
    )
    assert config.inference == CONFIG.inference


def test_load_onnx_refuses_what_it_cannot_vouch_for(tmp_path):
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    cases = [
        ("noise.onnx", None, "is not an ONNX model"),
        ("bare.onnx", {"author": "x"}, "found no unet3d_tutorial.config in its metadata"),
        ("odd.onnx", {CONFIG_KEY: "data: {spacing: 3}"}, "its configuration cannot be read"),
        ("list.onnx", {CONFIG_KEY: "[1]"}, "its configuration cannot be read"),
    ]
    for name, metadata, message in cases:
        path = tmp_path / name
        if metadata:
            tiny_onnx(path, **metadata)
        with pytest.raises(ValueError, match=message) as caught:
            load_onnx(path)
        assert name in str(caught.value)
    with pytest.raises(ValueError, match=r"of \[2, 4\] channels, found \[\[1\], \[4\]\]"):
        load_onnx(tiny_onnx(tmp_path / "one.onnx", inputs=1))
    with pytest.raises(FileNotFoundError, match="no such model"):
        load_onnx(tmp_path / "none.onnx")


@pytest.mark.parametrize("preset", ["quick", "luna16"])
def test_configuration_goes_along_unchanged(preset):
    config = Config.preset(preset)
    back = parse_config(dump_config(config), "x")
    assert (back.data, back.model, back.inference) == (config.data, config.model, config.inference)


@pytest.mark.parametrize(
    "override", ["data.spacing_mm=[3,3,3]", "data.max_val=500", "model.channels=[4,8,16,32,64]"]
)
def test_what_a_network_was_trained_with_must_agree(override):
    with pytest.raises(
        ValueError, match=f"{override.split('=')[0]}: expected .*with which x.onnx was trained"
    ):
        check_trained_with(CONFIG.override([override]), CONFIG, "x.onnx")
    check_trained_with(
        CONFIG.override(["inference.overlap=0.5", "train.lr=1", "data.data_path=here"]),
        CONFIG,
        "x.onnx",
    )


def device(windows, results, network) -> None:
    """The zoo's program as seen from outside: each file of 00_data becomes a file of its first
    output, in any order.
    """
    results.mkdir()
    for path in sorted((windows / "00_data").iterdir()):
        window = np.fromfile(path, np.float32).reshape(1, 2, 16, 16, 16)
        network(window).astype(np.float32).tofile(results / f"{path.stem}_0.bin")


def test_windows_through_files_give_the_same_mask(tmp_path):
    network, config = load_onnx(tiny_onnx(tmp_path / "a.onnx"))
    written = write_windows(scan(), tmp_path / "preprocess_Result", config)
    assert len(written) > 8 and all(path.stat().st_size == 4 * 2 * 16**3 for path in written)
    places = [str(path.relative_to(tmp_path)) for path in written]
    assert places == [
        f"preprocess_Result/00_data/unet3d_bs1_bt0_{n}.bin" for n in range(len(written))
    ]
    assert np.fromfile(written[0], np.float32).size == 2 * 16**3 and sorted(
        tmp_path.rglob("*.bin")
    ) == sorted(written)
    device(tmp_path / "preprocess_Result", tmp_path / "result_Files", network)
    found = read_results(scan(), tmp_path / "result_Files", config)
    expected = segment(scan(), network, config)
    assert np.array_equal(found.array, expected.array) and (expected.array == 1).any()
    with pytest.raises(FileExistsError, match="expected an empty folder"):
        write_windows(scan(), tmp_path / "preprocess_Result", config)


def test_results_that_are_missing_cut_or_of_another_scan_are_refused(tmp_path):
    network, config = load_onnx(tiny_onnx(tmp_path / "a.onnx"))
    folder = tmp_path / "r"
    last = write_windows(scan(), tmp_path / "w", config)[-1]
    device(tmp_path / "w", folder, network)
    result = folder / f"{last.stem}_0.bin"
    (folder / "unet3d_bs1_bt0_9999_0.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="are they another scan's"):
        read_results(scan(), folder, config)
    (folder / "unet3d_bs1_bt0_9999_0.bin").unlink()
    result.write_bytes(result.read_bytes()[:-4])
    with pytest.raises(ValueError, match=rf"{result.name}: expected 65536 bytes.*found 65532"):
        read_results(scan(), folder, config)
    result.unlink()
    with pytest.raises(ValueError, match=f"{result.name}: expected the device's result"):
        read_results(scan(), folder, config)
