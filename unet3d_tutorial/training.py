"""The training loop: steps, looks at held-out volumes, checkpoints to go on from, and an orderly
end when it breaks.
"""

import unet3d_tutorial.environment  # noqa: F401

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from .config import Config
from .dataset import (
    batch_names,
    check_cases,
    count_steps,
    create_dataset,
    plain_error,
    validation_cases,
)
from .inference import sliding_window_inference
from .labels import structure_names
from .losses import make_loss
from .metrics import dice
from .runs.checkpoints import (
    FINAL,
    LAST,
    RunState,
    load_state,
    load_weights,
    publish,
    save_checkpoint,
    save_state,
)
from .runs.curves import Tracker, Watch, write_summary
from .runs.device import setup
from .runs.folder import HISTORY_FILE, VALIDATION_FILE, begin, is_finished, locked
from .runs.history import append_row, history_columns, read_columns, rewind, validation_columns
from .runs.networks import build_network, load_network, predictor
from .runs.processes import ALONE, Group, join, own_device
from .runs.profile import Profile
from .runs.store import download, download_file, open_store, upload
from .runs.workers import WatchedFeed, WorkerKilled
from .schedule import warmup_cosine, warmup_steps
from .training_step import MovingAverage, TrainStep, make_train_step

__all__ = [
    "FINAL",
    "Run",
    "TrainingResult",
    "build_network",
    "load_network",
    "load_result",
    "make_train_step",
    "predictor",
    "save_checkpoint",
    "train",
    "validate",
]
WATCH_EVERY = 20  #: steps between calls of ``watch``


@dataclass(frozen=True)
class TrainingResult:
    """What a run left behind. Columns of the tables by name, as lists of numbers."""

    checkpoint: Path  #: final weights
    #: one entry a step, columns of :func:`unet3d_tutorial.runs.history.history_columns`
    history: dict[str, list[float]]
    #: one entry a look: step and the mean Dice of each structure
    validation: dict[str, list[float]]


def validate(network: nn.Cell, config: Config, cases: list, group: Group = ALONE) -> list[float]:
    """Mean Dice of each structure over the cases, on the working grid, without post-processing.

    The processes of a group share the cases; all get the mean over all.
    """
    network.set_train(False)
    scores = np.zeros((len(cases), config.model.num_classes - 1))
    for number in range(group.rank_id, len(cases), group.rank_size):
        _, image, label = cases[number]
        logits = sliding_window_inference(
            image.array,
            config.inference.roi_size,
            predictor(network),
            overlap=config.inference.overlap,
            mode=config.inference.mode,
        )
        found = logits.argmax(axis=0)
        scores[number] = [
            dice(found == k, label.array[0] == k, spacing_mm=image.spacing_mm)
            for k in range(1, config.model.num_classes)
        ]
    network.set_train(True)
    return np.mean(group.sum(scores), axis=0).tolist()


def train(config: Config, *, overwrite: bool = False, watch: Watch | None = None) -> TrainingResult:
    """Train the network of ``config`` on ``config.data.data_path`` and leave everything in
    ``config.train.output_path``.

    A finished run of the same configuration is read back instead of repeated, and what
    ``remote.train_url`` lacks of it is copied there. An unfinished one goes on from its last
    checkpoint and ends with the bits that it would have ended with anyway. A run of another
    configuration raises ``ValueError`` unless ``overwrite``. ``watch`` is called now and then with
    the tables so far.

    Every file's header and length, and the warm-up, are looked at first. Raises
    ``FileNotFoundError`` or ``BadScanError``, naming the file, if a scan is missing or damaged,
    ``ValueError`` if the warm-up is longer than the run, ``FloatingPointError`` if the loss is not
    finite, ``RuntimeError`` if another process uses the folder or a data worker was killed,
    ``OSError`` if something cannot be written, ``KeyboardInterrupt`` after Ctrl-C, once the step is
    finished and saved.
    """
    folder = Path(config.train.output_path)
    finished = not overwrite and is_finished(folder, config)
    if finished and not config.remote.train_url:
        return load_result(folder)
    setup(
        seed=config.train.seed,
        device_target=config.train.device_target,
        device_id=own_device(config.train),
    )
    group = join(config.train)
    if not finished:
        _run(config, folder, group, overwrite, watch)
    elif group.leads:  # the last copy may have failed
        with locked(folder):
            upload_run(config, folder)
    group.wait()
    return load_result(folder)


def _run(config: Config, folder: Path, group: Group, overwrite: bool, watch: Watch | None) -> None:
    fetch_data(config, group)
    check_cases(config)  # this and the next before anything is touched
    learning_rates(config, count_steps(config, rank_size=group.rank_size))
    with ExitStack() as stack:
        if group.leads:
            stack.enter_context(locked(folder))
            begin(folder, config, overwrite=overwrite)
        group.wait()
        Run(config, folder, group).go(watch)


def learning_rates(config: Config, total_steps: int) -> list[float]:
    """The learning rate of each step, as ``config.train`` describes it."""
    options, warmup = config.train, config.train.warmup_step
    if options.warmup_epoch:
        warmup = warmup_steps(
            epochs=options.warmup_epoch, steps_per_epoch=total_steps / options.epoch_size
        )
    return warmup_cosine(
        lr=options.lr,
        total_steps=total_steps,
        warmup_step=warmup,
        warmup_ratio=options.warmup_ratio,
    )


def fetch_data(config: Config, group: Group = ALONE) -> None:
    """Copy ``remote.data_url`` to ``data.data_path``: one process of each host does, the others
    wait for it.
    """
    if config.remote.data_url:
        if group.local_rank == 0:
            download(open_store(config.remote.data_url, config.remote), Path(config.data.data_path))
        group.wait()


def upload_run(config: Config, folder: Path) -> None:
    """Copy the folder of a run to ``remote.train_url``, if there is one: what the store lacks or
    has otherwise.
    """
    if config.remote.train_url:
        upload(folder, open_store(config.remote.train_url, config.remote))


class Run:
    """One training run: its parts, and where it stands.

    With several processes only the first one writes.
    """

    def __init__(self, config: Config, folder: Path, group: Group = ALONE):
        options = config.train
        self.config = config
        self.folder = folder
        self.group = group
        structures = structure_names(config.data.lower_limit, config.data.upper_limit)
        self.columns = history_columns(structures)
        self.look_columns = validation_columns(structures)
        self.total_steps = count_steps(config, rank_size=group.rank_size)
        self.rates = learning_rates(config, self.total_steps)
        self.feed: WatchedFeed | None = None
        self.state = RunState(loss_scale=options.loss_scale, rank_size=group.rank_size)
        self.network = build_network(config)
        self.network.set_train(True)
        self.optimizer = nn.Adam(
            self.network.trainable_params(), learning_rate=Tensor(self.rates, ms.float32)
        )
        self.average = MovingAverage(self.network, options.average_decay)
        loss_fn = make_loss(options.loss, per_class=True)
        self.train_step = TrainStep(
            self.network, loss_fn, self.optimizer, options, self.state, group
        )
        self.held_out = list(validation_cases(config))

    # ------------------------------------------------------------------------------------- the loop
    def go(self, watch: Watch | None = None) -> None:
        """Do the steps that are left, then write the final weights."""
        self.resume()
        profile = Profile(self.folder, self.config.train.enable_profiling and self.group.leads)
        clock = profile.clock
        begun = time.perf_counter() - self.state.seconds
        tracker = Tracker(
            self.folder,
            self.total_steps,
            self.state.step,
            self._tables(),
            events=self.config.train.event_files,
            show=self.group.leads,
        )
        with tracker, StopRequest() as request, closing(self._batches()) as steps:
            for wait, batches in steps:
                request.listen()
                clock.seconds["waiting for data"] += wait
                with clock.phase("steps"):
                    tracker.step(self._step(batches, wait, begun))
                profile.step()
                stop = self.group.sum(np.array([float(request.asked)]))[0] > 0
                if self._is_look():
                    with clock.phase("looks at held-out volumes"):
                        tracker.look(self._look())
                if self._is_look() or stop or self.state.step % self.config.train.save_every == 0:
                    with clock.phase("checkpoints"):
                        self._save()
                if watch and (self._is_look() or self.state.step % WATCH_EVERY == 0):
                    watch(*self._tables())
                if stop:
                    self._check_workers()  # a worker's death comes as a signal, too
                    raise KeyboardInterrupt
        profile.close()
        self._finish()

    def _batches(self) -> Iterator[tuple[float, list]]:
        """For each step that is left: the seconds that its batches kept us waiting, and the
        batches.
        """
        dataset = create_dataset(
            self.config,
            rank_size=self.group.rank_size,
            rank_id=self.group.rank_id,
            first_step=self.state.step,
        )
        stream = dataset.create_tuple_iterator(num_epochs=1)
        if self.config.data.worker_processes:
            stream = self.feed = WatchedFeed(stream, self._last_words)
        try:
            for _ in range(self.state.step, self.total_steps):
                start = time.perf_counter()
                taken = [next(stream) for _ in range(self.config.train.accumulate)]
                yield time.perf_counter() - start, taken
        except WorkerKilled as error:
            raise WorkerKilled(self._last_words(error)) from error
        except RuntimeError as error:
            if (plain := plain_error(error)) is None:
                raise
            reason = (
                f"step {self.state.step}: {plain}. Once that is mended, the same command goes on"
            )
            raise type(plain)(reason) from error
        finally:
            stream.stop()

    def _check_workers(self) -> None:
        """Raise ``WorkerKilled`` if a process that makes crops was."""
        if self.feed:
            try:
                self.feed.check()
            except WorkerKilled as error:
                raise WorkerKilled(self._last_words(error)) from error

    def _last_words(self, error: WorkerKilled) -> str:
        """What ``error`` means for the run."""
        return f"step {self.state.step}: {error}; {self._last_good()}"

    def _step(self, batches: list, wait: float, begun: float) -> dict[str, float]:
        """Change the weights once and write the line of the history."""
        step, rate = self.state.step, self.rates[self.state.step - self.state.skipped]
        try:
            losses = self.group.sum(self.train_step(batches)) / self.group.rank_size
        except FloatingPointError as error:
            raise FloatingPointError(self._broken(step, f"step {step}: {error}")) from error
        self.average.update()
        self.state.step += 1
        loss, ce, dice, _background, *structures = losses.tolist()  # the last ones are Dice losses
        self.state.metrics["loss"], self.state.seconds = loss, time.perf_counter() - begun
        values = (
            step,
            rate,
            loss,
            ce,
            dice,
            self.train_step.norm,
            self.state.seconds,
            wait,
            self.state.skipped,
            *(1 - value for value in structures),
        )
        if self.group.leads:
            append_row(self.folder / HISTORY_FILE, self.columns, values)
        return dict(zip(self.columns, values, strict=True))

    def _is_look(self) -> bool:
        return self.state.step > 0 and (
            self.state.step % self.config.train.validate_every == 0
            or self.state.step == self.total_steps
        )

    def _look(self) -> dict[str, float]:
        """Score the held-out volumes, write the line, and remember the best."""
        state, columns = self.state, self.look_columns
        with self.average.in_place():
            scores = validate(self.network, self.config, self.held_out, self.group)
        if self.group.leads:
            append_row(self.folder / VALIDATION_FILE, columns, (state.step, *scores))
        state.looks += 1
        state.metrics |= dict(zip(columns[1:], scores, strict=True))
        if np.mean(scores) > state.best_dice:
            state.best_dice = float(np.mean(scores))
            state.best_step = state.step
        return dict(zip(columns, (state.step, *scores), strict=True))

    # -------------------------------------------------------------------------- what is on the disk
    def _save(self) -> None:
        if not self.group.leads:
            return
        try:
            save_state(
                self.folder / LAST,
                self.config,
                self.state,
                self.network,
                self.optimizer,
                self.average.parameters,
            )
        except FloatingPointError as error:
            raise FloatingPointError(self._broken(self.state.step - 1, str(error))) from error
        if self._is_look():
            publish(self.folder, self.state, self.config.train.keep_checkpoint_max)
        try:
            upload_run(self.config, self.folder)
        except OSError as error:
            print(
                f"step {self.state.step}: {error}; training goes on, the next checkpoint tries again",
                flush=True,
            )

    def resume(self) -> None:
        """Take up the last checkpoint, if there is one, and cut the tables to it.

        Otherwise begin at step 0.
        """
        if (self.folder / LAST).exists():
            stored = load_state(
                self.folder / LAST,
                self.config,
                self.network,
                self.optimizer,
                self.average.parameters,
            )
            if stored.rank_size != self.group.rank_size:
                raise ValueError(
                    f"{self.folder} holds a run of {stored.rank_size} processes, found {self.group.rank_size}; "
                    "start as many, choose another train.output_path or overwrite"
                )
            vars(self.state).update(vars(stored))
        elif self.config.remote.checkpoint_url:
            self._begin_with(self.config.remote.checkpoint_url)
        if not self.group.leads:
            return
        rewind(self.folder / HISTORY_FILE, self.columns, self.state.step)
        rewind(self.folder / VALIDATION_FILE, self.look_columns, self.state.looks)
        if self.state.step:
            print(
                f"{self.folder}: goes on from step {self.state.step} of {self.total_steps}",
                flush=True,
            )
        if self._is_look():
            publish(self.folder, self.state, self.config.train.keep_checkpoint_max)

    def _begin_with(self, url: str) -> None:
        """Take the first weights from a checkpoint that lies elsewhere."""
        if self.group.local_rank == 0:
            download_file(url, self.folder / "begin", self.config.remote)
        self.group.wait()
        load_weights(self.network, self.folder / "begin" / url.rpartition("/")[2])

    def _finish(self) -> None:
        if not self.group.leads:
            return
        if self.config.train.event_files:
            write_summary(self.folder, *self._tables())
        with self.average.in_place():
            save_checkpoint(self.network, self.folder / FINAL)
        upload_run(self.config, self.folder)

    def _tables(self) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        paths = (self.folder / HISTORY_FILE, self.folder / VALIDATION_FILE)
        return tuple(read_columns(path) if path.exists() else {} for path in paths)

    def _broken(self, step: int, what: str) -> str:
        """What to tell the user when ``step`` made numbers that are not finite."""
        names = batch_names(
            self.config, step, rank_size=self.group.rank_size, rank_id=self.group.rank_id
        )
        return f"{what}; it came from {', '.join(names)}; {self._last_good()}; try a lower train.lr or set train.clip_norm"

    def _last_good(self) -> str:
        last = self.folder / LAST
        return (
            f"the last good checkpoint is {last}" if last.exists() else "there is no checkpoint yet"
        )


class StopRequest:
    """Notices Ctrl-C, or SIGTERM from a cluster, so that the step can be finished first; the second
    one stops at once.

    MindSpore puts a handler of its own in the place of Python's whenever it runs a graph, and that
    one turns Ctrl-C into SIGTERM. So both are listened to, again before each step.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.asked = False
        self.before = {number: signal.getsignal(number) for number in self.SIGNALS}

    def listen(self) -> None:
        if not self.asked:
            self._set(dict.fromkeys(self.SIGNALS, self._ask))

    def _ask(self, *_) -> None:
        self.asked = True
        self._set(self.before)

    def _set(self, handlers: dict) -> None:
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def __enter__(self) -> "StopRequest":
        return self

    def __exit__(self, *_) -> None:
        self._set(self.before)


def load_result(folder: str | Path) -> TrainingResult:
    """Read the tables of a finished run."""
    folder = Path(folder)
    return TrainingResult(
        folder / FINAL, read_columns(folder / HISTORY_FILE), read_columns(folder / VALIDATION_FILE)
    )
