"""Random variation of training scans: each step draws its parameters first, then applies them.

Steps are callables ``(image, label) -> (image, label)`` like those of :mod:`unet3d_tutorial.transforms`, pure, and draw
from a stream of their own. MindSpore is not needed here.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from .transforms import Pair, RandomTransform
from .volume import Volume


class RandomShift(RandomTransform):
    """Add one random number of HU to the whole image: scanners differ by some tens of HU."""

    def __init__(self, std_hu: float = 25.0, seed: int | Sequence[int] = 0):
        self.std_hu = std_hu
        self.set_random_state(seed)

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        return replace(image, array=image.array + np.float32(self.rng.normal(0, self.std_hu))), label


class RandomNoise(RandomTransform):
    """With chance ``chance``, add Gaussian noise of up to ``max_std_hu``."""

    def __init__(self, max_std_hu: float = 50.0, chance: float = 0.3, seed: int | Sequence[int] = 0):
        self.max_std_hu, self.chance = max_std_hu, chance
        self.set_random_state(seed)

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        if self.rng.random() >= self.chance:
            return image, label
        std = np.float32(self.rng.uniform(0, self.max_std_hu))
        noise = self.rng.standard_normal(image.array.shape, dtype=np.float32)
        return replace(image, array=image.array + std * noise), label


class RandomBlur(RandomTransform):
    """With chance ``chance``, smooth with a Gaussian of up to ``max_sigma`` voxels, as a softer kernel would."""

    def __init__(self, max_sigma: float = 0.9, chance: float = 0.3, seed: int | Sequence[int] = 0):
        self.max_sigma, self.chance = max_sigma, chance
        self.set_random_state(seed)

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        if self.rng.random() >= self.chance:
            return image, label
        sigma = self.rng.uniform(0.3, self.max_sigma)
        array = image.array.astype(np.float32)
        for axis in (-3, -2, -1):
            array = ndimage.gaussian_filter1d(array, sigma, axis=axis, truncate=2.5)
        return replace(image, array=array), label


class RandomGamma(RandomTransform):
    """With chance ``chance``, raise an image scaled to 0..1 to a random power: contrast changes, the ends stay."""

    def __init__(self, log_std: float = 0.2, chance: float = 0.4, seed: int | Sequence[int] = 0):
        self.log_std, self.chance = log_std, chance
        self.set_random_state(seed)

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        if self.rng.random() >= self.chance:
            return image, label
        gamma = np.float32(np.exp(self.rng.normal(0, self.log_std)))
        return replace(image, array=np.clip(image.array, 0, 1) ** gamma), label
