"""The toy problem of several chapters: a crop of a phantom on a coarse grid, half the channels.

A step takes a fraction of a second, so a chapter can afford several training runs.
"""

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..phantom.recipe import generate
from ..transforms import CenterOnBody, Compose, RandomCropSamples, grid_steps, input_steps
from ..volume import Volume


def toy_config() -> Config:
    """Return the quick preset with voxels of 8 mm, crops of 32 voxels and half the channels."""
    return Config.preset("quick").updated(
        {
            "data": {"spacing_mm": [8, 8, 8], "roi_size": [32, 32, 32]},
            "model": {"channels": [8, 16, 32, 64, 128]},
        }
    )


def toy_scan(config: Config) -> tuple[Volume, Volume]:
    """Return a prepared phantom, ``(C, R, A, S)``, and its labels, ``(1, R, A, S)``."""
    steps = [*grid_steps(config.data), CenterOnBody(), *input_steps(config.data)]
    image, label = Compose(steps)(*generate(seed=3, spacing_mm=8.0))
    assert label is not None
    return image, label


def toy_crop(config: Config, *, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Return a crop as in training, ``(1, C, R, A, S)``, and its labels, ``(1, 1, R, A, S)``."""
    crop = RandomCropSamples(config.data.roi_size, seed=seed)
    image, label = crop(*toy_scan(config))
    assert label is not None
    return image.array, label.array


def crop_around(config: Config, value: int) -> tuple[NDArray, NDArray]:
    """Return the crop of the toy scan around the centre of the structure with label ``value``.

    The image is ``(1, C, R, A, S)``; the labels are int32 class numbers ``(1, R, A, S)``.
    """
    image, label = toy_scan(config)
    size = np.array(config.data.roi_size)
    middle = np.argwhere(label.array[0] == value).mean(axis=0).round().astype(int)
    corner = np.clip(middle - size // 2, 0, np.array(label.array.shape[1:]) - size)
    box = tuple(slice(start, start + n) for start, n in zip(corner, size, strict=True))
    return image.array[None, :, *box], label.array[:, *box].astype(np.int32)
