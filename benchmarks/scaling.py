"""One process beside two, each with the same batch: how many volumes a second, and how well the second one pays.

``python benchmarks/scaling.py``; run in a copy of the project with the phantoms.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from unet3d_tutorial.config import Config
from unet3d_tutorial.history import read_columns

SMALL = ["data.spacing_mm=[8, 8, 8]", "data.roi_size=[32, 32, 32]", "inference.roi_size=[32, 32, 32]", "train.epoch_size=1",
         "train.warmup_step=2", "train.event_files=false"]


def seconds_a_step(workers: int, folder: Path, threads: int) -> tuple[float, float]:
    """Median seconds of a step and the share of them that were spent waiting for data."""
    target = folder / f"{workers}-{threads}"
    config = Config.preset("quick").override([*SMALL, f"train.output_path={target}"])
    config.save(folder / "settings.yaml")
    command = [str(Path(sys.executable).parent / "unet3d"), "train", "--config", str(folder / "settings.yaml")]
    if workers > 1:
        command = [str(Path(sys.executable).parent / "msrun"), f"--worker_num={workers}", f"--local_worker_num={workers}",
                   "--master_port=8128", "--join=True", f"--log_dir={folder / 'log'}", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    history = read_columns(target / "history.csv")
    steps = np.diff(history["seconds"])[5:]
    return float(np.median(steps)), float(np.sum(history["wait"][6:]) / np.sum(steps))


def main() -> None:
    """Print a table: one process with one core and with all, then two processes with one core each."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    cores, batch = os.cpu_count(), Config.preset("quick").train.batch_size
    print("processes  threads each  s a step  volumes/s  waiting for data")
    rates = {}
    with tempfile.TemporaryDirectory() as name:
        for workers, threads in ((1, 1), (1, cores), (2, max(cores // 2, 1))):
            step, waiting = seconds_a_step(workers, Path(name), threads)
            rates[workers, threads] = workers * batch / step
            print(f"{workers:9}  {threads:12}  {step:8.3f}  {rates[workers, threads]:9.2f}  {waiting:16.1%}", flush=True)
    two = rates[2, max(cores // 2, 1)]
    print(f"scaling efficiency of two processes with one core each: {two / (2 * rates[1, 1]):.0%}")
    print(f"two processes against one with all {cores} cores: {two / rates[1, cores]:.0%}")


if __name__ == "__main__":
    main()
