"""Runs that are killed, stopped, starved of disk or fed with nonsense.

What is left is whole, and can be gone on with.
"""

import os
import re
import secrets
import shutil
import signal
import time

import numpy as np
import pytest

from runs import finish, record, send_when, settings, start, write_data
from unet3d_tutorial.runs.folder import reserved
from unet3d_tutorial.runs.history import read_columns

IN_A_CHECKPOINT = """
import os, signal, unet3d_tutorial.runs.checkpoints
count = iter(range({nth}))
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
os.fsync = lambda file, fsync=os.fsync: fsync(file) if next(count, None) is not None else kill()
"""
NAN = """
import numpy as np
from unet3d_tutorial.dataset import TrainingCrops
def bad(self, index, get=TrainingCrops.__getitem__):
    image, label = get(self, index)
    return (image * np.float32(np.nan if index == 9 else 1)), label
TrainingCrops.__getitem__ = bad
"""
PIDS = """
import os
from pathlib import Path
from unet3d_tutorial.dataset import TrainingCrops
parent = os.getpid()
def note(self, index, get=TrainingCrops.__getitem__):
    if os.getpid() != parent:
        Path("worker").write_text(str(os.getpid()))
    return get(self, index)
TrainingCrops.__getitem__ = note
"""
STUCK = (
    PIDS
    + """
import time
def stuck(self, index, get=TrainingCrops.__getitem__):
    if index >= 8:
        time.sleep(3600)
    return get(self, index)
TrainingCrops.__getitem__ = stuck
"""
)
FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes}, {bytes}))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def longer(data, folder, *overrides):
    """A run of twelve steps that saves at 3, 6, 8, 9 and 12 and validates at 4, 8 and 12."""
    return settings(
        data,
        folder / "run",
        "train.epoch_size=6",
        "train.validate_every=4",
        "train.save_every=3",
        *overrides,
    )


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The record of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    code, text = finish(start(longer(data, folder), folder))
    assert code == 0, text
    return record(folder / "run")


def test_killed_at_random_moments_it_ends_with_the_same_bits(data, whole, tmp_path):
    """Three times somewhere in a step, a validation, a save or the start; once inside a write."""
    seed = secrets.randbits(32)  # other moments in each run of this test; the messages tell which
    rng, config, history = (
        np.random.default_rng(seed),
        longer(data, tmp_path),
        tmp_path / "run" / "history.csv",
    )
    codes = []
    for step, before in zip(
        np.sort(rng.permutation(np.arange(1, 9))[:4]), ("", "write", "", ""), strict=True
    ):
        process = start(
            config, tmp_path, before=before and IN_A_CHECKPOINT.format(nth=rng.integers(3))
        )
        if not before:
            send_when(process, history, lines=step + 1, delay=rng.uniform(0, 0.05))
        code, text = finish(process)
        torn = list((tmp_path / "run").glob("*.part*"))
        # 0: killed too late.
        assert code == 0 or code == -signal.SIGKILL and (torn or not before), (seed, text)
        codes.append(code)
    assert codes[0] == -signal.SIGKILL, (seed, codes)
    code, text = finish(start(config, tmp_path))
    assert code == 0 and record(tmp_path / "run") == whole, (seed, text)
    assert not list((tmp_path / "run").glob("*.part*")), seed


def test_ctrl_c_finishes_the_step_and_saves(data, whole, tmp_path):
    config = longer(data, tmp_path, "train.save_every=1000", "train.validate_every=1000")
    process = start(config, tmp_path)
    assert send_when(process, tmp_path / "run" / "history.csv", lines=3, number=signal.SIGINT)
    code, text = finish(process)
    assert code == 130 and "interrupted" in text and "Traceback" not in text
    done = len(read_columns(tmp_path / "run" / "history.csv")["step"])
    assert 2 <= done < 12
    code, text = finish(start(config, tmp_path))
    assert code == 0 and f"continues from step {done} of 12" in text
    assert record(tmp_path / "run")[:2] == whole[:2]


@pytest.mark.parametrize(
    "moment", ["while a step is computed", "while the step waits for its batch"]
)
def test_a_killed_data_worker_is_one_line_and_the_run_goes_on_with_the_same_bits(
    moment, data, whole, tmp_path
):
    config = longer(data, tmp_path, "data.worker_processes=true", "data.num_worker=2")
    process = start(config, tmp_path, before=STUCK if moment.startswith("while the step") else PIDS)
    # Four steps are done.
    assert send_when(process, tmp_path / "run" / "history.csv", lines=5, number=0)
    if "waits" in moment:
        time.sleep(1)  # so that all batches that were made ahead are used up
    os.kill(int((tmp_path / "worker").read_text(encoding="utf-8")), signal.SIGKILL)
    code, text = finish(process)
    assert code == 2 and "Traceback" not in text
    line = text.strip().splitlines()[-1]
    assert re.search(r"step \d+: a data worker, process \d+, was killed by signal 9", line)
    assert f"the last good checkpoint is {tmp_path / 'run' / 'last.ckpt'}" in line
    assert not list((tmp_path / "run").glob("*.part*"))
    code, text = finish(start(config, tmp_path))
    assert code == 0 and "continues from step" in text
    assert record(tmp_path / "run") == whole


def test_a_loss_that_is_not_a_number_names_step_files_and_checkpoint(data, tmp_path):
    config = longer(data, tmp_path)
    code, text = finish(start(config, tmp_path, before=NAN))  # sample 9 is in step 4
    assert code == 2 and "Traceback" not in text
    line = text.strip().splitlines()[-1]
    assert "step 4: the loss is" in line and "gradient nan" in line and line.count(".nii.gz") == 2
    assert f"the last good checkpoint is {tmp_path / 'run' / 'last.ckpt'}" in line


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(data, whole, tmp_path):
    config = longer(data, tmp_path)
    code, text = finish(start(config, tmp_path, before=FULL_DISK.format(bytes=100_000)))
    assert (
        code == 2
        and "the checkpoint could not be written" in text
        and "last.ckpt" in text
        and "Traceback" not in text
    )
    assert not list((tmp_path / "run").glob("*.ckpt"))
    code, text = finish(start(config, tmp_path))
    assert code == 0 and record(tmp_path / "run") == whole


@pytest.mark.parametrize("workers", [(), ("data.num_worker=2", "data.worker_processes=true")])
def test_a_scan_that_is_damaged_inside_is_one_line_and_mended_the_run_goes_on(
    data, whole, tmp_path, workers
):
    """Header and length are sound, so only reading it to the end tells, in the middle of a run."""
    shutil.copytree(data, tmp_path / "data")
    scan = tmp_path / "data/train/image/2.nii.gz"
    sound = scan.read_bytes()
    # The checksum of all voxels.
    scan.write_bytes(sound[:-6] + bytes([sound[-6] ^ 0xFF]) + sound[-5:])
    config = longer(tmp_path / "data", tmp_path, *workers)
    code, text = finish(start(config, tmp_path))
    line = text.strip().splitlines()[-1]
    assert code == 2 and "Traceback" not in text and line.startswith("unet3d: step ")
    assert (
        f"{scan} cannot be read as NIfTI" in line
        and "fixed, run the same command again to continue" in line
    )
    scan.write_bytes(sound)
    if not workers:
        config = longer(data, tmp_path)
        shutil.rmtree(tmp_path / "run")
        code, text = finish(start(config, tmp_path))
        assert code == 0 and record(tmp_path / "run") == whole


def test_a_scan_that_is_cut_short_is_one_line_before_anything_is_touched(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    scan = tmp_path / "data/val/seg/0.nii.gz"
    scan.write_bytes(scan.read_bytes()[:-40])
    code, text = finish(start(longer(tmp_path / "data", tmp_path), tmp_path))
    line = text.strip().splitlines()[-1]
    assert (
        code == 2
        and "Traceback" not in text
        and line.startswith(f"unet3d: {scan} cannot be read as NIfTI")
    )
    assert not (tmp_path / "run").exists()


def test_the_second_run_on_a_folder_refuses(data, tmp_path):
    config = longer(data, tmp_path)
    with reserved(tmp_path / "run"):
        before = sorted(path.name for path in (tmp_path / "run").iterdir())
        code, text = finish(start(config, tmp_path))
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before
    assert code == 2 and f"is in use by another run, process {os.getpid()}" in text


def test_an_unwritable_folder_is_one_line(data, tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be", encoding="utf-8")
    code, text = finish(start(longer(data, tmp_path), tmp_path))
    assert (
        code == 2
        and f"train.output_path: cannot write to {tmp_path / 'run'}" in text
        and "Traceback" not in text
    )
