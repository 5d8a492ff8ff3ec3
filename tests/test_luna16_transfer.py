"""Downloads from a server that drops connections, lies and serves damaged files.

They are whole and right, or not there at all.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from loopback import Server, serve

from unet3d_tutorial.luna16 import transfer as module
from unet3d_tutorial.luna16.transfer import (
    DownloadError,
    RemoteFile,
    download_bytes,
    download_file,
)

DATA = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve() as server:
        server.files["/a.zip"] = DATA
        yield server


def remote(server: Server, **changes) -> RemoteFile:
    known = {"url": server.url("/a.zip"), "size": len(DATA), "md5": hashlib.md5(DATA).hexdigest()}
    return RemoteFile(**{**known, **changes})


def fetched(server: Server, tmp_path: Path, *faults: str) -> list[int]:
    """Download in spite of the faults; return where each request began."""
    server.faults["/a.zip"] = list(faults)
    counts = []
    path = download_file(remote(server), tmp_path / "a.zip", counts.append)
    assert path.read_bytes() == DATA and [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]
    assert sum(counts) == len(DATA)  # the progress bar ends where it should
    return [start for _, start in server.requests]


def test_a_file_comes_in_one_piece(server: Server, tmp_path: Path):
    assert fetched(server, tmp_path) == [0]
    assert fetched(server, tmp_path) == [0]  # it is there: no second request


def test_dropped_connections_are_resumed_where_they_broke(server: Server, tmp_path: Path):
    # More than ATTEMPTS: what makes progress does not count.
    starts = fetched(server, tmp_path, *["drop"] * 8)
    assert len(starts) == 9 and starts == sorted(set(starts)) and starts[1] == 1_000_000


@pytest.mark.parametrize(
    "fault",
    ["announce more", "announce less", "announce nothing", "redirect", "429", "500", "503", "408"],
)
def test_faults_that_pass_are_tried_again(server: Server, tmp_path: Path, fault: str):
    fetched(server, tmp_path, fault, "drop", fault, fault)


@pytest.mark.parametrize("fault", ["no ranges", "wrong range", "416"])
def test_a_server_that_cannot_resume_is_asked_for_the_whole(
    server: Server, tmp_path: Path, fault: str
):
    assert fetched(server, tmp_path, "drop", fault) == [0, 1_000_000, 0]


@pytest.mark.parametrize("faults", [["corrupt"], ["drop", "corrupt"], ["long"], ["drop", "long"]])
def test_a_damaged_or_too_long_file_is_fetched_again_from_the_beginning(
    server: Server, tmp_path: Path, faults: list[str]
):
    assert fetched(server, tmp_path, *faults)[-1] == 0


def test_a_file_that_stays_damaged_is_refused_and_nothing_is_left(server: Server, tmp_path: Path):
    with pytest.raises(
        DownloadError, match="a.zip .*expected MD5 0{32}, found [0-9a-f]{32}, twice"
    ):
        download_file(remote(server, md5="0" * 32), tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists() and (tmp_path / "a.zip.part").stat().st_size == 0


@pytest.mark.parametrize(
    "size, message",
    [
        (len(DATA) + 5, "nothing from byte|416|sent 3000000 of 3000005"),
        (len(DATA) - 5, "sends more than"),
    ],
)
def test_a_record_that_lies_about_the_size_ends(
    server: Server, tmp_path: Path, size: int, message: str
):
    with pytest.raises(DownloadError, match=message):
        download_file(remote(server, size=size), tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize("status", ["401", "403", "404", "410"])
def test_what_another_attempt_will_not_change_is_said_at_once(
    server: Server, tmp_path: Path, status: str
):
    server.faults["/a.zip"] = [status] * 9
    with pytest.raises(DownloadError, match=f"a.zip: the server answered {status}"):
        download_file(remote(server), tmp_path / "a.zip")
    assert len(server.requests) == 1


def test_without_any_progress_it_gives_up_and_keeps_what_came(server: Server, tmp_path: Path):
    server.faults["/a.zip"] = ["drop"] + ["503"] * 99
    with pytest.raises(DownloadError, match="a.zip: .*503.*continues from there"):
        download_file(remote(server), tmp_path / "a.zip")
    assert len(server.requests) == 1 + module.ATTEMPTS
    server.faults.clear()
    assert fetched(server, tmp_path)[-1] == 1_000_000


def test_a_stalled_connection_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "STALLED_S", 1)
    start = time.perf_counter()
    fetched(server, tmp_path, "stall")
    assert time.perf_counter() - start < 15


def test_a_server_that_is_not_there_is_named(tmp_path: Path, server: Server):
    with pytest.raises(DownloadError, match="http://127.0.0.1:9/x: .*Is this computer connected?"):
        download_bytes("http://127.0.0.1:9/x")


def test_only_http_is_fetched(tmp_path: Path):
    (tmp_path / "secret").write_text("x", encoding="utf-8")
    with pytest.raises(DownloadError, match="file://"):
        download_bytes(f"file://{tmp_path}/secret")


def test_a_full_disk_is_not_taken_for_a_broken_connection(server: Server, tmp_path: Path):
    class Full:
        def __call__(self, count: int) -> None:
            if count > 0:
                raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        download_file(remote(server), tmp_path / "a.zip", Full())
    assert len(server.requests) == 1


def test_ctrl_c_ends_it_and_the_next_call_goes_on(server: Server, tmp_path: Path):
    """In a process of its own: a signal in the midst of libcurl's work."""
    script = (
        "import signal, sys, unet3d_tutorial.luna16.transfer as d\n"
        # A shell's background jobs begin without it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "f = d.RemoteFile(sys.argv[1], int(sys.argv[2]), 32 * '0')\n"
        "path = __import__('pathlib').Path(sys.argv[3])\n"
        "d.download_file(f, path, lambda n: print(n, flush=True))\n"
    )
    with serve() as slow:
        slow.files["/a.zip"], slow.faults["/a.zip"] = DATA, ["stall"]
        arguments = [slow.url("/a.zip"), str(len(DATA) + 9), tmp_path / "a.zip"]
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "no_proxy": "127.0.0.1"},
        )
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode != 0 and "KeyboardInterrupt" in errors.splitlines()[-1]
    assert (tmp_path / "a.zip.part").stat().st_size > 0
    assert fetched(server, tmp_path)[0] > 0
