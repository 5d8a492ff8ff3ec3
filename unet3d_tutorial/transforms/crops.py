"""Steps that crop a scan, or pad it to a minimum size."""

from collections.abc import Sequence

import numpy as np

from ..volume import Volume
from .base import Pair, RandomTransform, Seed, Transform, apply_to_both
from .grid import other_axes, shifted_affine


class Pad(Transform):
    """Pad ``(C, I, J, K)`` on both sides to at least ``roi_size`` voxels.

    The new voxels get the image's minimum, and 0 in the label.

    Raises ``ValueError`` for an image without a channel axis.

    >>> scan = Volume(np.zeros((1, 40, 50, 60)), np.eye(4))
    >>> Pad((64, 64, 32))(scan)[0].array.shape
    (1, 64, 64, 60)
    """

    def __init__(self, roi_size: Sequence[int]):
        self.roi_size = tuple(roi_size)

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        if image.array.ndim != 4:
            raise ValueError(
                f"image: expected shape (C, I, J, K), found {image.array.shape}; add ExpandChannel"
            )
        missing = np.maximum(np.array(self.roi_size) - image.array.shape[1:], 0)
        if not missing.any():
            return image, label
        before = missing // 2
        after = missing - before
        widths = [(0, 0), *zip(before, after, strict=True)]
        affine = shifted_affine(image.affine, -before)
        padded = np.pad(image.array, widths, constant_values=image.array.min())
        if label is not None:
            label = Volume(np.pad(label.array, widths), affine)
        return Volume(padded, affine), label


class CenterCrop(Transform):
    """Crop ``(..., I, J, K)`` to its central ``roi_size`` voxels; a shorter axis does not change.

    >>> scan = Volume(np.zeros((1, 40, 50, 60)), np.eye(4))
    >>> CenterCrop((32, 32, 64))(scan)[0].array.shape
    (1, 32, 32, 60)
    """

    def __init__(self, roi_size: Sequence[int]):
        self.roi_size = tuple(roi_size)

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        first = [
            max(length // 2 - size // 2, 0)
            for length, size in zip(image.array.shape[-3:], self.roi_size, strict=True)
        ]
        return apply_to_both(crop_box, image, label, first, self.roi_size)


class CropForeground(Transform):
    """Crop ``(..., I, J, K)`` to the patient: cut off the air around the body.

    The crop is the smallest box that contains all voxels above ``above_hu``, plus ``margin`` voxels
    on each side. An image without such voxels does not change.

    >>> hu = np.full((40, 50, 60), -1000)
    >>> hu[10:30, 20:40, 5] = 40
    >>> CropForeground(margin=2)(Volume(hu, np.eye(4)))[0].array.shape
    (24, 24, 5)
    """

    def __init__(self, above_hu: float = -500.0, margin: int = 0):
        self.above_hu = above_hu
        self.margin = margin

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        shape = image.array.shape[-3:]
        patient = (image.array > self.above_hu).reshape(-1, *shape).any(axis=0)
        if not patient.any():
            return image, label
        occupied = [np.flatnonzero(patient.any(axis=other_axes(axis))) for axis in range(3)]
        first = np.maximum([indices[0] - self.margin for indices in occupied], 0)
        last = np.array([indices[-1] + self.margin for indices in occupied])
        return apply_to_both(crop_box, image, label, first, last + 1 - first)


class RandomCropSamples(RandomTransform[np.ndarray]):
    """Cut ``num_samples`` boxes of ``roi_size`` voxels at random positions.

    ``(C, I, J, K)`` becomes ``(S, C, *roi_size)`` for S samples. An image smaller than the box is
    padded first (:class:`Pad`). All positions are equally likely, except for a share ``foreground``
    of the boxes, on average: these are centred on a voxel of a structure (label above 0), as far as
    the border allows, with every structure of the scan equally often. Otherwise small structures
    would be in few crops. The affine is that of the first crop.

    >>> scan = Volume(np.zeros((1, 40, 50, 60)), np.eye(4))
    >>> RandomCropSamples((32, 32, 64), num_samples=2)(scan)[0].array.shape
    (2, 1, 32, 32, 64)
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        num_samples: int = 1,
        seed: Seed = 0,
        foreground: float = 0.0,
    ):
        super().__init__(seed)
        self.roi_size = tuple(roi_size)
        self.num_samples = num_samples
        self.foreground = foreground

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        """Pad, draw positions (using the label, if there is one), then crop."""
        image, label = Pad(self.roi_size)(image, label)
        corners = self.draw(image.array.shape, None if label is None else label.array)
        return self.apply(image, label, corners)

    def draw(self, shape: Sequence[int], label: np.ndarray | None = None) -> np.ndarray:
        """Lower corners of the boxes as voxel indices, ``(num_samples, 3)``."""
        last_corner = np.array(shape[-3:]) - self.roi_size
        corners = self.rng.integers(0, last_corner + 1, size=(self.num_samples, 3))
        if label is None or self.foreground <= 0:
            return corners
        to_centre = np.array(self.roi_size) // 2
        is_centred = self.rng.random(self.num_samples) < self.foreground
        for number in np.flatnonzero(is_centred):
            centre = self._draw_foreground_voxel(label)
            if centre is not None:
                corners[number] = np.clip(centre - to_centre, 0, last_corner)
        return corners

    def _draw_foreground_voxel(self, label: np.ndarray) -> np.ndarray | None:
        """Index of a voxel of a random structure, or ``None`` if the label has no structure."""
        for value in self.rng.permutation(int(label.max())) + 1:
            voxels = np.flatnonzero(label == value)
            if len(voxels):
                index = np.unravel_index(self.rng.choice(voxels), label.shape)
                return np.array(index[-3:])
        return None

    def apply(self, image: Volume, label: Volume | None, parameters: np.ndarray) -> Pair:
        """Cut the boxes whose lower corners are the ``parameters``."""
        return apply_to_both(self._crop, image, label, parameters)

    def _crop(self, volume: Volume, corners: np.ndarray) -> Volume:
        crops = [crop_box(volume, corner, self.roi_size) for corner in corners]
        return Volume(np.stack([crop.array for crop in crops]), crops[0].affine)


def crop_box(volume: Volume, first: Sequence[int], size: Sequence[int]) -> Volume:
    """The box of ``size`` voxels that begins at voxel ``first``, with its own affine.

    ``first`` and ``size`` are three numbers each, for the axes I, J, K of ``(..., I, J, K)``. The
    box shares memory with the volume.

    >>> volume = Volume(np.arange(24).reshape(2, 3, 4), np.eye(4))
    >>> box = crop_box(volume, first=(0, 1, 2), size=(1, 2, 2))
    >>> box.array.tolist(), box.affine[:3, 3].tolist()
    ([[[6, 7], [10, 11]]], [0.0, 1.0, 2.0])
    """
    i, j, k = (slice(start, start + length) for start, length in zip(first, size, strict=True))
    return Volume(volume.array[..., i, j, k], shifted_affine(volume.affine, first))
