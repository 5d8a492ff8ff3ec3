"""For the tests of training: tiny volumes, a tiny network, and runs that may be killed.

Each run has a process of its own.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from unet3d_tutorial.config import Config
from unet3d_tutorial.files.nifti import save_volume
from unet3d_tutorial.runs.checkpoints import FINAL
from unet3d_tutorial.runs.history import TIMINGS, read_columns
from unet3d_tutorial.volume import Volume

SMALL = [
    "data.roi_size=[32, 16, 16]",
    "inference.roi_size=[32, 16, 16]",
    "model.channels=[4, 4, 8, 8, 16]",
    "train.epoch_size=3",
    "train.warmup_step=1",
    "train.validate_every=2",
    "data.augment=false",
]


def write_data(folder: Path) -> Path:
    """Volumes with a bright left and a dark right half, labelled 3 and 4, and a corner of 5."""
    rng = np.random.default_rng(0)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    for split, count in (("train", 4), ("val", 1)):
        for number in range(count):
            label = np.full((32, 16, 16), 3, np.uint8)
            label[16:] = 4
            label[:8, :8, :8] = 5
            image = (
                np.select([label == 3, label == 4], [-800, 0], 300) + rng.normal(0, 20, label.shape)
            ).astype(np.int16)
            save_volume(Volume(image, affine), folder / split / "image" / f"{number}.nii.gz")
            save_volume(Volume(label, affine), folder / split / "seg" / f"{number}.nii.gz")
    return folder


def settings(data: Path, output: Path, *overrides: str) -> Config:
    """A run of six steps."""
    return Config.preset("quick").override(
        [f"data.data_path={data}", f"train.output_path={output}", *SMALL, *overrides]
    )


def start(
    config: Config, folder: Path, *, before: str = "", launcher: tuple[str, ...] = (sys.executable,)
) -> subprocess.Popen:
    """``unet3d train`` with ``config`` in a process of its own;

    ``before`` is Python that runs first, to break something.
    """
    config.save(folder / "settings.yaml")
    script = folder / "run.py"
    script.write_text(
        f"{before}\nfrom unet3d_tutorial.cli import main\nraise SystemExit(main())\n",
        encoding="utf-8",
    )
    command = [*launcher, str(script), "train", "--config", str(folder / "settings.yaml")]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TQDM_DISABLE": "1"},
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Wait for a run; its exit code, and all that it printed."""
    output, errors = process.communicate(timeout=300)
    return process.returncode, output + errors


def send_when(
    process: subprocess.Popen,
    path: Path,
    lines: int,
    number: int = signal.SIGKILL,
    delay: float = 0,
) -> bool:
    """Send a signal ``delay`` seconds after a file has so many lines; whether the run was still
    alive then.
    """
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            time.sleep(delay)
            process.send_signal(number)
            return True
        time.sleep(0.002)
    return False


def record(folder: Path) -> tuple[bytes, dict, bytes]:
    """What must be equal to the bit: final weights, history without timings, validation."""
    history = read_columns(folder / "history.csv")
    kept = {name: values for name, values in history.items() if name not in TIMINGS}
    return (folder / FINAL).read_bytes(), kept, (folder / "validation.csv").read_bytes()
