"""Train in one process and in two, each with the same batch.

``python benchmarks/scaling.py`` prints how many volumes a second pass, and how well the second
process pays. Run it in a copy of the project with the phantoms.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from unet3d_tutorial.config import Config
from unet3d_tutorial.dataset import TrainingCrops, list_cases
from unet3d_tutorial.runs.history import read_columns

SMALL = [
    "data.spacing_mm=[8, 8, 8]",
    "data.roi_size=[32, 32, 32]",
    "inference.roi_size=[32, 32, 32]",
    "train.warmup_step=2",
    "train.event_files=false",
]
VOLUMES, SKIPPED = 30, 6  #: volumes to train on; the first steps of a run are not counted


def prepare(folder: Path) -> Config:
    """A few phantoms in a folder of their own, brought to the grid once, so that no run has to do
    it while it is timed.
    """
    quick = Config.preset("quick")
    for split, count in (("train", VOLUMES), ("val", 1)):
        for pair in list_cases(Path(quick.data.data_path) / split)[:count]:
            for kind, path in zip(("image", "seg"), pair, strict=True):
                target = folder / "data" / split / kind / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(path.absolute())
    config = quick.override(
        [*SMALL, f"data.data_path={folder / 'data'}", f"data.cache_path={folder / 'prepared'}"]
    )
    crops = TrainingCrops(list_cases(folder / "data" / "train"), config)
    for number in range(VOLUMES):
        crops.prepared[number]
    return config


def seconds_a_step(config: Config, workers: int, folder: Path, threads: int) -> tuple[float, float]:
    """Median seconds of a step and the share of them that were spent waiting for data; as many
    steps for any workers.
    """
    target = folder / f"{workers}-{threads}"
    config = config.override([f"train.output_path={target}", f"train.epoch_size={2 * workers}"])
    config.save(folder / "settings.yaml")
    programs = Path(sys.executable).parent
    command = [str(programs / "unet3d"), "train", "--config", str(folder / "settings.yaml")]
    if workers > 1:
        command = [
            str(programs / "msrun"),
            f"--worker_num={workers}",
            f"--local_worker_num={workers}",
            f"--master_port={free_port()}",
            "--join=True",
            f"--log_dir={folder / 'log'}",
            *command,
        ]
    path = os.pathsep.join([str(programs), os.environ["PATH"]])  # msrun looks for Python there
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    history = read_columns(target / "history.csv")
    steps = np.diff(history["seconds"])[SKIPPED - 1 :]
    return float(np.median(steps)), float(np.sum(history["wait"][SKIPPED:]) / np.sum(steps))


def free_port() -> int:
    """A port that nobody uses, for the processes to find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def main() -> None:
    """Print a table: one process with one core and with all, then two with one core each."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    cores, batch = os.cpu_count(), Config.preset("quick").train.batch_size
    print("processes  threads each  s a step  volumes/s  waiting for data")
    rates = {}
    with tempfile.TemporaryDirectory() as name:
        config = prepare(Path(name))
        for workers, threads in ((1, 1), (1, cores), (2, max(cores // 2, 1))):
            step, waiting = seconds_a_step(config, workers, Path(name), threads)
            rate = rates[workers, threads] = workers * batch / step
            print(
                f"{workers:9}  {threads:12}  {step:8.3f}  {rate:9.2f}  {waiting:16.1%}", flush=True
            )
    two = rates[2, max(cores // 2, 1)]
    print(f"scaling efficiency of two processes with one core each: {two / (2 * rates[1, 1]):.0%}")
    print(f"two processes against one with all {cores} cores: {two / rates[1, cores]:.0%}")


if __name__ == "__main__":
    main()
