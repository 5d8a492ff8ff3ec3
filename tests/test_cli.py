"""The command line: files in, files out, one line and exit code 2 for what cannot work."""

import numpy as np
import pytest
import SimpleITK as sitk

from unet3d_tutorial import pipeline
from unet3d_tutorial.cli import main
from unet3d_tutorial.volume import Volume, load_volume, save_volume

AFFINE = np.array([[-1.5, 0, 0, 40], [0, -1.5, 0, 30], [0, 0, 3.0, -20], [0, 0, 0, 1]])


@pytest.fixture
def scan(tmp_path, monkeypatch):
    """A scan whose air is a box, and in place of the trained network one that calls air the left lung."""
    def threshold(batch: np.ndarray) -> np.ndarray:
        air = batch[:, :1] < 0.3
        return np.concatenate([np.where(air, -5, 5), np.where(air, 5, -5), *[np.full_like(batch[:, :1], -9)] * 2], axis=1)

    monkeypatch.setattr(pipeline, "trained_predictor", lambda config, checkpoint: threshold)
    hu = np.full((60, 48, 30), 40, np.int16)
    hu[12:30, 10:30, 5:20] = -850
    return save_volume(Volume(hu, AFFINE), tmp_path / "scan.nii.gz")


def test_predict_writes_the_mask_on_the_scans_grid(scan, tmp_path, capsys):
    output = tmp_path / "mask.nii.gz"
    assert main(["predict", str(scan), "-o", str(output), "data.spacing_mm=null"]) == 0
    mask, image = load_volume(output), load_volume(scan)
    assert mask.array.dtype == np.uint8 and np.allclose(mask.affine, image.affine)
    assert np.array_equal(mask.array == 1, image.array < -500)
    millilitres = (image.array < -500).sum() * 1.5 * 1.5 * 3 / 1000
    assert f"left lung {millilitres:.0f} mL" in capsys.readouterr().out
    assert main(["predict", str(scan), "-o", str(output)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["predict", str(scan), "-o", str(output), "--overwrite"]) == 0


def test_predict_reads_metaimage(scan, tmp_path):
    image = load_volume(scan)
    written = sitk.GetImageFromArray(image.array.transpose(2, 1, 0))
    written.SetSpacing(image.spacing_mm)
    written.SetOrigin([-40.0, -30.0, -20.0])
    sitk.WriteImage(written, str(tmp_path / "scan.mhd"))
    assert main(["predict", str(tmp_path / "scan.mhd"), "-o", str(tmp_path / "m.nii.gz"), "data.spacing_mm=null"]) == 0
    mask = load_volume(tmp_path / "m.nii.gz")
    assert np.allclose(mask.affine, image.affine, atol=1e-4) and np.array_equal(mask.array == 1, image.array < -500)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "none.nii.gz", "-o", "m.nii.gz"], "no such file: none.nii.gz"),
        (["predict", "none.nii.gz", "-o", "m.png"], "ends in .nii.gz"),
        (["train", "train.lrr=1"], "did you mean 'lr'"),
        (["train", "data.data_path=nowhere"], "nowhere/train/image: expected .nii.gz files, found none"),
        (["data", "luna16", "nowhere", "somewhere", "--no-fetch"], "nowhere is not in LUNA16's layout"),
        (["data", "luna16", "nowhere", "somewhere", "--subsets", "10"], "expected numbers from 0 to 9, found 10"),
        (["data", "check", "nowhere"], "nowhere: expected .nii.gz files in image and seg"),
        (["data", "phantom", "--n", "3"], "at least 20 phantoms"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("unet3d: ") and len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["train", "--fast"], ["train", "word"], ["data", "sample", "train.lr=1"]])
def test_unknown_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and f"unrecognized arguments: {arguments[-1]}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["data"], ["train"], ["evaluate"], ["predict"], ["data", "phantom"],
                                     ["data", "luna16"], ["data", "check"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "-h"])
    assert stop.value.code == 0 and "usage: unet3d" in capsys.readouterr().out
