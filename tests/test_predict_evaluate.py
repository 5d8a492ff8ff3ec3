"""A run scored: what is written, what is read back, and what happens without the real CT."""

import csv
import json
import math

import numpy as np
import pytest

from unet3d_tutorial import inference
from unet3d_tutorial.cli import main
from unet3d_tutorial.config import Config
from unet3d_tutorial.files.nifti import load_volume, save_volume
from unet3d_tutorial.labels import STRUCTURES
from unet3d_tutorial.predict import evaluate as pipeline
from unet3d_tutorial.sample_ct import SampleUnavailable
from unet3d_tutorial.view.figures import score_box_rows
from unet3d_tutorial.volume import Volume


def threshold(batch):
    """Air is left lung, everything else background: right lung and trachea are always missed."""
    air = batch[:, :1] < 0.3
    return np.concatenate(
        [np.where(air, -5, 5), np.where(air, 5, -5), *[np.full_like(batch[:, :1], -9)] * 2], axis=1
    )


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Settings of a run with two held-out scans; no real CT, and the threshold in the network's
    place.
    """

    def unavailable():
        raise SampleUnavailable("no sample CT here")

    monkeypatch.setattr(pipeline, "fetch", unavailable)
    monkeypatch.setattr(pipeline, "trained_predictor", lambda config, checkpoint: threshold)
    for number in (1, 2):
        hu, label = np.full((40, 36, 30), 40, np.int16), np.zeros((40, 36, 30), np.uint8)
        label[6 : 16 + number, 8:26, 6:24], label[26:34, 8:26, 6:24] = 3, 4
        hu[label == 3] = -850
        for kind, array in (("image", hu), ("seg", label)):
            save_volume(
                Volume(array, np.diag([4.0, 4, 4, 1])),
                tmp_path / "data" / "val" / kind / f"scan-{number}.nii.gz",
            )
    (tmp_path / "run").mkdir()
    return Config().updated(
        {
            "data": {"data_path": str(tmp_path / "data")},
            "train": {"output_path": str(tmp_path / "run")},
            "inference": {"roi_size": (48, 48, 48)},
        }
    )


def test_a_run_is_scored_case_by_case(run, tmp_path):
    text = pipeline.evaluate_run(run)
    folder = tmp_path / "run"
    assert sorted(path.name for path in folder.iterdir()) == [
        "evaluation.csv",
        "evaluation.json",
        "evaluation.png",
    ]
    assert "no sample CT here" in text and "2 of 2" in text and "nan" not in text
    cases = pipeline.load_cases(folder)[pipeline.HELD_OUT]["network, raw"]
    assert list(cases) == ["scan-1", "scan-2"]
    assert all(rows[0].dice > 0.9 and rows[0].missed == 0 for rows in cases.values())
    assert all(rows[1].hd95_mm == math.inf and rows[1].missed == 1 for rows in cases.values())
    left, right, trachea = pipeline.load_evaluation(folder)[pipeline.HELD_OUT]["network, raw"]
    assert math.isfinite(left.hd95_mm) and (right.missed, trachea.missed) == (2, 0)
    with (folder / "evaluation.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 3 * 2 * len(STRUCTURES)

    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    json.loads((folder / "evaluation.json").read_text(encoding="utf-8"), parse_constant=refuse)


def test_masks_of_classes_are_refused_by_name(run, tmp_path):
    path = tmp_path / "data" / "val" / "seg" / "scan-2.nii.gz"
    label = load_volume(path)
    save_volume(
        Volume(np.where(label.array > 0, label.array - 2, 0).astype(np.uint8), label.affine), path
    )
    with pytest.raises(
        ValueError, match="seg/scan-2.nii.gz: expected label values from 3 to 5, found the classes"
    ):
        pipeline.evaluate_run(run)


def test_a_run_is_scored_with_the_settings_that_it_was_trained_with(
    run, tmp_path, monkeypatch, capsys
):
    """In an empty working folder, the run moved since; a setting of another network is refused, as
    in a prediction.
    """
    seen = []

    def segment(image, network, config):
        seen.append((config.data.spacing_mm, config.data.min_val))
        return inference.segment(image, network, config)

    monkeypatch.setattr(pipeline, "segment", segment)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    run.updated(
        {"data": {"spacing_mm": (5, 5, 5), "min_val": -1350}, "train": {"output_path": "runs/then"}}
    ).save(tmp_path / "run" / "config.yaml")
    command = [
        "evaluate",
        "--checkpoint",
        str(tmp_path / "run" / "unet3d.ckpt"),
        "--cases",
        str(tmp_path / "data" / "val"),
    ]
    assert main(command) == 0 and set(seen) == {((5, 5, 5), -1350)}
    assert (tmp_path / "run" / "evaluation-val.json").is_file() and not list(
        (tmp_path / "work").iterdir()
    )
    assert main([*command, "--preset", "quick"]) == 2
    assert "data.spacing_mm: expected (5.0, 5.0, 5.0), with which" in capsys.readouterr().err


def test_the_results_have_a_folder_before_the_work_begins(run, tmp_path, monkeypatch, capsys):
    """A checkpoint alone, a folder that is not there yet, and one that cannot be."""
    command = [
        "evaluate",
        "--checkpoint",
        str(tmp_path / "x.ckpt"),
        "--cases",
        str(tmp_path / "data" / "val"),
        "inference.roi_size=[48, 48, 48]",
    ]
    assert main([*command, f"train.output_path={tmp_path}/new/results"]) == 0
    assert (tmp_path / "new" / "results" / "evaluation-val.csv").is_file()
    monkeypatch.setattr(pipeline, "segment_all", lambda *_: pytest.fail("worked in vain"))
    (tmp_path / "file").touch()
    assert (
        main([*command, f"train.output_path={tmp_path}/file/results"]) == 2
        and "file" in capsys.readouterr().err
    )
    settings = [f"data.data_path={tmp_path}/none", f"train.output_path={tmp_path}/run"]
    assert main(["evaluate", *settings]) == 2
    assert "none/val/image: expected .nii.gz files, found none" in capsys.readouterr().err


def test_box_plots_of_every_data_set(run, tmp_path):
    """Two data sets of which the first has one case: two rows of panels, each with its name and its
    points.
    """
    pipeline.evaluate_run(run)
    methods = pipeline.load_cases(tmp_path / "run")[pipeline.HELD_OUT]
    one = {method: {"scan-1": cases["scan-1"]} for method, cases in methods.items()}
    axes = score_box_rows({pipeline.REAL: one, pipeline.HELD_OUT: methods}).axes
    assert [axis.get_title() for axis in axes] == [pipeline.REAL] * 2 + [pipeline.HELD_OUT] * 2
    points = [
        sum(line.get_marker() == "." and len(line.get_xdata()) for line in axis.lines)
        for axis in axes
    ]
    assert points[2] == 2 * points[0] == 2 * len(methods) * len(STRUCTURES)


def test_the_cases_of_a_folder(run, tmp_path, capsys):
    settings = [
        f"data.data_path={tmp_path}/data",
        f"train.output_path={tmp_path}/run",
        "inference.roi_size=[48, 48, 48]",
    ]
    assert main(["evaluate", "--cases", str(tmp_path / "data" / "val"), *settings]) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "evaluation-val.csv",
        "evaluation-val.json",
        "evaluation-val.png",
    }
    printed = " ".join(capsys.readouterr().out.split())
    assert "| network, raw | right lung | HD95 (mm) | missed |" in printed
    assert main(["evaluate", "--cases", str(tmp_path / "none"), *settings]) == 2
    assert "none/image: expected .nii.gz files, found none" in capsys.readouterr().err
