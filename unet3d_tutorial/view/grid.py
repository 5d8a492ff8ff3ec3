"""The planes of a scan, and the geometry of its grid."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SLAB = 8  # slices that are checked at once in a large volume


class Plane(NamedTuple):
    """One of the three planes of a volume in RAS order, as radiologists view it."""

    cut: int  #: the axis that the plane cuts
    across: int  #: the axis along the picture's width
    up: int  #: the axis along the picture's height
    sides: str  #: letters at the left, right, bottom and top of the picture


PLANES = {
    "axial": Plane(cut=2, across=0, up=1, sides="RLPA"),
    "coronal": Plane(cut=1, across=0, up=2, sides="RLIS"),
    "sagittal": Plane(cut=0, across=1, up=2, sides="APIS"),
}


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Return the distance between neighbouring voxels along each axis, in mm."""
    i, j, k = np.linalg.norm(affine[:3, :3], axis=0)
    return float(i), float(j), float(k)


def tilt_degrees(affine: np.ndarray) -> float:
    """Return the largest angle in degrees between a grid axis and the nearest patient axis."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(directions).max(axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines.min(), 0, 1))))


def slabs(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a few slices at a time, so that checking a large volume needs little memory."""
    for k in range(0, array.shape[2], SLAB):
        yield array[:, :, k : k + SLAB]
