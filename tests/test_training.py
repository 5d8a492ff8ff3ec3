"""Training: repeatable to the bit, written whole, and clear when something does not fit. A tiny network on tiny volumes."""

import numpy as np
import pytest

from unet3d_tutorial.config import Config
from unet3d_tutorial.training import FINAL, build_network, load_network, load_result, predictor, train
from unet3d_tutorial.volume import Volume, save_volume


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Volumes with a bright left and a dark right half, labelled 3 and 4, and a corner of 5."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    for split, count in (("train", 4), ("val", 1)):
        for number in range(count):
            label = np.full((32, 16, 16), 3, np.uint8)
            label[16:] = 4
            label[:8, :8, :8] = 5
            image = (np.select([label == 3, label == 4], [-800, 0], 300) + rng.normal(0, 20, label.shape)).astype(np.int16)
            save_volume(Volume(image, affine), folder / split / "image" / f"{number}.nii.gz")
            save_volume(Volume(label, affine), folder / split / "seg" / f"{number}.nii.gz")
    return folder


def config(data, output, *overrides) -> Config:
    small = ["data.roi_size=[32, 16, 16]", "inference.roi_size=[32, 16, 16]", "model.channels=[4, 4, 8, 8, 16]",
             "train.epoch_size=3", "train.warmup_step=1", "train.validate_every=2", "data.augment=false"]
    return Config.preset("quick").override([f"data.data_path={data}", f"train.output_path={output}", *small, *overrides])


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    settings = config(data, tmp_path_factory.mktemp("run") / "one")
    return settings, train(settings)


def test_same_seed_same_bits_other_seed_others(run, data, tmp_path):
    _, first = run
    again = train(config(data, tmp_path / "again"))
    other = train(config(data, tmp_path / "other", "train.seed=2"))
    assert again.checkpoint.read_bytes() == first.checkpoint.read_bytes()
    assert again.history["loss"] == first.history["loss"] and again.validation == first.validation
    assert other.history["loss"] != first.history["loss"]


def test_history_is_complete_and_the_loss_falls(run):
    settings, result = run
    assert result.history["step"] == list(range(6)) and result.validation["step"] == [2, 4, 6]
    assert result.history["lr"][1] == pytest.approx(settings.train.lr)
    total = np.add(result.history["ce"], result.history["dice"])
    assert result.history["loss"] == pytest.approx(total, rel=1e-5)
    assert result.history["loss"][-1] < result.history["loss"][0]


def test_only_the_newest_checkpoints_are_kept_and_nothing_is_half_written(run):
    _, result = run
    names = sorted(path.name for path in result.checkpoint.parent.iterdir())
    assert names == ["config.yaml", "history.csv", "step-00004.ckpt", "step-00006.ckpt", FINAL, "validation.csv"]


def test_a_finished_run_is_read_back_and_never_replaced_by_another(run, data):
    settings, result = run
    before = result.checkpoint.stat().st_mtime_ns
    assert train(settings) == result and result.checkpoint.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="holds a run of another configuration"):
        train(settings.override(["train.lr=1e-4"]))


def test_an_unfinished_run_starts_anew(data, tmp_path):
    settings = config(data, tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "history.csv").write_text("step,lr\n0,0.1\n")
    assert train(settings).history["step"] == list(range(6))


def test_missing_data_leave_an_older_run_untouched(run, tmp_path):
    settings, result = run
    kept = tmp_path / "run"
    kept.mkdir()
    (kept / "note.txt").write_text("kept")
    with pytest.raises(FileNotFoundError, match="train/image: expected .nii.gz files"):
        train(config(tmp_path / "nothing", kept))
    assert (kept / "note.txt").exists()


def test_the_loaded_network_is_in_evaluation_mode_and_repeats_itself(run):
    settings, result = run
    network = load_network(settings, result.checkpoint)
    batch = np.random.default_rng(0).random((2, 2, 32, 16, 16)).astype(np.float32)
    both = predictor(network)(batch)
    assert not network.training and both.shape == (2, 4, 32, 16, 16)
    # a scan's result does not depend on its neighbour in the batch
    assert np.allclose(both[:1], predictor(network)(batch[:1]), atol=1e-5)


def test_checkpoints_that_do_not_fit_are_named(run, tmp_path):
    settings, result = run
    with pytest.raises(FileNotFoundError, match="no such checkpoint: .*none.ckpt"):
        load_network(settings, tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ValueError, match="text.ckpt is not a MindSpore checkpoint"):
        load_network(settings, tmp_path / "text.ckpt")
    with pytest.raises(ValueError, match="is of another network than ResidualUNet3D: .*expected"):
        load_network(settings.override(["model.channels=[8, 8, 8, 8, 16]"]), result.checkpoint)


def test_the_result_of_a_folder(run):
    _, result = run
    assert load_result(result.checkpoint.parent) == result


def test_the_case_has_its_number_of_parameters():
    network = build_network(Config.preset("luna16"))
    assert sum(p.size for p in network.trainable_params()) == 4_809_257
