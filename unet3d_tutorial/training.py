"""The training loop: steps, validations between them, and checkpoints to continue from.

A single step is in :mod:`unet3d_tutorial.training_step`. The files that a run writes, and how it
recovers from interruptions, are in :mod:`unet3d_tutorial.runs`.
"""

import unet3d_tutorial.environment  # noqa: F401

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
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
from .losses import make_loss
from .metrics import dice
from .runs.checkpoints import FINAL, RunState, save_checkpoint
from .runs.copies import copy_data, copy_run
from .runs.curves import Tracker, Watch
from .runs.device import setup
from .runs.folder import describe_last_checkpoint, is_finished, prepare_folder, reserved
from .runs.networks import build_network, load_network, predictor
from .runs.processes import ALONE, Group, join, own_device
from .runs.profile import Profile
from .runs.record import RunRecord
from .runs.result import TrainingResult, load_result
from .runs.stopping import StopRequest
from .runs.workers import WatchedFeed, WorkerKilled
from .schedule import warmup_cosine, warmup_steps
from .training_step import Batch, MovingAverage, TrainStep, make_train_step
from .volume import Volume

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

WATCH_EVERY = 20  #: number of steps between calls of ``watch``


def train(config: Config, *, overwrite: bool = False, watch: Watch | None = None) -> TrainingResult:
    """Train the network of ``config`` on ``data.data_path``; write to ``train.output_path``.

    A finished run of the same configuration is loaded instead of repeated, and files of it that are
    missing at ``remote.train_url`` are copied there. An unfinished run continues from its last
    checkpoint, and its final weights are bit for bit those of an uninterrupted run. If the folder
    holds a run of a different configuration, ``ValueError`` is raised, unless ``overwrite``.
    ``watch`` is called from time to time with the tables recorded so far.

    The header and length of every file, and the warm-up, are checked first. Raises:

    - ``FileNotFoundError`` or ``BadScanError``, naming the file, if a scan is missing or damaged;
    - ``ValueError`` if the warm-up is not shorter than the run;
    - ``FloatingPointError`` if the loss is not finite;
    - ``RuntimeError`` if another process uses the folder, or a data worker was killed;
    - ``OSError`` if a file cannot be written;
    - ``KeyboardInterrupt`` after Ctrl-C, once the current step is finished and saved.
    """
    folder = Path(config.train.output_path)
    is_done = not overwrite and is_finished(folder, config)
    if is_done and not config.remote.train_url:
        return load_result(folder)

    setup(
        seed=config.train.seed,
        device_target=config.train.device_target,
        device_id=own_device(config.train),
    )
    group = join(config.train)
    if not is_done:
        _train(config, folder, group, overwrite=overwrite, watch=watch)
    elif group.leads:  # the last copy may have failed
        with reserved(folder):
            copy_run(config, folder)
    group.wait()
    return load_result(folder)


def _train(
    config: Config, folder: Path, group: Group, *, overwrite: bool, watch: Watch | None
) -> None:
    copy_data(config, group)
    # Problems with data and settings are found before the folder is changed.
    check_cases(config)
    learning_rates(config, count_steps(config, rank_size=group.rank_size))
    with ExitStack() as stack:
        if group.leads:
            stack.enter_context(reserved(folder))
            prepare_folder(folder, config, overwrite=overwrite)
        group.wait()
        Run(config, folder, group).go(watch)


def learning_rates(config: Config, total_steps: int) -> list[float]:
    """The learning rate of each step, as ``config.train`` describes it."""
    options = config.train
    warmup_step = options.warmup_step
    if options.warmup_epoch:
        steps_per_epoch = total_steps / options.epoch_size
        warmup_step = warmup_steps(epochs=options.warmup_epoch, steps_per_epoch=steps_per_epoch)
    return warmup_cosine(
        lr=options.lr,
        total_steps=total_steps,
        warmup_step=warmup_step,
        warmup_ratio=options.warmup_ratio,
    )


def validate(
    network: nn.Cell,
    config: Config,
    cases: Sequence[tuple[str, Volume, Volume]],
    group: Group = ALONE,
) -> list[float]:
    """Mean Dice of each structure over the cases, on the working grid, without post-processing.

    ``cases`` are those of :func:`~unet3d_tutorial.dataset.validation_cases`. The processes of a
    group divide them among themselves; each gets the mean over all cases.
    """
    options = config.inference
    scores = np.zeros((len(cases), config.model.num_classes - 1))
    network.set_train(False)
    for number in range(group.rank_id, len(cases), group.rank_size):
        _, image, label = cases[number]
        logits = sliding_window_inference(
            image.array,
            options.roi_size,
            predictor(network),
            overlap=options.overlap,
            mode=options.mode,
        )
        prediction = logits.argmax(axis=0)
        truth = label.array[0]
        for value in range(1, config.model.num_classes):
            scores[number, value - 1] = dice(
                prediction == value, truth == value, spacing_mm=image.spacing_mm
            )
    network.set_train(True)
    return np.mean(group.sum(scores), axis=0).tolist()


class Run:
    """One training run: its parts and its progress. :meth:`go` is the loop."""

    def __init__(self, config: Config, folder: Path, group: Group = ALONE) -> None:
        options = config.train
        self.config = config
        self.folder = folder
        self.group = group
        self.total_steps = count_steps(config, rank_size=group.rank_size)
        self.rates = learning_rates(config, self.total_steps)
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

        self.record = RunRecord(
            config,
            folder,
            group,
            network=self.network,
            optimizer=self.optimizer,
            average=self.average.parameters,
        )
        self.profile = Profile(folder, is_enabled=options.enable_profiling and group.leads)
        self.started = 0.0  # start time in s, as if the run had never been interrupted
        self.feed: WatchedFeed | None = None

    # ------------------------------------------------------------------------------------- the loop

    def go(self, watch: Watch | None = None) -> None:
        """Do the remaining steps, then write the final weights."""
        self.resume()
        self.profile.start()
        self.started = time.perf_counter() - self.state.seconds
        with (
            self._tracker() as tracker,
            StopRequest() as stop_request,
            closing(self._batches()) as steps,
        ):
            for batches, wait in steps:
                stop_request.listen()
                tracker.show_step(self.step(batches, wait))
                is_stopping = self._anywhere(stop_request.is_asked)

                if self._validation_is_due():
                    tracker.show_validation(self.validate())
                if self._validation_is_due() or self._save_is_due() or is_stopping:
                    self.save()
                if watch and (self._validation_is_due() or self.state.step % WATCH_EVERY == 0):
                    watch(*self.record.tables())
                if is_stopping:
                    self._check_workers()  # the death of a worker is signalled, too
                    raise KeyboardInterrupt
        self.profile.close()
        self.finish()

    def step(self, batches: Sequence[Batch], wait: float) -> dict[str, float]:
        """Update the weights once and record it; ``wait`` is the time spent on data, in s."""
        with self.profile.clock.phase("steps"):
            number = self.state.step
            rate = self.rates[number - self.state.skipped]  # as the optimiser counts its steps
            try:
                losses = self.group.sum(self.train_step(batches)) / self.group.rank_size
            except FloatingPointError as error:
                problem = f"step {number}: {error}"
                raise FloatingPointError(self._describe_broken(number, problem)) from error
            self.average.update()

            loss, cross_entropy, dice_loss, _background, *dice_losses = losses.tolist()
            self.state.step += 1
            self.state.seconds = time.perf_counter() - self.started
            self.state.metrics["loss"] = loss
            row = self.record.add_step(
                {
                    "step": number,
                    "lr": rate,
                    "loss": loss,
                    "ce": cross_entropy,
                    "dice": dice_loss,
                    "norm": self.train_step.norm,
                    "seconds": self.state.seconds,
                    "wait": wait,
                    "skipped": self.state.skipped,
                },
                [1 - structure_loss for structure_loss in dice_losses],
            )
        self.profile.count_step()
        return row

    def validate(self) -> dict[str, float]:
        """Score the validation volumes, record the scores, and remember the best ones."""
        with self.profile.clock.phase("validation"):
            with self.average.in_place():
                scores = validate(self.network, self.config, self.held_out, self.group)
            row = self.record.add_validation([self.state.step, *scores])

            self.state.looks += 1
            structures = self.record.validation_columns[1:]
            self.state.metrics |= dict(zip(structures, scores, strict=True))
            mean = float(np.mean(scores))
            if mean > self.state.best_dice:
                self.state.best_dice = mean
                self.state.best_step = self.state.step
        return row

    def save(self) -> None:
        """Write a checkpoint to continue from; one after a validation is kept longer."""
        with self.profile.clock.phase("checkpoints"):
            try:
                self.record.save(self.state)
            except FloatingPointError as error:
                last_step = self.state.step - 1
                raise FloatingPointError(self._describe_broken(last_step, str(error))) from error
            if self._validation_is_due():
                self.record.keep_validated(self.state)
            self.record.copy(self.state)

    def resume(self) -> None:
        """Continue from the last checkpoint, if there is one; otherwise start at step 0."""
        stored = self.record.load()
        if stored:
            # Updated in place, because the training step refers to the same object.
            vars(self.state).update(vars(stored))
        else:
            self.record.load_first_weights()
        self.record.rewind(self.state)
        if self.state.step and self.group.leads:
            print(
                f"{self.folder}: continues from step {self.state.step} of {self.total_steps}",
                flush=True,
            )
        if self._validation_is_due():
            self.record.keep_validated(self.state)

    def finish(self) -> None:
        """Write the final weights: the averages, if there is a moving average."""
        with self.average.in_place():
            self.record.finish()

    # ---------------------------------------------------------------------------- parts of the loop

    def _batches(self) -> Generator[tuple[list[Batch], float], None, None]:
        """Yield the batches of each remaining step, and the time spent waiting for them, in s."""
        dataset = create_dataset(
            self.config,
            rank_size=self.group.rank_size,
            rank_id=self.group.rank_id,
            first_step=self.state.step,
        )
        stream = dataset.create_tuple_iterator(num_epochs=1)
        if self.config.data.worker_processes:
            stream = self.feed = WatchedFeed(stream, self._describe_death)
        try:
            for _ in range(self.state.step, self.total_steps):
                start = time.perf_counter()
                batches = [next(stream) for _ in range(self.config.train.accumulate)]
                wait = time.perf_counter() - start
                self.profile.clock.seconds["waiting for data"] += wait
                yield batches, wait
        except WorkerKilled as error:
            raise WorkerKilled(self._describe_death(error)) from error
        except RuntimeError as error:
            cause = plain_error(error)
            if cause is None:
                raise
            raise type(cause)(
                f"step {self.state.step}: {cause}. Once this is fixed, run the same command again "
                "to continue"
            ) from error
        finally:
            stream.stop()

    def _tracker(self) -> Tracker:
        return Tracker(
            self.folder,
            self.total_steps,
            self.state.step,
            self.record.tables(),
            events=self.config.train.event_files,
            show=self.group.leads,
        )

    def _validation_is_due(self) -> bool:
        step = self.state.step
        is_regular = step > 0 and step % self.config.train.validate_every == 0
        return is_regular or step == self.total_steps

    def _save_is_due(self) -> bool:
        return self.state.step % self.config.train.save_every == 0

    def _anywhere(self, is_so: bool) -> bool:
        """Whether ``is_so`` holds in at least one of the processes."""
        return self.group.sum(np.array([float(is_so)]))[0] > 0

    def _check_workers(self) -> None:
        """Raise ``WorkerKilled`` if a data worker was killed."""
        if self.feed:
            try:
                self.feed.check()
            except WorkerKilled as error:
                raise WorkerKilled(self._describe_death(error)) from error

    # ----------------------------------------------------------------------------- error messages

    def _describe_death(self, error: WorkerKilled) -> str:
        return f"step {self.state.step}: {error}; {describe_last_checkpoint(self.folder)}"

    def _describe_broken(self, step: int, problem: str) -> str:
        """The message for the user if ``step`` gave numbers that are not finite."""
        names = batch_names(
            self.config, step, rank_size=self.group.rank_size, rank_id=self.group.rank_id
        )
        return (
            f"{problem}; it came from {', '.join(names)}; {describe_last_checkpoint(self.folder)}; "
            "try a lower train.lr or set train.clip_norm"
        )
