"""From files to masks: on the scan's own grid, and never over another file.

The scan may have any grid, and MindSpore is left out on request.
"""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from test_files_scans import AFFINE, OBLIQUE, as_itk, broken, chest, rotation, seeds, write_dicom
from test_predict_engines import tiny_onnx

from unet3d_tutorial.book.chapter import fresh_environment
from unet3d_tutorial.cli import main
from unet3d_tutorial.config import Config
from unet3d_tutorial.files.nifti import load_volume, save_mask, save_volume
from unet3d_tutorial.inference import segment
from unet3d_tutorial.metrics import dice
from unet3d_tutorial.phantom.recipe import generate
from unet3d_tutorial.predict import command as prediction
from unet3d_tutorial.predict.command import checkpoint_and_config, mask_jobs, scan_paths
from unet3d_tutorial.predict.engines import REQUIREMENTS
from unet3d_tutorial.runs import networks as trained
from unet3d_tutorial.runs.checkpoints import save_checkpoint
from unet3d_tutorial.sample_ct import SampleUnavailable, fetch
from unet3d_tutorial.transforms import Orientation
from unet3d_tutorial.volume import Volume

NATIVE = "data.spacing_mm=null"  # with small windows, nothing that takes time
SMALL = "inference.roi_size=[64,48,32]"


def threshold(batch: np.ndarray) -> np.ndarray:
    """In place of a trained network: air is left lung."""
    air = batch[:, :1] < 0.3
    return np.concatenate(
        [np.where(air, -5, 5), np.where(air, 5, -5), *[np.full_like(batch[:, :1], -9)] * 2], axis=1
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, and the threshold in place of a trained network."""
    monkeypatch.setattr(trained, "trained_predictor", lambda config, checkpoint: threshold)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def box_scan(affine=AFFINE) -> Volume:
    """Tissue with one box of air in it."""
    hu = np.full((60, 48, 30), 40, np.int16)
    hu[12:30, 10:30, 5:20] = -850
    return Volume(hu, affine)


# ------------------------------------------------------------------------------ files of every kind
@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("name", ["s.nii.gz", "s.mhd", "s.nrrd", "s"])
def test_the_mask_lies_on_the_scans_own_grid(name, affine, here, capsys):
    image = box_scan(affine)
    if name == "s":
        write_dicom(image, here / name)
    elif name == "s.nii.gz":
        save_volume(image, here / name)
    else:
        sitk.WriteImage(as_itk(image), name)
    assert main(["predict", name, "-o", "m.nii.gz", NATIVE, SMALL]) == 0
    mask = load_volume(here / "m.nii.gz")
    assert mask.array.dtype == np.uint8 and np.allclose(mask.affine, affine, atol=1e-3)
    assert np.array_equal(mask.array == 1, image.array < -500)
    millilitres = (image.array < -500).sum() * 1.5 * 1.25 * 3 / 1000
    assert (
        capsys.readouterr().out
        == f"m.nii.gz: left lung {millilitres:.0f} mL, right lung 0 mL, trachea 0 mL\n"
    )


def test_several_scans_and_patterns_go_to_a_folder(here, capsys):
    for number in range(3):
        save_volume(box_scan(), here / "ward" / f"p{number}.nii.gz")
    write_dicom(box_scan(), here / "d1")
    assert main(["predict", "ward/*.nii.gz", "d1", "-o", "masks", NATIVE, SMALL]) == 0
    assert sorted(path.name for path in (here / "masks").iterdir()) == [
        "d1.nii.gz",
        *(f"p{n}.nii.gz" for n in range(3)),
    ]
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_scan_that_cannot_be_used_does_not_stop_the_others(here, capsys):
    save_volume(box_scan(), here / "a.nii.gz")
    (here / "b.nii.gz").write_bytes(b"broken")
    save_volume(Volume(np.zeros((9, 9, 9), np.int16), AFFINE), here / "c.nii.gz")
    assert main(["predict", "b.nii.gz", "c.nii.gz", "a.nii.gz", "-o", "masks", NATIVE, SMALL]) == 2
    assert [path.name for path in (here / "masks").iterdir()] == ["a.nii.gz"]
    error = capsys.readouterr().err
    assert "b.nii.gz: expected NIfTI" in error and "c.nii.gz: expected a CT in HU" in error
    assert len(error.splitlines()) == 1


def test_broken_files_on_the_command_line(here, capsys):
    """525 broken files of every format: a mask and no word of complaint, or one line, exit code 2
    and no file at all.
    """
    rng, outcomes = np.random.default_rng(60), {0: 0, 2: 0}
    (here / "seeds").mkdir()
    for name, data in seeds(here / "seeds").items():
        for _ in range(105):
            path = here / "case" / name  # a slice is broken among sound ones
            path.write_bytes(broken(data, rng))
            scan = path.parent if path.suffix == ".dcm" else path
            code = main(
                ["predict", str(scan), "-o", "m.nii.gz", NATIVE, "inference.roi_size=[16,16,16]"]
            )
            told = capsys.readouterr()
            outcomes[code] += 1
            if code == 0:
                assert (
                    told.out.startswith("m.nii.gz: left lung")
                    and told.err == ""
                    and load_volume("m.nii.gz").array.size
                )
                (here / "m.nii.gz").unlink()
            else:
                assert told.out == "" and told.err.startswith("unet3d: ") and "case" in told.err, (
                    told
                )
                assert told.err.count("\n") == 1
            assert sorted(entry.name for entry in here.iterdir()) == ["case", "seeds"]
    assert sum(outcomes.values()) == 525 and outcomes[2] > 260 and outcomes[0] > 50, outcomes


# --------------------------------------------------------------------------- nothing is overwritten
def test_existing_files_are_kept_unless_told_otherwise(here, capsys):
    save_volume(box_scan(), here / "s.nii.gz")
    (here / "m.nii.gz").write_bytes(b"precious")
    assert main(["predict", "s.nii.gz", "-o", "m.nii.gz"]) == 2
    assert (
        here / "m.nii.gz"
    ).read_bytes() == b"precious" and "exists already" in capsys.readouterr().err
    assert main(["predict", "s.nii.gz", "-o", "m.nii.gz", "--overwrite", NATIVE, SMALL]) == 0
    assert load_volume(here / "m.nii.gz").array.any()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError("No space left on device")])
def test_a_folder_of_masks_that_was_interrupted_goes_on(stop, here, monkeypatch, capsys):
    for name in "abc":
        save_volume(box_scan(), here / "ward" / f"{name}.nii.gz")
    command, calls = ["predict", "ward/*.nii.gz", "-o", "masks", NATIVE, SMALL], []

    def write(mask, path):
        calls.append(path.name)
        if len(calls) == 2:
            raise stop
        return save_mask(mask, path)

    monkeypatch.setattr(prediction, "save_mask", write)
    assert main(command) != 0 and [path.name for path in (here / "masks").iterdir()] == ["a.nii.gz"]
    capsys.readouterr()
    assert main(command) == 0 and calls == ["a.nii.gz", "b.nii.gz", "b.nii.gz", "c.nii.gz"]
    kept, *made = capsys.readouterr().out.splitlines()
    assert (
        kept == "masks/a.nii.gz: kept, it exists already; --overwrite replaces it"
        and len(made) == 2
    )
    assert main([*command, "--overwrite"]) == 0 and calls[4:] == [
        "a.nii.gz",
        "b.nii.gz",
        "c.nii.gz",
    ]


def test_settings_may_follow_the_scans(here, capsys):
    save_volume(box_scan(), here / "s.nii.gz")
    assert main(["predict", "-o", "m.nii.gz", "s.nii.gz", NATIVE, SMALL]) == 0
    assert np.array_equal(load_volume(here / "m.nii.gz").array == 1, box_scan().array < -500)
    assert main(["predict", "-o", "n.nii.gz", "s.nii.gz", "inference.overlap=2"]) == 2
    assert (
        "inference.overlap: expected a number of at least 0 and below 1" in capsys.readouterr().err
    )
    (here / "data.n=1").mkdir()
    save_volume(box_scan(), here / "data.n=1" / "s.nii.gz")
    assert main(["predict", "-o", "n.nii.gz", "data.n=1/s.nii.gz", NATIVE, SMALL]) == 0
    with pytest.raises(SystemExit):
        main(["predict", "-o", "n.nii.gz", NATIVE])
    assert "the following arguments are required: SCAN" in capsys.readouterr().err


def test_a_folder_may_have_a_dot_in_its_name(here):
    (here / "a.nii.gz").touch()
    (here / "masks.2026").mkdir()
    assert [str(output) for _, output in mask_jobs(["a.nii.gz"], "masks.2026")] == [
        "masks.2026/a.nii.gz"
    ]


@pytest.mark.parametrize(
    ("scans", "output", "message"),
    [
        (["a/x.nii.gz", "b/x.mhd"], "o", "expected one scan for each mask"),
        (["a/x.nii.gz", "b/x.mhd"], "o.nii.gz", "expected a folder for 2 scans"),
        (["a/x.nii.gz"], "a", "would replace the scan"),
        (["a/x.nii.gz"], "a/x.nii.gz", "would replace the scan"),
        (["a/x.nii.gz"], "o.png", "expected a folder, or a name that ends in .nii.gz"),
        (["a/*.png"], "o", r"no such file: a/\*.png"),
    ],
)
def test_plans_that_cannot_be(scans, output, message, here):
    for path in ("a/x.nii.gz", "b/x.mhd"):
        (here / path).parent.mkdir(exist_ok=True)
        (here / path).touch()
    with pytest.raises((ValueError, OSError), match=message):
        mask_jobs(scans, output, overwrite=True)


def test_a_name_with_brackets_is_a_name(here):
    (here / "scan[1].nii").touch()
    assert [str(path) for path in scan_paths(["scan[1].nii"])] == ["scan[1].nii"]


def test_a_prediction_imports_no_more_than_it_needs():
    """Plots, training, event files and their own imports would cost seconds at each start."""
    code = (
        "import sys, unet3d_tutorial.predict.command, unet3d_tutorial.runs.networks; "
        "print(*sys.modules)"
    )
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    assert "mindspore" in loaded
    assert not loaded & {
        "matplotlib",
        "tensorboardX",
        "torch",
        "scipy.interpolate",
        "unet3d_tutorial.training",
        "onnx",
    }


def test_without_its_network_mindspore_is_not_imported():
    code = (
        "import sys, unet3d_tutorial.predict.command, unet3d_tutorial.evaluation; "
        "print('mindspore' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )


# -------------------------------------------------------------------- which network, which settings
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--backend", "onnx", "--checkpoint", "n.onnx", NATIVE],
            "expected (4.0, 4.0, 4.0), with which n.onnx was trained",
        ),
        (
            ["--backend", "onnx", "--checkpoint", "n.onnx", "--preset", "luna16"],
            "data.spacing_mm: expected (4.0, 4.0, 4.0)",
        ),
        (["--backend", "onnx"], "no such model: runs/quick/unet3d.onnx"),
        (
            ["--checkpoint", "run/unet3d.ckpt", "data.max_val=500"],
            "data.max_val: expected 400.0, with which run/unet3d.",
        ),
        (
            ["--backend", "310", "--checkpoint", "run/unet3d.ckpt"],
            "expected the device's result for this window",
        ),
    ],
)
def test_settings_that_the_network_was_not_trained_with_are_refused(
    arguments, message, here, capsys
):
    save_volume(box_scan(), here / "s.nii.gz")
    tiny_onnx("n.onnx", Config())
    (here / "run").mkdir()
    Config().save(here / "run" / "config.yaml")
    assert main(["predict", "s.nii.gz", "-o", "m.nii.gz", *arguments]) == 2
    assert message in capsys.readouterr().err and not (here / "m.nii.gz").exists()


def test_the_override_of_the_run_folder_says_whose_network_and_settings(here, capsys):
    for name, spacing in (("quick", 4), ("fine", 2)):
        config = Config().updated(
            {
                "data": {"spacing_mm": [spacing] * 3, "position": False},
                "model": {"in_channels": 1},
                "train": {"output_path": f"runs/{name}"},
            }
        )
        (here / "runs" / name).mkdir(parents=True)
        config.save(here / "runs" / name / "config.yaml")
        tiny_onnx(f"runs/{name}/unet3d.onnx", config, inputs=1)
    # Which the default configuration alone does not allow.
    fine = ["train.output_path=runs/fine", "data.position=false"]
    path, config = checkpoint_and_config(None, None, fine)
    assert (str(path), config.data.spacing_mm, config.train.output_path) == (
        "runs/fine/unet3d.ckpt",
        (2, 2, 2),
        "runs/fine",
    )
    save_volume(box_scan(), here / "s.nii.gz")
    for backend, name in (("mindspore", "unet3d.ckpt"), ("onnx", "unet3d.onnx")):
        arguments = ["--backend", backend, *fine, "data.spacing_mm=[4,4,4]"]
        assert main(["predict", "s.nii.gz", "-o", "m.nii.gz", *arguments]) == 2
        assert (
            f"expected (2.0, 2.0, 2.0), with which runs/fine/{name} was trained"
            in capsys.readouterr().err
        )


def test_a_checkpoint_of_another_network_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_volume(box_scan(), tmp_path / "s.nii.gz")
    narrow = trained.build_network(Config().updated({"model": {"channels": (2, 2, 2, 2, 2)}}))
    save_checkpoint(narrow, tmp_path / "w.ckpt")
    (tmp_path / "text.ckpt").write_bytes(b"no checkpoint")
    for name in ("w.ckpt", "text.ckpt"):
        assert main(["predict", "s.nii.gz", "-o", "m.nii.gz", "--checkpoint", name]) == 2
        error = capsys.readouterr().err
        assert error.startswith("unet3d: ") and name in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.nii.gz", "text.ckpt", "w.ckpt"]


def test_windows_for_a_device_and_its_answers_on_the_command_line(here, capsys):
    small = ["inference.roi_size=[32,32,16]", NATIVE]
    save_volume(box_scan(), here / "s.nii.gz")
    assert main(["export", "--windows", "s.nii.gz", *small]) == 0
    written = sorted((here / "preprocess_Result" / "00_data").iterdir())
    assert capsys.readouterr().out == f"preprocess_Result: {len(written)} windows\n"
    (here / "result_Files").mkdir()
    for path in written:
        logits = threshold(np.fromfile(path, np.float32).reshape(1, 2, 32, 32, 16))
        logits.astype(np.float32).tofile(here / "result_Files" / f"{path.stem}_0.bin")
    assert main(["predict", "s.nii.gz", "-o", "m.nii.gz", "--backend", "310", *small]) == 0
    assert np.array_equal(load_volume(here / "m.nii.gz").array == 1, box_scan().array < -500)


def test_windows_of_one_of_several_series(here, capsys):
    for uid in ("1.2.3.11", "1.2.3.12"):
        for file in write_dicom(box_scan(), here / uid, uid=uid):
            (here / "two").mkdir(exist_ok=True)
            file.rename(here / "two" / f"{uid}-{file.name}")
    command = ["export", "--windows", "two", "inference.roi_size=[32,32,16]", NATIVE]
    assert main(command) == 2 and "choose with --series" in capsys.readouterr().err
    assert (
        main([*command, "--series", "12"]) == 0 and "preprocess_Result: " in capsys.readouterr().out
    )


# -------------------------------------------------------------------------------- without MindSpore
def test_onnx_needs_no_mindspore(tmp_path):
    """In a fresh environment that has only what the deployment chapter names."""
    python = fresh_environment(tmp_path / "venv", REQUIREMENTS)
    tiny_onnx(
        tmp_path / "n.onnx",
        Config.from_dict({"data": {"spacing_mm": None}, "inference": {"roi_size": [32] * 3}}),
    )
    save_volume(Volume(chest((40, 36, 32)), OBLIQUE), tmp_path / "s.nii.gz")

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([python, *arguments], cwd=tmp_path, capture_output=True, text=True)

    def predict(scan: str, mask: str) -> subprocess.CompletedProcess:
        onnx = ("--backend", "onnx", "--checkpoint", "n.onnx")
        return run("-m", "unet3d_tutorial.cli", "predict", scan, "-o", mask, *onnx)

    assert "No module named 'mindspore'" in run("-c", "import mindspore").stderr
    done = predict("s.nii.gz", "m.nii.gz")
    assert (
        done.returncode == 0 and done.stdout.startswith("m.nii.gz: left lung") and not done.stderr
    )
    assert np.allclose(load_volume(tmp_path / "m.nii.gz").affine, OBLIQUE, atol=1e-4)
    failed = predict("n.onnx", "o.nii.gz")
    assert (
        failed.returncode == 2
        and len(failed.stderr.splitlines()) == 1
        and not (tmp_path / "o.nii.gz").exists()
    )


# ----------------------------------------------------------------------------------- the round trip
@pytest.fixture(scope="module")
def patient() -> Volume:
    """The real CT, every fourth voxel of a slice and every second slice; without it, a phantom."""
    try:
        whole = load_volume(fetch().image)
    except SampleUnavailable:
        whole, _ = generate(seed=1)
    steps = (4, 4, 2) if whole.array.size > 1e7 else (1, 1, 1)
    return Volume(
        whole.array[tuple(slice(None, None, step) for step in steps)],
        whole.affine @ np.diag([*steps, 1.0]),
    )


def lungs_by_threshold(batch: np.ndarray) -> np.ndarray:
    """Smooth scores: dark is lung, left or right by the position channel, both in place of a
    trained network.
    """
    dark, right = 9 * (0.45 - batch[:, 0]), 4 * batch[:, 1]
    return np.stack([-dark, dark - right, dark + right, np.full_like(dark, -9)], axis=1).astype(
        np.float32
    )


ALL_PIECES = Config.from_dict({"inference": {"largest_component": False}})


@pytest.fixture(scope="module")
def expected(patient) -> Volume:
    return segment(patient, lungs_by_threshold, ALL_PIECES)


@pytest.mark.parametrize("axes", ["LPS", "SAR", "PIL", "IRA", "ASL", "RPI"])
def test_flipped_and_permuted_axes_give_the_same_mask_to_the_voxel(axes, patient, expected):
    turned, _ = Orientation(axes)(patient)
    found = segment(turned, lungs_by_threshold, ALL_PIECES)
    assert found.axis_codes == axes and np.array_equal(found.affine, turned.affine)
    assert np.array_equal(Orientation(patient.axis_codes)(found)[0].array, expected.array)


def test_a_moved_header_gives_the_same_mask_to_the_voxel(patient, expected):
    moved = np.eye(4)
    moved[:3, 3] = 128, -64, 512
    found = segment(Volume(patient.array, moved @ patient.affine), lungs_by_threshold, ALL_PIECES)
    assert np.array_equal(found.array, expected.array) and np.allclose(
        found.affine, moved @ patient.affine
    )


@pytest.mark.parametrize("angles", [(8, 0, 0), (0, -8, 0), (0, 0, 8), (20, -11, 17)])
def test_a_turned_header_turns_the_mask_to_the_voxel(angles, patient, expected):
    """The working grid keeps the scan's own axes, and so does the position channel: the network
    sees the same.
    """
    turn = rotation(angles[0], 0) @ rotation(angles[1], 1) @ rotation(angles[2], 2)
    turned = Volume(patient.array, turn @ patient.affine)
    found = segment(turned, lungs_by_threshold, ALL_PIECES)
    assert np.array_equal(found.affine, turned.affine)
    assert np.array_equal(found.array, expected.array) and {1, 2} <= set(np.unique(found.array))


def test_a_scan_resampled_to_an_oblique_grid_gives_the_mask_in_the_same_place(patient, expected):
    scan, mask = (as_itk(volume) for volume in (patient, expected))
    oblique = rotation(15, 2) @ rotation(10, 0) @ np.diag([3.3, 3.6, 4.2, 1])
    grid = as_itk(Volume(np.zeros((110, 100, 90), np.int16), oblique))
    middle = np.array(scan.TransformContinuousIndexToPhysicalPoint([n / 2 for n in scan.GetSize()]))
    offset = middle - grid.TransformContinuousIndexToPhysicalPoint([n / 2 for n in grid.GetSize()])
    grid.SetOrigin(np.array(grid.GetOrigin()) + offset)
    resampled = sitk.Resample(scan, grid, sitk.Transform(), sitk.sitkLinear, -1000.0)
    affine = nib.affines.from_matvec(*_ras(resampled))
    found = segment(
        Volume(sitk.GetArrayFromImage(resampled).transpose(2, 1, 0), affine),
        lungs_by_threshold,
        ALL_PIECES,
    )
    resampled_mask = sitk.Resample(mask, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 255)
    there = sitk.GetArrayFromImage(resampled_mask).transpose(2, 1, 0)
    seen = there < 255
    assert seen.mean() > 0.5 and dice((found.array > 0) & seen, (there > 0) & seen) > 0.95


def _ras(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    flip = np.diag([-1.0, -1.0, 1.0])
    return flip @ (
        np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    ), flip @ image.GetOrigin()
