"""Steps that bring scans to a common grid: channel axis, orientation, spacing."""

from collections.abc import Sequence
from dataclasses import replace

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike

from ..volume import Volume
from .base import Pair, Transform, apply_to_both
from .resampling import apply_along, resampling_weights


class ExpandChannel(Transform):
    """Add the channel axis that networks expect: ``(I, J, K) -> (1, I, J, K)``.

    The affine does not change.

    >>> scan = Volume(np.zeros((40, 50, 60)), np.eye(4))
    >>> ExpandChannel()(scan)[0].array.shape
    (1, 40, 50, 60)
    """

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        return apply_to_both(self._expand, image, label)

    def _expand(self, volume: Volume) -> Volume:
        return replace(volume, array=volume.array[None])


class Orientation(Transform):
    """Flip and permute the array axes so that they point to ``axcodes``.

    With ``"RAS"``, indices grow towards the patient's right, front and head. If the scan is
    oblique, each axis goes by its nearest direction. Arrays are ``(..., I, J, K)``. The affine is
    updated, so every voxel keeps its position in the patient.

    Raises ``ValueError`` unless ``axcodes`` are one of L/R, one of P/A and one of I/S.

    >>> scan = Volume(np.zeros((40, 50, 60)), np.diag([-2.0, -2.0, 3.0, 1.0]))
    >>> turned, _ = Orientation("SRA")(scan)
    >>> scan.axis_codes, turned.axis_codes, turned.array.shape
    ('LPS', 'SRA', (60, 40, 50))
    """

    def __init__(self, axcodes: str = "RAS"):
        opposite = {"L": "R", "P": "A", "I": "S"}
        if sorted(opposite.get(code, code) for code in axcodes) != ["A", "R", "S"]:
            raise ValueError(
                f"axcodes: expected one of L/R, one of P/A and one of I/S, found {axcodes!r}"
            )
        self.axcodes = axcodes

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        return apply_to_both(self._turn, image, label)

    def _turn(self, volume: Volume) -> Volume:
        present = nib.io_orientation(volume.affine)
        target = nib.orientations.axcodes2ornt(self.axcodes)
        turn = nib.orientations.ornt_transform(present, target)
        back = nib.orientations.inv_ornt_aff(turn, volume.array.shape[-3:])
        # nibabel wants the spatial axes first.
        leading = volume.array.ndim - 3
        array = np.moveaxis(volume.array, range(leading), range(-leading, 0))
        array = nib.orientations.apply_orientation(array, turn)
        array = np.moveaxis(array, range(-leading, 0), range(leading))
        return Volume(array, volume.affine @ back)


class Spacing(Transform):
    """Resample to ``spacing_mm`` along each array axis.

    The image is interpolated linearly and becomes float32; the label is resampled by nearest
    neighbour. The outer edges of the first voxels keep their position, and the affine is updated.
    Along an axis that becomes coarser, the image is smoothed first, with a Gaussian whose width
    makes up for the difference in resolution, so that thin structures fade instead of causing
    aliasing. If the spacing is already right to within 0.1 %, image and label do not change.

    Raises ``ValueError`` unless ``spacing_mm`` are three positive lengths.

    >>> scan = Volume(np.zeros((40, 50, 60)), np.diag([-2.0, -2.0, 3.0, 1.0]))
    >>> Spacing((4, 4, 4))(scan)[0].array.shape
    (20, 25, 45)
    """

    def __init__(self, spacing_mm: Sequence[float]):
        if len(spacing_mm) != 3 or min(spacing_mm) <= 0:
            raise ValueError(
                f"spacing_mm: expected three positive lengths in mm, found {spacing_mm}"
            )
        self.spacing_mm = tuple(float(length) for length in spacing_mm)

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        ratios = np.array(self.spacing_mm) / image.spacing_mm
        if np.allclose(ratios, 1, rtol=1e-3):
            return image, label
        # Voxel i of the new grid has its centre at index (i + 1/2) ratio - 1/2 of the old one.
        affine = shifted_affine(image.affine, (ratios - 1) / 2) @ np.diag([*ratios, 1.0])
        centres = []
        for old_length, ratio in zip(image.array.shape[-3:], ratios, strict=True):
            length = max(1, round(old_length / ratio))
            centres.append((np.arange(length) + 0.5) * ratio - 0.5)

        array = image.array.astype(np.float32, copy=False)
        for axis in (-1, -2, -3):
            weights = resampling_weights(centres[axis], array.shape[axis], ratios[axis])
            array = apply_along(weights, array, axis)
        if label is not None:
            label = Volume(_nearest_samples(label.array, centres), affine)
        return Volume(array, affine), label


def _nearest_samples(array: np.ndarray, centres: Sequence[np.ndarray]) -> np.ndarray:
    """The voxels of ``(..., I, J, K)`` nearest to fractional indices ``centres`` on each axis."""
    i, j, k = (
        np.clip(np.rint(positions).astype(int), 0, length - 1)
        for positions, length in zip(centres, array.shape[-3:], strict=True)
    )
    return array[..., i[:, None, None], j[:, None], k]


def shifted_affine(affine: np.ndarray, first: ArrayLike) -> np.ndarray:
    """The affine of a grid whose first voxel is at index ``first`` of the old grid.

    The index is three numbers, which may be fractional or negative.
    """
    shift = np.eye(4)
    shift[:3, 3] = first
    return affine @ shift


def other_axes(axis: int) -> tuple[int, ...]:
    """The two of the axes 0, 1, 2 that are not ``axis``."""
    return tuple(other for other in range(3) if other != axis)
