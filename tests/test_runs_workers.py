"""Watched workers: those of the stream, as long as there is one.

Deaths in the middle of a run are in `test_survival.py`.
"""

import multiprocessing
import threading
import time

import pytest

from unet3d_tutorial.runs.workers import WatchedFeed, WorkerKilled


def child() -> multiprocessing.Process:
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    process.start()
    return process


def kill(process: multiprocessing.Process) -> None:
    process.kill()
    process.join()


class Stream:
    """Like MindSpore's: its one worker starts with the first batch."""

    worker = None

    def __next__(self) -> int:
        self.worker = self.worker or child()
        return 1

    def stop(self) -> None:
        self.worker.terminate()
        self.worker.join()


@pytest.fixture
def stream():
    stream = Stream()
    yield stream
    kill(stream.worker)


@pytest.fixture
def feed(stream):
    mine = child()
    feed = WatchedFeed(stream, str)
    assert next(feed) == 1
    kill(mine)
    yield feed
    feed.is_over.set()


def test_only_a_process_of_the_stream_counts(feed, stream):
    kill(child())  # that of the fixture began before the stream, this one after
    assert next(feed) == 1
    kill(stream.worker)
    with pytest.raises(
        WorkerKilled,
        match=rf"process {stream.worker.pid}, was killed by signal 9; .* data.num_worker",
    ):
        next(feed)


def test_a_stopped_feed_leaves_no_worker_and_no_watcher(feed, stream):
    watchers = [thread for thread in threading.enumerate() if "_watch" in thread.name]
    feed.stop()
    assert stream.worker.exitcode == -15 and feed.stream is None
    for watcher in watchers:
        watcher.join(timeout=10)
    assert watchers and not any(watcher.is_alive() for watcher in watchers)


def test_workers_are_left_alone_after_one_was_killed(feed, stream):
    kill(stream.worker)
    stream.stop = lambda: pytest.fail("MindSpore could wait for the dead one here")
    feed.stop()
    assert feed.stream is stream
