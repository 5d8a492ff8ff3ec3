"""The figures and measurements of the chapter on the data set."""

import unet3d_tutorial.environment  # noqa: F401

import time
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..config import Config
from ..dataset import create_dataset
from .pictures import draw_labels, draw_slice, panels

Corner = tuple[int, int, int]  #: the voxel at which a crop begins
STAGES = {
    "files": "image and seg",
    "fixed steps": "once a scan",
    "prepared scans": "memory or disk",
    "random steps": "each sample anew",
    "batch": "(N, C, D, H, W)",
    "network": "one step",
}
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"


def show_pipeline() -> Figure:
    """Draw the pipeline from files to the network; the random steps have another colour."""
    figure, axes = panels(1, 1, (10, 1.9))
    axis = axes[0, 0]
    for place, (name, text) in enumerate(STAGES.items()):
        _draw_stage(axis, place, f"{name}\n{text}", ORANGE if name == "random steps" else BLUE)
    for place in range(1, len(STAGES)):
        arrow = {"arrowstyle": "->", "linewidth": 2}
        axis.annotate("", (place - 0.44, 0), (place - 0.58, 0), arrowprops=arrow)
    axis.annotate(
        "run's seed, number of the sample",
        (3, 0.35),
        (3, 0.95),
        ha="center",
        fontsize=8,
        arrowprops={"arrowstyle": "->"},
    )
    axis.axis((-0.5, 5.5, -0.5, 1.2))
    axis.set_axis_off()
    return figure


def _draw_stage(axis: Axes, place: int, text: str, color: str) -> None:
    """Draw one box of the pipeline."""
    box = {
        "boxstyle": "round,pad=0.5",
        "facecolor": "white",
        "edgecolor": color,
        "linewidth": 2,
    }
    axis.annotate(text, (place, 0), ha="center", va="center", fontsize=8, bbox=box)


def show_corners(corners: Mapping[str, Sequence[Corner]], workers: int = 4) -> Figure:
    """Draw where crops begin along R and A, one panel for each way of seeding.

    ``corners`` maps the title of a panel to the corners of its crops, in voxels, sorted by worker.
    All of the ``workers`` make equally many.
    """
    figure, axes = panels(1, len(corners), (8.5, 3.4), sharex=True, sharey=True)
    colors = (BLUE, ORANGE, GREEN, PINK)
    for axis, (title, places) in zip(axes[0], corners.items(), strict=True):
        for worker, share in enumerate(np.split(np.array(places), workers)):
            axis.scatter(
                *share.T[:2],
                s=160 - 40 * worker,
                marker="o^sD"[worker],
                color=colors[worker],
                label=f"worker {worker}",
            )
        axis.set(title=title, xlabel="corner along R, voxels")
    axes[0, 0].set_ylabel("corner along A, voxels")
    axes[0, 0].legend(fontsize=8, loc="lower right")
    return figure


def show_crops(
    samples: Mapping[str, tuple[np.ndarray, np.ndarray]],
    rows: int = 1,
    size: tuple[float, float] = (7, 2.8),
) -> Figure:
    """Draw the middle coronal slice of each sample, the patient's right on the left.

    ``samples`` maps a title to an image ``(S, C, I, J, K)``, scaled to 0..1, and a one-hot label
    ``(S, 4, I, J, K)``; the first of the S crops is shown. ``size`` is in inches.
    """
    figure, axes = panels(rows, len(samples) // rows, size)
    for axis, (title, (image, label)) in zip(axes.flat, samples.items(), strict=True):
        middle = image.shape[3] // 2
        intensities = image[0, 0, ::-1, middle, ::-1]
        classes = label[0, :, ::-1, middle, ::-1].argmax(axis=0)
        draw_slice(axis, intensities.T, window=(0, 1))
        draw_labels(axis, classes.T)
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, fontsize=9)
    return figure


def median_wait_s(config: Config, step_s: float, steps: int = 20) -> float:
    """Measure the median wait for the next batch in seconds, if a step takes ``step_s`` seconds.

    A pause replaces the network. The first two batches are not counted, because no step precedes
    them in which they could be prepared.
    """
    stream = create_dataset(config).create_tuple_iterator(num_epochs=1)
    waits_s = []
    for _ in range(steps):
        start = time.perf_counter()
        next(stream)
        waits_s.append(time.perf_counter() - start)
        time.sleep(step_s)
    return float(np.median(waits_s[2:]))


def show_waits(numbers: Sequence[float], steps_s: np.ndarray, waits_s: np.ndarray) -> Figure:
    """Draw the duration of each step of a run, and its wait for the batch, both in seconds.

    ``numbers`` are the numbers of the steps in the run.
    """
    figure, axes = panels(1, 1, (8, 2.8))
    axis = axes[0, 0]
    axis.semilogy(numbers, steps_s, ".", markersize=3, color=BLUE, label="the whole step")
    axis.semilogy(numbers, waits_s, ".", markersize=3, color=ORANGE, label="waiting for its batch")
    axis.set(xlabel="step of the training run", ylabel="seconds")
    axis.legend(fontsize=8)
    return figure
