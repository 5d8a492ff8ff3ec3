"""Two makes at once in one folder: the second says so in one line and does nothing."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTALL = (
    "#!/bin/sh\ntouch started\n"
    "timeout 100 sh -c 'until [ -e go ]; do sleep 0.05; done' && touch .venv/installed\n"
)

pytestmark = pytest.mark.skipif(
    not (shutil.which("make") and shutil.which("flock")), reason="needs make and flock"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project's Makefile beside an installation that waits until it may go on."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt", "tools/install.sh"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(INSTALL, encoding="utf-8")
        path.chmod(0o755)
    (tmp_path / ".venv").mkdir()
    return tmp_path


def make(folder: Path, *goals: str) -> subprocess.Popen:
    """``make`` as a reader starts it, whatever make these tests were started by."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("MAKEFLAGS", "MAKELEVEL", "BUILD_LOCKED")
    }
    return subprocess.Popen(
        ["make", *goals],
        cwd=folder,
        text=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not come"
        time.sleep(0.02)


def test_a_second_make_is_refused_in_one_line(folder: Path):
    first = make(folder, ".venv/installed")
    wait_for(folder / "started")
    for goals in (["book"], ["test", "store"], ["clean"]):
        second = make(folder, *goals)
        output, errors = second.communicate(timeout=60)
        assert second.returncode == 2 and output == "" and len(errors.splitlines()) == 1
        assert "Another make is at work in this folder: wait for its end" in errors
    lab = make(folder, "lab")  # it would have to install, too
    assert "Another make is at work" in lab.communicate(timeout=60)[1] and lab.returncode == 2
    helped = make(folder, "help")
    assert "make book" in helped.communicate(timeout=60)[0] and helped.returncode == 0
    (folder / "go").touch()
    assert "Another" not in "".join(first.communicate(timeout=60)) and first.returncode == 0
    again = make(folder, ".venv/installed")
    assert "up to date" in again.communicate(timeout=60)[0] and again.returncode == 0


def test_the_lock_outlives_a_killed_make_while_its_work_goes_on(folder: Path):
    first = make(folder, ".venv/installed")
    wait_for(folder / "started")
    first.kill()
    first.wait(timeout=60)
    refused = make(folder, "clean")
    assert "Another make is at work" in refused.communicate(timeout=60)[1]
    (folder / "go").touch()
    wait_for(folder / ".venv/installed")
    until, code = time.monotonic() + 60, 2
    while code and time.monotonic() < until:
        last = make(folder, "clean")
        last.communicate(timeout=60)
        code = last.returncode
    assert code == 0


def test_a_goal_that_does_not_exist_is_still_named(folder: Path):
    wrong = make(folder, "nothing")
    assert (
        "No rule to make target 'nothing'" in wrong.communicate(timeout=60)[1]
        and wrong.returncode == 2
    )
