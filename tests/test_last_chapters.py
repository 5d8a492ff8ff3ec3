"""What the last chapters measure and draw, on volumes small enough to do by hand."""

import doctest
from pathlib import Path

import numpy as np
import onnx
import pytest
from matplotlib.figure import Figure
from onnx import TensorProto, helper

from unet3d_tutorial.book import cases, evaluation, evaluation_figures
from unet3d_tutorial.book.evaluation import (
    MetricPair,
    ball,
    crop_to_labels,
    in_words,
    mean_dice,
    structure_dice,
    there_and_back,
    without_first_slices,
)
from unet3d_tutorial.book.export import (
    in_half_precision,
    input_axes,
    largest_number,
    operation_counts,
)
from unet3d_tutorial.book.timing import measure_seconds
from unet3d_tutorial.config import Config
from unet3d_tutorial.evaluation import evaluate
from unet3d_tutorial.files.nifti import save_volume
from unet3d_tutorial.inference import window_slices
from unet3d_tutorial.sample_ct import SampleUnavailable
from unet3d_tutorial.volume import Volume

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


def chest() -> tuple[Volume, Volume]:
    """Image and labels ``(12, 10, 8)``: two boxes of air, and an airway between them."""
    labels = np.zeros((12, 10, 8), np.uint8)
    labels[1:5, 2:8, 1:7] = 1
    labels[7:11, 2:8, 1:7] = 2
    labels[5:7, 4:6, 1:7] = 3
    hu = np.where(labels > 0, np.int16(-800), np.int16(40))
    return Volume(hu, AFFINE), Volume(labels, AFFINE)


# --------------------------------------------------------------------------------------- the scans


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A data folder with two held-out cases."""
    image, labels = chest()
    for name in ("phantom-1", "phantom-2"):
        for kind, volume in (("image", image), ("seg", labels)):
            folder = tmp_path / "val" / kind
            folder.mkdir(parents=True, exist_ok=True)
            save_volume(volume, folder / f"{name}.nii.gz")
    limits = ["data.lower_limit=1", "data.upper_limit=3"]
    return Config.preset("quick").override([f"data.data_path={tmp_path}", *limits])


def test_a_held_out_case_has_its_image_and_its_classes(config: Config) -> None:
    image, labels = cases.held_out_case(config, "phantom-2")
    assert np.array_equal(image.array, chest()[0].array)
    assert np.array_equal(labels.array, chest()[1].array)
    with pytest.raises(KeyError, match="phantom-3"):
        cases.held_out_case(config, "phantom-3")


def test_without_the_real_ct_the_first_phantom_takes_its_place(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unavailable() -> None:
        raise SampleUnavailable("no network")

    monkeypatch.setattr(cases, "fetch", unavailable)
    name, image_file, _ = cases.example_files(config)
    assert (name, image_file.name) == (cases.PHANTOM, "phantom-1.nii.gz")
    assert capsys.readouterr().out == "no network\n"
    name, image, labels = cases.example_case(config)
    assert name == cases.PHANTOM and image.array.shape == labels.array.shape


# -------------------------------------------------------------------------------------- the numbers


def test_examples() -> None:
    assert doctest.testmod(evaluation).failed == 0


def test_dice_of_each_structure() -> None:
    _, labels = chest()
    prediction = labels.array.copy()
    prediction[prediction == 3] = 0
    dices = structure_dice(prediction, labels.array)
    assert dices == {"left lung": 1.0, "right lung": 1.0, "trachea": 0.0}
    assert in_words(dices, digits=1) == "left lung 1.0, right lung 1.0, trachea 0.0"


def test_mean_dice_of_a_case_is_over_its_structures() -> None:
    _, labels = chest()
    without_trachea = Volume(np.where(labels.array == 3, 0, labels.array), AFFINE)
    scores = {"whole": evaluate(labels, labels), "missed": evaluate(without_trachea, labels)}
    assert mean_dice(scores) == pytest.approx({"whole": 1, "missed": 2 / 3})


def test_a_ball_has_the_volume_of_a_ball() -> None:
    assert ball(24).sum() * 8 == pytest.approx(4 / 3 * np.pi * 24**3, rel=0.02)
    moved = np.argwhere(ball(10, (-32, 0, 16))).mean(axis=0) - np.argwhere(ball(10)).mean(axis=0)
    assert moved.tolist() == [-16, 0, 8]


def test_a_pair_of_metrics_prefers_what_is_better_by_each() -> None:
    organ = ball(24)
    pair = MetricPair("dice", "hd95", organ, organ | ball(10, (-32, -32, 0)), ball(26))
    assert pair.preferred("dice") == "A" and pair.preferred("hd95") == "B"
    a, b = pair.values("hd95")
    assert a > b


def test_a_cropped_volume_stays_where_it_is() -> None:
    _, labels = chest()
    box = crop_to_labels(labels, margin=1)
    assert np.array_equal(box.array, labels.array[:, 1:9])
    assert box.affine[:3, 3].tolist() == [0, 4, 0]
    rest = without_first_slices(labels, 5)
    assert np.array_equal(rest.array, labels.array[5:])
    assert rest.affine[:3, 3].tolist() == [20, 0, 0]


def test_labels_come_back_whole_from_their_own_grid_only() -> None:
    _, labels = chest()
    assert np.array_equal(there_and_back(labels, 4.0), labels.array)
    assert not np.array_equal(there_and_back(labels, 8.0), labels.array)


def test_each_call_is_measured() -> None:
    calls: list[str] = []
    seconds = measure_seconds(calls.append, "called", repeats=3)
    assert calls == ["called"] * 3
    assert len(seconds) == 3 and min(seconds) >= 0


# -------------------------------------------------------------------------------------- the figures


def panels(figure: Figure) -> int:
    return len(figure.axes)


def test_windows_and_weights() -> None:
    image, _ = chest()
    prepared = Volume(image.array[None].astype(np.float32), AFFINE)
    windows = window_slices(image.array.shape, (8, 8, 8), 0.25)
    counts = np.ones(image.array.shape, int)
    figure = evaluation_figures.show_window_order(prepared, windows, counts)
    assert panels(figure) == 3  # the colour bar is one
    assert len(figure.axes[0].patches) == 2
    blended = {"constant": image.array, "gaussian": image.array}
    assert panels(evaluation_figures.show_window_weights(prepared, (8, 8, 8), blended)) == 3


def test_outlines() -> None:
    image, labels = chest()
    masks = {"reference": labels.array, "network": labels.array}
    assert panels(evaluation_figures.show_lung_border(image, masks)) == 2
    no_airway = np.where(labels.array == 3, 0, labels.array)
    masks = {"reference": labels.array, "before": no_airway, "after": no_airway}
    figure = evaluation_figures.show_airway(image, masks)
    assert [axis.get_title() for axis in figure.axes] == list(masks)


def test_metrics_steps_ceilings_and_trials() -> None:
    image, labels = chest()
    pair = MetricPair("dice", "hd95", ball(24), ball(20), ball(26))
    assert panels(evaluation_figures.show_metric_pairs([pair, pair])) == 4
    steps = {"air": labels.array > 0, "names": labels.array.astype(int)}
    nothing = np.zeros(labels.array.shape, bool)
    assert panels(evaluation_figures.show_baseline_steps(image, steps, nothing)) == 2
    dices = structure_dice(labels.array, labels.array)
    ceiling = {2.0: dices, 4.0: dices}
    assert panels(evaluation_figures.show_ceiling(ceiling, 4.0, dices)) == 1
    assert panels(evaluation_figures.show_hu_scores(1.0)) == 1
    trials = {"as it is": (image, labels, Config.preset("quick"))}
    assert panels(evaluation_figures.show_trials(trials, {"as it is": labels})) == 1


# ----------------------------------------------------------------------------------------- the file


@pytest.fixture
def model() -> onnx.ModelProto:
    """``y = 3 x``, for batches of any size."""
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [2, 2], [3.0, 0.0, 0.0, 3.0])
    shift = helper.make_tensor("shift", TensorProto.FLOAT, [2], [0.0, 0.0])
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Add", ["product", "shift"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "triple", [rows], [result], [weight, shift])
    opset = helper.make_opsetid("", 11)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def test_what_an_onnx_file_holds(model: onnx.ModelProto) -> None:
    assert operation_counts(model) == {"MatMul": 1, "Add": 1}
    assert input_axes(model) == ["batch", 2]
    assert largest_number(model) == (3.0, "weight")


def test_half_precision_still_takes_and_gives_float32(
    model: onnx.ModelProto, tmp_path: Path
) -> None:
    onnx.save(model, tmp_path / "triple.onnx")
    triple, size = in_half_precision(tmp_path / "triple.onnx")
    result = triple(np.array([[1, 2]], np.float32))
    assert result.dtype == np.float32 and result.tolist() == [[3, 6]]
    assert size > 0
