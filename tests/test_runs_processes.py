"""Two processes on this CPU share the data, agree on the weights, and one of them writes.

``msrun`` starts them.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from mindspore import Tensor

from runs import record, send_when, settings, write_data
from unet3d_tutorial.config import TrainConfig
from unet3d_tutorial.dataset import batch_names, create_dataset
from unet3d_tutorial.model import BatchNorm3d
from unet3d_tutorial.runs import processes as distributed
from unet3d_tutorial.runs.checkpoints import read_checkpoint
from unet3d_tutorial.runs.history import read_columns
from unet3d_tutorial.runs.processes import ALONE, Group, join

HERE = Path(__file__).parent
IMPORTED = os.pathsep.join(
    [str(HERE), str(HERE.parent)]
)  #: the tests, and this copy of the package
WEIGHTS = """
import atexit, numpy as np, unet3d_tutorial.training as training
from pathlib import Path
finish = training.Run.finish
def also(self):
    weights = np.concatenate([p.asnumpy().ravel() for p in self.network.get_parameters()])
    Path({folder!r}, f"rank-{{self.group.rank_id}}.bin").write_bytes(weights.tobytes())
    finish(self)
training.Run.finish = also
from unet3d_tutorial.cli import main
raise SystemExit(main())
"""


def start_msrun(folder: Path, *command: str) -> subprocess.Popen:
    """A script as two processes; what they print goes to ``folder/log``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = Path(sys.executable).parent / "msrun"
    options = [
        "--worker_num=2",
        "--local_worker_num=2",
        f"--master_port={port}",
        f"--log_dir={folder / 'log'}",
        "--join=True",
    ]
    path = os.pathsep.join([str(start.parent), os.environ["PATH"]])
    return subprocess.Popen(
        [str(start), *options, *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PATH": path, "PYTHONPATH": IMPORTED, "PYTHONHASHSEED": "0"},
    )


def msrun(folder: Path, *command: str) -> str:
    """Run a script as two processes; all that these printed."""
    process = start_msrun(folder, *command)
    output, _ = process.communicate(timeout=600)
    logs = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((folder / "log").glob("worker_*.log"))
    )
    assert process.returncode == 0, output + logs
    return logs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def test_the_train_command_under_msrun(data, tmp_path):
    config = settings(data, tmp_path / "run", "train.batch_size=1", "train.run_distribute=true")
    config.save(tmp_path / "settings.yaml")
    (tmp_path / "run.py").write_text(WEIGHTS.format(folder=str(tmp_path)), encoding="utf-8")
    logs = msrun(tmp_path, "run.py", "train", "--config", str(tmp_path / "settings.yaml"))
    ranks = [
        np.frombuffer((tmp_path / f"rank-{rank}.bin").read_bytes(), np.float32) for rank in (0, 1)
    ]
    assert ranks[0].size > 1000 and np.array_equal(*ranks)
    history = read_columns(tmp_path / "run" / "history.csv")
    assert history["step"] == list(range(6))  # one line a step: one process writes
    final = read_checkpoint(tmp_path / "run" / "unet3d.ckpt")
    assert np.array_equal(np.concatenate([p.asnumpy().ravel() for p in final.values()]), ranks[0])
    assert "Traceback" not in logs


def test_a_killed_process_ends_the_run_which_goes_on_with_the_same_bits(data, tmp_path):
    found = {}
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        config = settings(
            data,
            folder / "run",
            "train.batch_size=1",
            "train.run_distribute=true",
            "train.epoch_size=6",
            "train.save_every=2",
        )
        config.save(folder / "settings.yaml")
        (folder / "run.py").write_text(
            "from unet3d_tutorial.cli import main\nraise SystemExit(main())\n", encoding="utf-8"
        )
        command = ("run.py", "train", "--config", str(folder / "settings.yaml"))
        if name == "killed":
            process = start_msrun(folder, *command)
            # Five steps are done.
            assert send_when(process, folder / "run" / "history.csv", lines=6, number=0)
            second = [
                child
                for child in psutil.Process(process.pid).children(recursive=True)
                if child.environ().get("RANK_ID") == "1"
                and child.environ().get("MS_ROLE") == "MS_WORKER"
            ]
            second[0].kill()
            output, _ = process.communicate(timeout=300)
            assert process.returncode != 0 and "Distributed job exited with exception" in output
            assert not (folder / "run" / "unet3d.ckpt").exists() and not list(
                (folder / "run").glob("*.part*")
            )
            read_checkpoint(folder / "run" / "last.ckpt")  # whole
        logs = msrun(folder, *command)
        assert ("continues from step" in logs) == (name == "killed")
        found[name] = record(folder / "run")
    assert found["killed"] == found["whole"] and len(found["whole"][1]["step"]) == 12


@pytest.mark.parametrize("norm", ["batch, frozen", "group"])
def test_two_workers_follow_one_with_twice_the_batch(data, tmp_path, norm):
    arguments = (str(HERE / "ddp_worker.py"), str(data), str(tmp_path), norm)
    msrun(tmp_path, *arguments)
    subprocess.run(
        [sys.executable, *arguments],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": IMPORTED, "PYTHONHASHSEED": "0"},
        capture_output=True,
    )
    alone, first, second = (
        json.loads((tmp_path / f"{norm}-{name}.json").read_text(encoding="utf-8"))
        for name in ("1-0", "2-0", "2-1")
    )
    assert not set(first["seen"]) & set(second["seen"])
    assert (
        sorted(first["seen"] + second["seen"]) == sorted(alone["seen"])
        and len(set(alone["seen"])) == 12
    )
    assert first["weights"] == second["weights"] and first["losses"] == second["losses"]
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert alone["losses"][0] > alone["losses"][-1]


def test_shards_cover_a_step_together_and_do_not_overlap(data):
    # No two crops are the same.
    config = settings(data, data / "run", "train.batch_size=1", "data.augment=true")
    for rank_size in (
        2,
        3,
    ):  # twelve samples; with three processes as well as two each is seen once
        names, crops = [], []
        for rank in range(rank_size):
            shard = create_dataset(config, rank_size=rank_size, rank_id=rank)
            crops += [
                image.tobytes()
                for image, _ in shard.create_tuple_iterator(output_numpy=True, num_epochs=1)
            ]
            names += batch_names(config, 1, rank_size=rank_size, rank_id=rank)
        assert len(set(crops)) == len(crops) == 12
        assert sorted(names) == sorted(
            batch_names(config.override([f"train.batch_size={rank_size}"]), 1)
        )


def test_a_later_start_gives_the_same_batches(data):
    config = settings(data, data / "run")
    whole, rest = (
        list(
            create_dataset(config, first_step=first).create_tuple_iterator(
                output_numpy=True, num_epochs=1
            )
        )
        for first in (0, 4)
    )
    assert len(whole) == 6 and len(rest) == 2
    assert all(
        np.array_equal(a, b)
        for left, right in zip(whole[4:], rest, strict=True)
        for a, b in zip(left, right, strict=True)
    )


def test_averaged_statistics_go_on_moving(monkeypatch):
    """Two processes with the same batch: the mean is what each has, and what one alone has."""
    monkeypatch.setattr(distributed, "_all_reduce", lambda values: values * 2)
    rng = np.random.default_rng(0)
    batches = [Tensor(rng.normal(3, 2, (2, 4, 4, 4, 4)).astype(np.float32)) for _ in range(3)]
    found = []
    for group in (ALONE, Group(rank_size=2)):
        norm = BatchNorm3d(4, momentum=0.9)
        norm.set_train(True)
        statistics = [p for p in norm.get_parameters() if not p.requires_grad]
        for batch in batches:
            norm(batch)
            group.average(statistics)
        found.append(np.concatenate([p.asnumpy() for p in statistics]))
    assert (
        len(found[0]) == 8
        and np.allclose(*found, rtol=1e-6)
        and not np.allclose(found[0][:4], 0.3, atol=0.2)
    )


def test_alone_everything_is_as_it_was(monkeypatch):
    monkeypatch.delenv("MS_ROLE", raising=False)
    assert join(TrainConfig()) == ALONE and ALONE.leads
    values = np.array([1 / 3])
    assert ALONE.sum(values) is values and ALONE.mean_gradients([values])[0] is values
    with pytest.raises(ValueError, match="train.run_distribute: expected a start by msrun"):
        join(TrainConfig(run_distribute=True))
