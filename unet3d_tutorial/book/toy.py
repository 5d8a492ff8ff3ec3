"""The toy problem of several chapters: a crop of a phantom on a coarse grid, half the channels.

A step takes a fraction of a second, so that a chapter can train it several times.
"""

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..phantom.recipe import generate
from ..transforms import CenterOnBody, Compose, RandomCropSamples, grid_steps, input_steps
from ..volume import Volume


def toy_config() -> Config:
    """The quick preset with voxels of 8 mm, crops of 32 voxels and half the channels."""
    return Config.preset("quick").updated(
        {
            "data": {"spacing_mm": [8, 8, 8], "roi_size": [32, 32, 32]},
            "model": {"channels": [8, 16, 32, 64, 128]},
        }
    )


def toy_scan(config: Config) -> tuple[Volume, Volume]:
    """One phantom prepared for the network: ``(C, R, A, S)``, and its labels ``(1, R, A, S)``."""
    steps = [*grid_steps(config.data), CenterOnBody(), *input_steps(config.data)]
    image, label = Compose(steps)(*generate(seed=3, spacing_mm=8.0))
    assert label is not None
    return image, label


def toy_crop(config: Config, *, seed: int = 0) -> tuple[NDArray, NDArray]:
    """A crop as training would draw it: ``(1, C, R, A, S)``, and labels ``(1, 1, R, A, S)``."""
    crop = RandomCropSamples(config.data.roi_size, seed=seed)
    image, label = crop(*toy_scan(config))
    assert label is not None
    return image.array, label.array


def crop_around(config: Config, value: int) -> tuple[NDArray, NDArray]:
    """The crop of the toy scan whose middle is that of a structure.

    ``(1, C, R, A, S)``, and int32 labels ``(1, R, A, S)``.
    """
    image, label = toy_scan(config)
    size = np.array(config.data.roi_size)
    middle = np.argwhere(label.array[0] == value).mean(axis=0).round().astype(int)
    corner = np.clip(middle - size // 2, 0, np.array(label.array.shape[1:]) - size)
    box = tuple(slice(start, start + n) for start, n in zip(corner, size, strict=True))
    return image.array[None, :, *box], label.array[:, *box].astype(np.int32)
