"""The lock between processes: one holder, a clear word to others, given back however it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unet3d_tutorial.files.lock import holder_file, only_one

HOLD = """
import sys, time
from unet3d_tutorial.files.lock import only_one
with only_one(sys.argv[1], "busy"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock until a line, or its end, comes to it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_another_process_is_refused_in_one_line(tmp_path: Path, holder):
    with pytest.raises(RuntimeError) as error, only_one(tmp_path / "lock", "somebody is here"):
        pytest.fail("two processes hold the lock")
    assert str(error.value) == "somebody is here"
    assert error.value.__suppress_context__


def test_the_message_can_name_the_holder(tmp_path: Path, holder):
    with (
        pytest.raises(RuntimeError, match=f"^{{a}} is used by {holder.pid}$"),
        only_one(tmp_path / "lock", "{a} is used by {process}"),
    ):
        pytest.fail("two processes hold the lock")


def test_a_refused_process_leaves_the_holders_number(tmp_path: Path, holder):
    for _ in range(2):
        with pytest.raises(RuntimeError), only_one(tmp_path / "lock", "busy"):
            pytest.fail("two processes hold the lock")
    assert holder_file(tmp_path / "lock").read_text(encoding="utf-8") == f"{holder.pid}\n"


def test_a_holder_that_left_no_number_is_unknown(tmp_path: Path, holder):
    holder_file(tmp_path / "lock").unlink()
    with (
        pytest.raises(RuntimeError, match="^process unknown$"),
        only_one(tmp_path / "lock", "process {process}"),
    ):
        pytest.fail("two processes hold the lock")


def test_a_killed_process_gives_the_lock_back(tmp_path: Path, holder):
    holder.kill()
    holder.wait()
    assert holder_file(tmp_path / "lock").exists()
    with only_one(tmp_path / "lock", "busy"):
        assert holder_file(tmp_path / "lock").read_text(encoding="utf-8") == f"{os.getpid()}\n"


def test_waiting_says_so_and_goes_on_when_the_other_has_ended(tmp_path: Path, holder):
    class Tell:
        """Let the other process go once we have said that we wait for it."""

        def write(self, text: str) -> None:
            if text.strip():
                heard.append(text)
                holder.stdin.write("\n")
                holder.stdin.flush()

        def flush(self) -> None:
            pass

    heard: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Tell())
        with only_one(tmp_path / "lock", "waiting for process {process}", wait=True):
            assert holder.wait(30) == 0
    assert heard == [f"waiting for process {holder.pid}"]


def test_the_lock_is_given_back_after_an_error(tmp_path: Path):
    for _ in range(2):
        with pytest.raises(KeyError), only_one(tmp_path / "new" / "lock", "busy"):
            raise KeyError
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["lock"]


def test_a_folder_that_cannot_be_made_is_an_error_of_the_system(tmp_path: Path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError), only_one(tmp_path / "file" / "lock", "busy"):
        pytest.fail("there is no lock")
