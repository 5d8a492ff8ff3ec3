"""The Makefile's rule for the trained run: what it keeps, continues and begins afresh.

A run that is up to date stays, half a run goes on, and one by older code begins afresh.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OLD, MIDDLE, NEW = (1_700_000_000 + 1000 * n for n in range(3))
#: stands in for ``unet3d train``: it notes what it was called with and what it found, and finishes
#: the run
TRAIN = """#!/bin/sh
echo "$* found: $(cd runs/quick 2>/dev/null && ls | tr '\\n' ' ')" >> calls
mkdir -p runs/quick && touch runs/quick/config.yaml runs/quick/unet3d.ckpt
"""


@pytest.fixture
def project(tmp_path):
    """A copy of the project in which every file is empty, installed, with data, and old."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    empty = [f"unet3d_tutorial/{path.name}" for path in (ROOT / "unet3d_tutorial").glob("*.py")]
    for name in (
        *empty,
        "pyproject.toml",
        "constraints.txt",
        "tools/install.sh",
        "data/phantom/done",
        ".venv/installed",
    ):
        write(tmp_path / name, OLD)
    command = tmp_path / ".venv" / "bin" / "unet3d"
    write(command, OLD, TRAIN)
    command.chmod(0o755)
    return tmp_path


def write(path: Path, moment: int, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (moment, moment))


def make(project: Path) -> str:
    """Ask for the trained run; the calls of the command that were needed."""
    # Of the make that these tests were started by.
    inherited = ("MAKEFLAGS", "MAKELEVEL", "BUILD_LOCKED")
    environment = {key: value for key, value in os.environ.items() if key not in inherited}
    done = subprocess.run(
        ["make", "runs/quick/unet3d.ckpt"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    calls = project / "calls"
    return calls.read_text(encoding="utf-8").strip() if calls.exists() else ""


def half_a_run(project: Path) -> None:
    for name in ("config.yaml", "history.csv", "last.ckpt"):
        write(project / "runs" / "quick" / name, MIDDLE)


def test_a_run_that_was_never_begun_is_made(project):
    assert make(project) == "train --preset quick found:"


def test_a_finished_run_is_left_alone(project):
    half_a_run(project)
    write(project / "runs" / "quick" / "unet3d.ckpt", MIDDLE, "weights")
    assert (
        make(project) == ""
        and (project / "runs" / "quick" / "unet3d.ckpt").read_text(encoding="utf-8") == "weights"
    )


def test_half_a_run_goes_on(project):
    half_a_run(project)
    assert make(project) == "train --preset quick found: config.yaml history.csv last.ckpt"


@pytest.mark.parametrize(
    "newer", ["unet3d_tutorial/losses.py", "unet3d_tutorial/config.py", "data/phantom/done"]
)
def test_half_a_run_of_older_code_or_data_begins_afresh(project, newer):
    half_a_run(project)
    write(project / newer, NEW)
    if newer != "data/phantom/done":
        os.utime(project / "data/phantom/done", (NEW, NEW))  # the data's own rule is another matter
    assert make(project) == "train --preset quick found:"


def test_a_finished_run_of_older_code_begins_afresh(project):
    half_a_run(project)
    write(project / "runs" / "quick" / "unet3d.ckpt", MIDDLE)
    write(project / "unet3d_tutorial" / "losses.py", NEW)
    assert make(project) == "train --preset quick found:"


def test_code_that_cannot_change_the_weights_leaves_the_run_alone(project):
    half_a_run(project)
    write(project / "runs" / "quick" / "unet3d.ckpt", MIDDLE)
    write(project / "unet3d_tutorial" / "viewer.py", NEW)
    assert make(project) == ""
