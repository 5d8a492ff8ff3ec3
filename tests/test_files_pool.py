"""The same work in several processes: the results in order, one clear word when one dies."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unet3d_tutorial.files.pool import map_in_processes


def square(number: int) -> int:
    time.sleep(0.2 if number == 0 else 0)  # the first one ends last
    return number * number


def where(_: int) -> int:
    return os.getpid()


def touch_or_fail(path: Path) -> None:
    if path.name == "0":
        raise ValueError("the first one fails")
    time.sleep(0.2)
    path.touch()


def die(_: int) -> None:
    os._exit(1)


@pytest.mark.parametrize("processes", [None, 1, 2, 9])
def test_results_come_in_the_order_of_the_jobs(processes: int | None):
    assert list(map_in_processes(square, iter(range(5)), processes)) == [0, 1, 4, 9, 16]


def test_no_jobs_give_no_results():
    assert list(map_in_processes(square, [], 2)) == []


def test_one_process_or_one_job_is_this_process():
    assert set(map_in_processes(where, range(3), 1)) == {os.getpid()}
    assert list(map_in_processes(where, [0], 2)) == [os.getpid()]
    assert os.getpid() not in set(map_in_processes(where, range(3), 2))


@pytest.mark.parametrize("processes", [0, -1])
def test_there_is_at_least_one_process(processes: int):
    with pytest.raises(ValueError, match=f"processes: expected at least 1, found {processes}"):
        list(map_in_processes(square, range(3), processes))


@pytest.mark.parametrize("processes", [1, 2])
def test_after_an_error_no_other_job_begins(tmp_path: Path, processes: int):
    jobs = [tmp_path / str(number) for number in range(40)]
    with pytest.raises(ValueError, match="the first one fails"):
        list(map_in_processes(touch_or_fail, jobs, processes))
    assert len(list(tmp_path.iterdir())) < 20
    before = len(list(tmp_path.iterdir()))
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == before


def test_a_reader_that_stops_early_stops_the_work(tmp_path: Path):
    results = map_in_processes(touch_or_fail, [tmp_path / str(n) for n in range(1, 41)], 2)
    next(results)
    results.close()
    assert len(list(tmp_path.iterdir())) < 20


def test_a_process_that_dies_is_said_in_one_line():
    with pytest.raises(RuntimeError, match="a worker process died: out of memory, or") as error:
        list(map_in_processes(die, range(2), 2))
    assert "\n" not in str(error.value)


def test_a_script_without_a_main_guard_is_told_what_to_do(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "from unet3d_tutorial.files.pool import map_in_processes\n"
        "list(map_in_processes(abs, [1, 2], 2))\n",
        encoding="utf-8",
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    # Python may warn of leaked semaphores after the error.
    errors = [line for line in result.stderr.splitlines() if line.startswith("RuntimeError: a ")]
    assert result.returncode != 0 and "if __name__ == '__main__'" in errors[-1]
