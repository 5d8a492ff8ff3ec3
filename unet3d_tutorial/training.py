"""The training loop: a functional step, a schedule, a look at held-out volumes now and then, checkpoints."""

import csv
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from tqdm import tqdm

from .config import Config
from .dataset import create_dataset, validation_cases
from .inference import sliding_window_inference
from .losses import make_loss
from .metrics import dice
from .model import SegmentationNetwork, load_weights, make_network
from .runtime import setup
from .schedule import warmup_cosine, warmup_steps

HISTORY = ("step", "lr", "loss", "ce", "dice", "seconds")
VALIDATION = ("step", "left lung", "right lung", "trachea")
FINAL = "unet3d.ckpt"


@dataclass(frozen=True)
class TrainingResult:
    """What a run left behind. Columns of the tables by name, as lists of numbers."""

    checkpoint: Path  #: final weights
    history: dict[str, list[float]]  #: one entry a step: step, lr, loss, ce, dice (the Dice loss), seconds
    validation: dict[str, list[float]]  #: one entry a look: step and the mean Dice of each structure


def build_network(config: Config) -> SegmentationNetwork:
    """The network that ``config.model`` describes, freshly initialised."""
    return make_network(config.model.name, config.model.in_channels, config.model.num_classes, config.model.channels)


def load_network(config: Config, checkpoint: str | Path) -> SegmentationNetwork:
    """The network with the weights of ``checkpoint``, in evaluation mode.

    Evaluation mode matters: in training mode batch-norm uses the statistics of the scan at hand, and the result is
    ruined. Raises ``ValueError`` if the checkpoint belongs to another network.
    """
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f"no such checkpoint: {checkpoint}")
    network = build_network(config)
    try:
        weights = ms.load_checkpoint(str(checkpoint))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{checkpoint} is not a MindSpore checkpoint: {error}") from error
    load_weights(network, weights, source=str(checkpoint))
    network.set_train(False)
    return network


def predictor(network: nn.Cell):
    """The network as a function on NumPy arrays: ``(N, C, D, H, W)`` to logits ``(N, K, D, H, W)``."""
    return lambda batch: network(Tensor(np.ascontiguousarray(batch, np.float32))).asnumpy()


def make_train_step(network: nn.Cell, loss_fn: nn.Cell, optimizer: nn.Optimizer):
    """A function that takes a batch, changes the weights once and returns loss, cross-entropy and Dice loss."""

    def forward(image: Tensor, label: Tensor):
        return loss_fn(network(image), label)

    loss_and_gradients = ops.value_and_grad(forward, None, optimizer.parameters, has_aux=True)

    def train_step(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        losses, gradients = loss_and_gradients(image, label)
        optimizer(gradients)
        return losses

    return train_step


def validate(network: nn.Cell, config: Config, cases: list) -> list[float]:
    """Mean Dice of left lung, right lung and trachea over the cases, on the working grid, without post-processing."""
    network.set_train(False)
    scores = []
    for _, image, label in cases:
        logits = sliding_window_inference(image.array, config.inference.roi_size, predictor(network),
                                          overlap=config.inference.overlap, mode=config.inference.mode)
        found = logits.argmax(axis=0)
        scores.append([dice(found == k, label.array[0] == k, spacing_mm=image.spacing_mm)
                       for k in range(1, config.model.num_classes)])
    network.set_train(True)
    return np.mean(scores, axis=0).tolist()


def train(config: Config, *, overwrite: bool = False) -> TrainingResult:
    """Train the network of ``config`` on ``config.data.data_path`` and leave everything in ``config.train.output_path``.

    A finished run of the same configuration is read back instead of repeated. A finished run of another configuration
    raises ``ValueError`` unless ``overwrite``; an unfinished one is started anew.
    """
    folder = Path(config.train.output_path)
    if (folder / FINAL).exists() and not overwrite:
        if Config.load(folder / "config.yaml") != config:
            raise ValueError(f"{folder} holds a run of another configuration; choose another train.output_path or overwrite")
        return load_result(folder)
    setup(seed=config.train.seed, device_target=config.train.device_target)
    dataset = create_dataset(config)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    config.save(folder / "config.yaml")
    _run(config, dataset, folder)
    return load_result(folder)


def _run(config: Config, dataset, folder: Path) -> None:
    options = config.train
    total_steps = dataset.get_dataset_size()
    network = build_network(config)
    network.set_train(True)
    rates = learning_rates(config, total_steps)
    optimizer = nn.Adam(network.trainable_params(), learning_rate=Tensor(rates, ms.float32))
    train_step = make_train_step(network, make_loss(options.loss), optimizer)
    held_out = list(validation_cases(config))
    start = time.perf_counter()
    bar = tqdm(dataset.create_tuple_iterator(num_epochs=1), total=total_steps, desc="training", unit="step")
    for step, (image, label) in enumerate(bar):
        loss, ce, dice_loss = (float(value.asnumpy()) for value in train_step(image, label))
        if not np.isfinite(loss):
            raise FloatingPointError(f"step {step}: the loss is {loss}; try a lower train.lr")
        _append(folder / "history.csv", HISTORY, (step, rates[step], loss, ce, dice_loss, time.perf_counter() - start))
        bar.set_postfix(loss=f"{loss:.3f}", lr=f"{rates[step]:.1e}")
        if (step + 1) % options.validate_every == 0 or step + 1 == total_steps:
            scores = validate(network, config, held_out)
            _append(folder / "validation.csv", VALIDATION, (step + 1, *scores))
            save_checkpoint(network, folder / f"step-{step + 1:05d}.ckpt")
            for old in sorted(folder.glob("step-*.ckpt"))[: -options.keep_checkpoint_max]:
                old.unlink()
    save_checkpoint(network, folder / FINAL)


def learning_rates(config: Config, total_steps: int) -> list[float]:
    """The learning rate of each step, as ``config.train`` describes it."""
    options, warmup = config.train, config.train.warmup_step
    if options.warmup_epoch:
        warmup = warmup_steps(epochs=options.warmup_epoch, steps_per_epoch=total_steps // options.epoch_size)
    return warmup_cosine(lr=options.lr, total_steps=total_steps, warmup_step=warmup, warmup_ratio=options.warmup_ratio)


def save_checkpoint(network: nn.Cell, path: Path) -> None:
    """Write a checkpoint whole or not at all."""
    part = path.with_name(path.stem + ".part.ckpt")
    ms.save_checkpoint(network, str(part))
    part.replace(path)


def load_result(folder: str | Path) -> TrainingResult:
    """Read the tables of a finished run."""
    folder = Path(folder)
    return TrainingResult(folder / FINAL, _columns(folder / "history.csv"), _columns(folder / "validation.csv"))


def _append(path: Path, columns: tuple[str, ...], row: tuple) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(columns)
        writer.writerow(row)


def _columns(path: Path) -> dict[str, list[float]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}
