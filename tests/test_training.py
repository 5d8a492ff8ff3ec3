"""Training: repeatable to the bit, written whole, and clear when something does not fit.

A tiny network on tiny volumes.
"""

import json
import multiprocessing
import shutil
import threading
from contextlib import nullcontext

import numpy as np
import pytest
from mindspore import ops

from runs import settings as config
from runs import write_data
from unet3d_tutorial.config import WITHOUT_EFFECT, Config
from unet3d_tutorial.dataset import batch_names, validation_cases
from unet3d_tutorial.runs.checkpoints import STATE, load_state, read_checkpoint
from unet3d_tutorial.runs.store import FsspecStore
from unet3d_tutorial.training import (
    FINAL,
    Run,
    build_network,
    load_network,
    load_result,
    predictor,
    train,
    validate,
)
from unet3d_tutorial.training_step import TrainStep


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


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
    structures = np.array([result.history[name] for name in ("left lung", "right lung", "trachea")])
    assert structures.min() > 0 and structures.max() < 1
    # The loss is a mean over four classes.
    background = 4 * (1 - np.array(result.history["dice"])) - structures.sum(axis=0)
    assert background.min() > 0 and background.max() < 1 + 1e-6


def test_only_the_newest_checkpoints_are_kept_and_nothing_is_half_written(run):
    _, result = run
    names = sorted(path.name for path in result.checkpoint.parent.iterdir())
    assert names == [
        "best.ckpt",
        "config.yaml",
        "events",
        "history.csv",
        "last.ckpt",
        "lock",
        "step-00004.ckpt",
        "step-00006.ckpt",
        FINAL,
        "validation.csv",
    ]


def test_the_best_checkpoint_is_that_of_the_best_validation(run):
    settings, result = run
    means = np.mean(
        [result.validation[name] for name in ("left lung", "right lung", "trachea")], axis=0
    )
    best = int(result.validation["step"][int(means.argmax())])
    folder = result.checkpoint.parent
    assert json.loads(read_checkpoint(folder / "best.ckpt")[STATE])["state"]["step"] == best
    case = [next(iter(validation_cases(settings)))]
    found = validate(load_network(settings, folder / "best.ckpt"), settings, case)
    assert np.mean(found) == means.max()


def test_a_finished_run_is_read_back_and_never_replaced_by_another(run, data):
    settings, result = run
    before = result.checkpoint.stat().st_mtime_ns
    assert train(settings) == result and result.checkpoint.stat().st_mtime_ns == before
    with pytest.raises(
        ValueError,
        match=r"holds a run of another configuration \(train.lr is 0.003 there, 0.0001 here\)",
    ):
        train(settings.override(["train.lr=1e-4"]))


def test_the_same_command_repeats_a_last_upload_that_failed(run, data, tmp_path, monkeypatch):
    settings = config(data, tmp_path / "run", f"remote.train_url=file://{tmp_path / 'store'}")
    shutil.copytree(run[1].checkpoint.parent, tmp_path / "run")
    settings.save(tmp_path / "run" / "config.yaml")

    def put(self, source, path, put=FsspecStore.put):
        if path == FINAL:
            raise ConnectionError("the line broke")
        put(self, source, path)

    monkeypatch.setattr("unet3d_tutorial.runs.copies.time.sleep", lambda seconds: None)
    with monkeypatch.context() as broken:
        broken.setattr(FsspecStore, "put", put)
        with pytest.raises(
            OSError,
            match=f"^copying {FINAL} to the store failed 4 times: ConnectionError: the line broke",
        ):
            train(settings)
    assert not (tmp_path / "store" / FINAL).exists()
    assert train(settings).history == run[1].history
    assert (tmp_path / "store" / FINAL).read_bytes() == run[1].checkpoint.read_bytes()


def test_what_is_no_run_of_this_configuration_is_cleared_but_other_files_stay(
    data, tmp_path, capsys
):
    (tmp_path / "history.csv").write_text("step,lr\n0,0.1\n", encoding="utf-8")
    (tmp_path / "note.txt").write_text("kept", encoding="utf-8")
    assert train(config(data, tmp_path)).history["step"] == list(range(6))
    assert (tmp_path / "note.txt").read_text(encoding="utf-8") == "kept"
    assert "training begins afresh" in capsys.readouterr().out


def interrupted(settings, goes_on=None):
    """The result of a run that was stopped after four steps, and then gone on with, perhaps with
    other settings.
    """

    class Enough(Exception):
        pass

    def stop(history, validation):
        if len(history["step"]) == 4:
            raise Enough

    with pytest.raises(Enough):
        train(settings, watch=stop)
    return train(goes_on or settings)


def test_a_run_goes_on_with_the_same_bits(run, data, tmp_path):
    """Stopped from inside: the crash tests do the same from outside."""
    resumed = interrupted(config(data, tmp_path / "run", "train.save_every=3"))
    _, whole = run
    assert (
        resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
        and resumed.validation == whole.validation
    )
    assert resumed.history["loss"] == whole.history["loss"] and resumed.history["step"] == list(
        range(6)
    )


def test_settings_without_effect_may_change_when_a_run_goes_on(run, data, tmp_path):
    settings, whole = run
    other = [
        "data.num_worker=2",
        "data.worker_processes=true",
        f"data.cache_path={tmp_path / 'cache'}",
        "train.save_every=1",
        "train.event_files=false",
        "train.enable_profiling=true",
        "train.keep_checkpoint_max=1",
    ]
    assert sorted(text.partition("=")[0] for text in other) == sorted(WITHOUT_EFFECT)
    first = config(data, tmp_path / "run")
    resumed = interrupted(first, first.override(other))
    assert (
        resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
        and resumed.validation == whole.validation
    )
    assert resumed.history["loss"] == whole.history["loss"]
    assert Config.load(tmp_path / "run" / "config.yaml") == first.override(other)
    before = whole.checkpoint.stat().st_mtime_ns
    assert (
        train(settings.override(other)) == whole and whole.checkpoint.stat().st_mtime_ns == before
    )


@pytest.mark.parametrize(
    "option", ["train.weight_decay=0.1", "train.average_decay=0.75", "train.clip_norm=0.1"]
)
def test_so_it_does_with_each_option_of_the_step(option, data, tmp_path):
    whole, resumed = (
        train(config(data, tmp_path / "whole", option)),
        interrupted(config(data, tmp_path / "run", option)),
    )
    assert (
        resumed.history["loss"] == whole.history["loss"] and resumed.validation == whole.validation
    )
    assert resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


def test_a_state_may_be_loaded_between_two_steps(data, run):
    """The optimiser goes on to change the weights, and from there."""
    settings, result = run
    moved = Run(settings, result.checkpoint.parent)
    for _ in range(2):
        load_state(
            result.checkpoint.parent / "step-00004.ckpt", settings, moved.network, moved.optimizer
        )
        # What it gives is a view.
        before = moved.network.down1.down_conv.down_conv_1.weight.asnumpy().copy()
        moved.optimizer(tuple(ops.ones_like(p) for p in moved.optimizer.parameters))
        assert not np.array_equal(
            moved.network.down1.down_conv.down_conv_1.weight.asnumpy(), before
        )


def test_weights_that_a_step_broke_are_named_with_the_scans_of_that_step(
    data, tmp_path, monkeypatch
):
    def broken(self, batches, step=TrainStep.__call__):
        losses = step(self, batches)
        if self.state.step == 2:
            ops.assign(self.optimizer.parameters[0], self.optimizer.parameters[0] + np.inf)
        return losses

    monkeypatch.setattr(TrainStep, "__call__", broken)
    settings = config(data, tmp_path, "train.validate_every=3", "train.save_every=3")
    names, others = (", ".join(batch_names(settings, step)) for step in (2, 3))
    assert names != others
    with pytest.raises(
        FloatingPointError,
        match=f"^step 2: the weights of .* are not finite; it came from {names}; there",
    ):
        train(settings)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), FloatingPointError()], ids=str)
def test_a_run_leaves_no_worker_and_no_watcher_however_it_ends(error, data, tmp_path):
    def stop(history, validation):
        assert multiprocessing.active_children()
        if error:
            raise error

    settings = config(data, tmp_path, "data.worker_processes=true", "data.num_worker=2")
    with pytest.raises(type(error)) if error else nullcontext():
        train(settings, watch=stop)
    assert not multiprocessing.active_children()
    for watcher in (thread for thread in threading.enumerate() if "_watch" in thread.name):
        watcher.join(timeout=10)
        assert not watcher.is_alive()


def test_missing_data_leave_an_older_run_untouched(run, tmp_path):
    settings, result = run
    kept = tmp_path / "run"
    kept.mkdir()
    (kept / "note.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="train/image: expected .nii.gz files"):
        train(config(tmp_path / "nothing", kept))
    assert (kept / "note.txt").exists()


def test_a_warm_up_that_does_not_fit_leaves_an_older_run_untouched(run):
    settings, result = run
    before = {path: path.stat().st_mtime_ns for path in result.checkpoint.parent.rglob("*")}
    with pytest.raises(
        ValueError, match="^warmup_step: expected at least 0 and below total_steps = 6, found 20"
    ):
        train(settings.override(["train.warmup_step=20"]), overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in result.checkpoint.parent.rglob("*")} == before


@pytest.mark.parametrize(
    ("lower", "upper", "names"),
    [(5, 5, ["trachea"]), (1, 5, ["label 1", "label 2", "left lung", "right lung", "trachea"])],
)
def test_the_tables_name_the_structures_by_their_values(lower, upper, names, data, tmp_path):
    limits = (
        f"data.lower_limit={lower}",
        f"data.upper_limit={upper}",
        f"model.num_classes={upper - lower + 2}",
    )
    result = train(config(data, tmp_path, "train.epoch_size=1", *limits))
    assert (
        list(result.validation) == ["step", *names] and list(result.history)[-len(names) :] == names
    )


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
    (tmp_path / "text.ckpt").write_text("hello", encoding="utf-8")
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
