"""Left and right: the body's middle plane, and an input channel with the distance from it."""

from collections.abc import Sequence
from dataclasses import replace

import nibabel as nib
import numpy as np

from ..volume import Volume
from .base import Pair, RandomTransform, Seed, Transform
from .grid import other_axes


class CenterOnBody(Transform):
    """Move the origin of the left-right axis to the body's middle plane.

    The plane goes through the centre of mass of all tissue, voxels above ``tissue_hu``. Only the
    affines change: they become aligned with the volume's axes, and lose the other origins and any
    obliqueness. These describe where the table was and how the grid was laid out, not the patient.

    >>> hu = np.full((40, 50, 60), -1000)
    >>> hu[10:21] = 40  # the body's middle is at index 15
    >>> centred, _ = CenterOnBody()(Volume(hu, np.diag([2.0, 2.0, 3.0, 1.0])))
    >>> centred.affine[0].tolist()
    [2.0, 0.0, 0.0, -30.0]
    """

    def __init__(self, tissue_hu: float = -300.0):
        self.tissue_hu = tissue_hu

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        affine = axis_aligned_affine(image)
        lateral = int(np.argmax(np.abs(affine[0, :3])))  # the array axis between left and right
        shape = image.array.shape[-3:]
        tissue = image.array.reshape(-1, *shape)[0] > self.tissue_hu
        voxels = tissue.sum(axis=other_axes(lateral))  # of tissue, in each sagittal plane
        if voxels.any():
            middle = (voxels * np.arange(len(voxels))).sum() / voxels.sum()
        else:
            middle = (len(voxels) - 1) / 2
        affine[0, 3] = -affine[0, lateral] * middle
        if label is not None:
            label = replace(label, affine=affine.copy())
        return replace(image, affine=affine), label


class AddPosition(RandomTransform[tuple[float, float]]):
    """Add a channel with the distance of each voxel from the body's middle plane.

    The image ``(..., 1, I, J, K)`` becomes ``(..., 2, I, J, K)``. The channel's unit is 100 mm;
    values are positive on the patient's right. Run :class:`CenterOnBody` first. Left and right lung
    look much alike, and a network that sees only HU takes long to learn which is which.

    With ``jitter`` the plane is moved (standard deviation 15 mm) and the scale varied (by up to
    15 %), so that the network must find the exact border from the anatomy. Without, nothing is
    random.

    >>> scan = Volume(np.zeros((1, 3, 1, 1)), np.diag([50.0, 1.0, 1.0, 1.0]))
    >>> AddPosition()(scan)[0].array[1].ravel().tolist()
    [0.0, 0.5, 1.0]
    """

    def __init__(self, jitter: bool = False, seed: Seed = 0):
        super().__init__(seed)
        self.jitter = jitter

    def draw(self, shape: Sequence[int]) -> tuple[float, float]:
        """Shift in units of 100 mm, and scale factor."""
        if not self.jitter:
            return 0.0, 1.0
        return self.rng.normal(0, 0.15), self.rng.uniform(0.85, 1.15)

    def apply(self, image: Volume, label: Volume | None, parameters: tuple[float, float]) -> Pair:
        """Add the channel, shifted and scaled by the ``parameters``."""
        shift, scale = parameters
        i, j, k = np.ogrid[tuple(slice(length) for length in image.array.shape[-3:])]
        row = image.affine[0]
        position = (row[0] * i + row[1] * j + row[2] * k + row[3]) / 100 * scale + shift
        position = position.astype(np.float32)  # reusing the name frees the larger array
        channel = np.broadcast_to(position, image.array.shape)
        return replace(image, array=np.concatenate([image.array, channel], axis=-4)), label


def axis_aligned_affine(volume: Volume) -> np.ndarray:
    """An affine with the volume's spacing, aligned with the patient's axes, with the origin at 0.

    Each array axis is assigned the nearest of the patient's directions.
    """
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (direction, sign) in enumerate(nib.io_orientation(volume.affine)):
        affine[int(direction), axis] = sign * volume.spacing_mm[axis]
    return affine
