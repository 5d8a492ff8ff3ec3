"""Base classes of all transforms: how they are called, and how random ones draw parameters."""

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

    Call it with two :class:`~unet3d_tutorial.volume.Volume` objects on the same grid: the image
    and, if there is one, its label. Without a label, ``None`` is returned in its place. The step
    returns new volumes and does not change its input. A new volume may share memory with the old
    one, so do not write to either. When voxels move in the array, the affine is updated, so that
    every voxel keeps its position in the patient, unless the purpose of the step is to change it.

    A subclass overrides :meth:`transform`.
    """

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        return self.transform(image, label)

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        """Return the new image and label."""
        raise NotImplementedError


class RandomTransform(Transform, Generic[Parameters]):
    """A transform that draws parameters from its own random generator, then applies them.

    Drawing and applying are separate, so that the parameters can be inspected, recorded and applied
    again: :meth:`draw` returns parameters and advances the generator; :meth:`apply` uses them and
    draws nothing. A subclass overrides these two.
    """

    rng: np.random.Generator

    def __init__(self, seed: Seed = 0):
        self.set_random_state(seed)

    def set_random_state(self, seed: Seed) -> Self:
        """Restart the random generator; the same seed gives the same draws. Returns ``self``."""
        self.rng = np.random.default_rng(seed)
        return self

    def draw(self, shape: Sequence[int]) -> Parameters | None:
        """Parameters for an image array of this shape, or ``None`` to leave it as it is."""
        raise NotImplementedError

    def apply(self, image: Volume, label: Volume | None, parameters: Parameters) -> Pair:
        """Return image and label after the transform with these parameters."""
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
    """Apply the same function with the same extra arguments to image and label."""
    new_image = function(image, *arguments)
    return new_image, None if label is None else function(label, *arguments)
