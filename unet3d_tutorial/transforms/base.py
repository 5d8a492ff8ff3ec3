"""What all transforms have in common: how they are called, and how those that are random draw."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar

import numpy as np

from ..volume import Volume

#: Image and label.
Pair = tuple[Volume, Volume | None]
#: One number or several: the same seed gives the same random draws.
Seed = int | Sequence[int]
#: What a random transform draws, and then applies.
Parameters = TypeVar("Parameters")


class Transform:
    """A step from an image and its label to a new image and a new label.

    Call it with a :class:`~unet3d_tutorial.volume.Volume` and, if there is one, that of its label,
    which lies on the same grid; without a label, ``None`` comes back in its place. It returns new
    volumes and leaves its input as it was. A new volume may share memory with the old one, so do
    not write into either. Wherever voxels go, the affines follow, so that every voxel keeps its
    place in the patient, unless the step is there to change that.

    A new transform overrides :meth:`transform`.
    """

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        return self.transform(image, label)

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        """What the step does to image and label."""
        raise NotImplementedError


class RandomTransform(Transform, Generic[Parameters]):
    """A transform that draws from a random stream of its own, and then does what it drew.

    The two halves are apart, so that a variation can be looked at, written down and applied once
    more: :meth:`draw` gives the parameters and moves the stream on, :meth:`apply` uses them and
    draws nothing. A new random transform overrides these two.
    """

    rng: np.random.Generator

    def __init__(self, seed: Seed = 0):
        self.set_random_state(seed)

    def set_random_state(self, seed: Seed) -> Self:
        """Restart the stream; the same seed gives the same draws."""
        self.rng = np.random.default_rng(seed)
        return self

    def draw(self, shape: Sequence[int]) -> Parameters | None:
        """Parameters for an image array of this shape, or ``None`` to leave it as it is."""
        raise NotImplementedError

    def apply(self, image: Volume, label: Volume | None, parameters: Parameters) -> Pair:
        """What the parameters do to image and label."""
        raise NotImplementedError

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        """Draw, then apply."""
        parameters = self.draw(image.array.shape)
        if parameters is None:
            return image, label
        return self.apply(image, label, parameters)


def apply_to_both(
    function: Callable[..., Volume], image: Volume, label: Volume | None, *arguments: Any
) -> Pair:
    """Image and label after the same function, called with the same further arguments."""
    new_image = function(image, *arguments)
    return new_image, None if label is None else function(label, *arguments)
