"""Chains of steps: from the files of a scan to the network's input."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..config import DataConfig
from ..files.nifti import load_volume
from ..volume import BadScanError, check_same_grid
from .base import Pair, RandomTransform, Seed, Transform
from .grid import ExpandChannel, Orientation, Spacing
from .intensity import ClipHU, ScaleIntensityRange
from .position import AddPosition


class Compose:
    """Run steps one after the other.

    If the first step is :class:`LoadData`, the chain takes paths instead of volumes.

    >>> from unet3d_tutorial.volume import Volume
    >>> scan = Volume(np.full((40, 50, 60), -300), np.eye(4))
    >>> image, label = Compose([ExpandChannel(), ScaleIntensityRange(-1000, 400)])(scan)
    >>> image.array.shape, float(image.array.max())
    ((1, 40, 50, 60), 0.5)
    """

    def __init__(self, steps: Sequence[Callable[..., Pair]]):
        self.steps = list(steps)

    def set_random_state(self, seed: Seed) -> Self:
        """Seed every random step with ``seed`` and the step's number. Returns ``self``."""
        for number, step in enumerate(self.steps):
            if isinstance(step, RandomTransform):
                step.set_random_state([*np.atleast_1d(seed), number])
        return self

    def __call__(self, image: Any, label: Any = None) -> Pair:
        # Paths before LoadData, volumes after it.
        for step in self.steps:
            image, label = step(image, label)
        return image, label


class LoadData:
    """Read an image file and, if there is one, its label file (NIfTI): the first step of a chain.

    Their grids must agree. The label gets the affine of the image, so that rounding in a header
    does no harm.

    Raises ``FileNotFoundError`` or :class:`~unet3d_tutorial.volume.BadScanError`, naming the file.
    """

    def __call__(self, image: str | Path, label: str | Path | None = None) -> Pair:
        image_volume = load_volume(image)
        if label is None:
            return image_volume, None
        label_volume = load_volume(label)
        check_same_grid(label, label_volume.grid, image, image_volume.grid)
        return image_volume, replace(label_volume, affine=image_volume.affine)


def convert_files(steps: Compose, image: Path, label: Path) -> Pair:
    """Run ``steps`` on two files; the first step must be :class:`LoadData`.

    A ``ValueError`` of a later step is raised as :class:`~unet3d_tutorial.volume.BadScanError` that
    names the label's file.
    """
    try:
        return steps(image, label)
    except BadScanError:  # names its file
        raise
    except ValueError as error:
        raise BadScanError(f"{label}: {error}") from error


def grid_steps(data: DataConfig) -> list[Transform]:
    """The steps from any scan ``(I, J, K)`` to ``(1, I, J, K)`` in HU on the working grid.

    Training and inference use the same steps.
    """
    steps: list[Transform] = [ExpandChannel(), Orientation("RAS"), ClipHU()]
    if data.spacing_mm is not None:
        steps.append(Spacing(data.spacing_mm))
    return steps


def input_steps(data: DataConfig) -> list[Transform]:
    """The steps from HU on the working grid to the network's input ``(C, I, J, K)``.

    None of them is random.
    """
    steps: list[Transform] = [ScaleIntensityRange(data.min_val, data.max_val)]
    if data.position:
        steps.append(AddPosition())
    return steps
