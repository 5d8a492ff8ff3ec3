"""Copies, measurements and counts for the chapter on training."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..config import Config
from ..dataset import fixed_steps, list_cases

#: Widths of the blurs, in mm.
SCALES_MM = (8, 16, 32, 64)
#: Derivative orders of a blurred image at a voxel: its value, and its slope along each axis.
ORDERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))


def copy_cases(source: str | Path, target: Path, *, train: int, val: int) -> Path:
    """Copy the first cases of a prepared data set to a small one; return its folder."""
    for split, count in (("train", train), ("val", val)):
        for image, label in list_cases(Path(source) / split)[:count]:
            for kind, path in (("image", image), ("seg", label)):
                folder = target / split / kind
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder)
    return target


def count_saves(config: Config, steps: int) -> int:
    """Count the checkpoints that a run of so many steps writes."""
    train = config.train
    saves = 0
    for step in range(1, steps + 1):
        if step % train.save_every == 0 or step % train.validate_every == 0:
            saves += 1
    return saves


def surroundings(config: Config, cases: Sequence[tuple[Path, Path]]) -> NDArray:
    """Describe the surroundings of every 20th lung voxel at several scales.

    The array has one column per voxel. Its rows are, for each of ``SCALES_MM``, the blurred HU and
    its three slopes, then a constant 1, then 1 for a voxel of the right lung and 0 for the left.
    """
    columns = []
    for case in cases:
        image, label = fixed_steps(config)(*case)
        assert label is not None
        hu, labels = image.array[0], label.array[0]
        lung = np.flatnonzero((labels == 1) | (labels == 2))[::20]
        picture = np.clip(hu, -1000, 400) / 1000
        rows = []
        for scale in SCALES_MM:
            for order in ORDERS:
                blurred = ndimage.gaussian_filter(picture, scale / 8, order=order)
                rows.append(blurred.ravel()[lung])
        is_right = labels.ravel()[lung] == 2
        columns.append(np.vstack([*rows, np.ones(len(lung)), is_right]))
    return np.concatenate(columns, axis=1)


def side_accuracy(learnt: NDArray, tested: NDArray, scales: int) -> float:
    """Return the share of ``tested`` voxels whose side a linear rule predicts correctly.

    The rule is fitted to ``learnt`` by least squares and uses the first ``scales`` scales. Both
    arrays are as :func:`surroundings` returns them.
    """
    seen = [*range(scales * len(ORDERS)), -2]  # and the constant
    target = 2 * learnt[-1] - 1
    weights = np.linalg.lstsq(learnt[seen].T, target, rcond=None)[0]
    says_right = weights @ tested[seen] > 0
    return float((says_right == tested[-1]).mean())
