"""Figures and measurements of the chapters on the learning rate, the loss and training."""

import unet3d_tutorial.environment  # noqa: F401

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from numpy.typing import NDArray

from ..config import Config
from ..labels import COLORS
from ..losses import DiceCELoss, make_loss
from ..runs.device import setup
from ..runs.networks import build_network
from ..training_step import make_train_step
from .toy import crop_around

#: Line styles and colours that colour-blind readers can tell apart, even in grey.
STYLES: list[tuple] = [
    ("-", "#0072B2"),
    ("--", "#E69F00"),
    ("-.", "#009E73"),
    ((0, (5, 1)), "#CC79A7"),
    (":", "0.5"),
    ((0, (3, 1, 1, 1, 1, 1)), "black"),
]


# ------------------------------------------------------------------------------------ learning rate


def train_with(
    config: Config, rates: Sequence[float], image: Tensor, label: Tensor
) -> tuple[list[float], nn.Cell]:
    """Train a new network repeatedly on one crop, with one learning rate per step.

    ``image`` is ``(N, C, D, H, W)``. ``label`` has class numbers ``(N, D, H, W)``, or is one-hot,
    ``(N, classes, D, H, W)``. Returns the losses and the network.
    """
    setup(seed=1)
    network = build_network(config)
    network.set_train(True)
    rate = Tensor(list(rates), ms.float32)
    step = make_train_step(
        network, DiceCELoss(), nn.Adam(network.trainable_params(), learning_rate=rate)
    )
    losses = [float(step(image, label)[0].asnumpy()) for _ in rates]
    return losses, network


def draw_losses(losses: Mapping[str, Sequence[float]]) -> None:
    """Draw the loss over the steps of several short runs, on a logarithmic axis."""
    _, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for (name, values), (style, color) in zip(losses.items(), STYLES, strict=False):
        ax.plot(values, linestyle=style, color=color, linewidth=2, label=name)
    ax.set(xlabel="step", ylabel="loss (cross-entropy + Dice), logarithmic", yscale="log")
    ax.set_yticks((0.5, 1, 2, 4, 8), ("0.5", "1", "2", "4", "8"))
    ax.minorticks_off()
    ax.legend(fontsize=8)
    ax.grid(alpha=0.3)
    plt.show()


# --------------------------------------------------------------------------------------------- loss


def logits_of(labels: NDArray, classes: int = 4) -> Tensor:
    """Return logits ``(1, classes, I, J, K)`` of a network that is sure of ``labels``.

    ``labels`` are class numbers ``(I, J, K)``. The logit is 10 for the label and 0 otherwise.
    """
    one_hot = labels == np.arange(classes).reshape(1, classes, 1, 1, 1)
    return Tensor(10 * one_hot.astype(np.float32))


def pull_of(loss: nn.Cell, logits: Tensor, truth: Tensor) -> tuple[NDArray, NDArray]:
    """Measure how strongly a loss pulls on the logits.

    ``logits`` and the one-hot ``truth`` are ``(1, classes, I, J, K)``. Returns the gradient times
    the number of voxels, ``(classes, I, J, K)``, and, for each class, the mean of its absolute
    value, summed over the logits, at the voxels of that class.
    """
    labels = truth.asnumpy()[0].argmax(axis=0)
    gradient = ms.grad(lambda z: loss(z, truth))(logits).asnumpy()[0] * labels.size
    size = abs(gradient).sum(axis=0)
    means = [size[labels == value].mean() for value in range(len(gradient))]
    return gradient, np.array(means)


def draw_pulls(pulls: Mapping[tuple[str, str], NDArray], classes: Sequence[str]) -> None:
    """Draw the mean pull of two losses at a voxel of each class; keys are (moment, loss)."""
    moments = list(dict.fromkeys(moment for moment, _ in pulls))
    looks = [(-0.2, "cross-entropy", "0.45"), (0.2, "Dice", "#CC79A7")]
    _, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
    for ax, moment in zip(axes, moments, strict=True):
        for shift, name, color in looks:
            places = np.arange(len(classes)) + shift
            ax.bar(places, pulls[moment, name], 0.4, label=name, color=color)
        ax.set_xticks(range(len(classes)), classes)
        ax.set(title=moment, yscale="log")
    axes[0].set_ylabel("pull at one voxel")
    axes[0].legend(fontsize=8, loc="upper left")
    plt.show()


def recalls_while_training(config: Config, loss: str, steps: Sequence[int]) -> list[list[float]]:
    """Return the recall of each structure, 0 to 1, at some steps of a run on one crop.

    The result has one list per entry of ``steps``, for left lung, right lung and trachea.
    """
    image, labels = crop_around(config, value=3)
    crop = Tensor(image)
    setup(seed=1)
    network = build_network(config)
    network.set_train(True)
    optimizer = nn.Adam(network.trainable_params(), learning_rate=0.003)
    step = make_train_step(network, make_loss(loss), optimizer)
    recalls = []
    for number in range(steps[-1] + 1):
        if number in steps:
            guess = network(crop).asnumpy().argmax(axis=1)
            recalls.append([float((guess == k)[labels == k].mean()) for k in (1, 2, 3)])
        step(crop, Tensor(labels))
    return recalls


def draw_recalls(steps: Sequence[int], recalls: Mapping[str, list[list[float]]]) -> None:
    """Draw the results of :func:`recalls_while_training` for two losses, by their names."""
    looks = {"DiceCELoss": ("-", "sum"), "CrossEntropyLoss": ("--", "cross-entropy alone")}
    _, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for name, (style, words) in looks.items():
        columns = np.array(recalls[name]).T
        for column, (structure, color) in zip(columns, COLORS.items(), strict=True):
            label = f"{structure}, {words}"
            ax.plot(steps, column, style, color=color, linewidth=2, label=label)
    ax.set(xlabel="step", ylabel="share of the voxels found", ylim=(-0.03, 1.03))
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    plt.show()
