"""The content of the slice viewer: a scan and its masks on one grid in RAS order."""

from dataclasses import dataclass, replace
from functools import cached_property

import nibabel as nib
import numpy as np

from .counts import count_by_slice
from .grid import PLANES, slabs

Box = list[list[int]]  #: first index and end on each axis: ``[[i0, i1], [j0, j1], [k0, k1]]``
INT16 = np.iinfo(np.int16)
FLOAT32_BYTES = 4


@dataclass(frozen=True, eq=False)
class Scene:
    """A scan, its masks and how to show them; arrays are ``(I, J, K)``."""

    image: np.ndarray
    truth: np.ndarray | None  #: whole numbers, on the image's grid
    predictions: dict[str, np.ndarray]  #: by name, at most two; on the same grid
    structures: dict[int, str]  #: names of the label values
    affine: np.ndarray  #: index -> mm, 4 x 4
    to_array: np.ndarray  #: index -> index of the original array, 4 x 4
    unit: str
    value_range: list[float]  #: smallest and largest value of the image
    window: list[float]  #: values shown black and white at the start

    def in_ras_order(self) -> "Scene":
        """Return the scene with axes to the patient's right, front and head, without copying.

        If the scan is oblique, each axis points to the nearest of these directions.
        """
        orientation = nib.io_orientation(self.affine)
        to_array = nib.orientations.inv_ornt_aff(orientation, self.image.shape)

        def turned(array: np.ndarray) -> np.ndarray:
            return nib.apply_orientation(array, orientation)

        return replace(
            self,
            image=turned(self.image),
            truth=None if self.truth is None else turned(self.truth),
            predictions={name: turned(mask) for name, mask in self.predictions.items()},
            affine=self.affine @ to_array,
            to_array=self.to_array @ to_array,
        )

    @property
    def masks(self) -> list[np.ndarray]:
        """The truth, if there is one, then the predictions."""
        predictions = list(self.predictions.values())
        return predictions if self.truth is None else [self.truth, *predictions]

    # ------------------------------------------------------------------------------------- contents

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """Voxels in truth, in a prediction and in both, slice by slice, for each plane.

        Each array is ``(predictions, slices, structures, 3)``; without a prediction the first axis
        has length 1.
        """
        values = list(self.structures)
        predictions: list[np.ndarray | None] = list(self.predictions.values())
        counts = [
            count_by_slice(self.truth, prediction, values, self.image.shape)
            for prediction in predictions or [None]
        ]
        return {
            name: np.stack([by_axis[plane.cut] for by_axis in counts])
            for name, plane in PLANES.items()
        }

    @cached_property
    def start(self) -> list[int]:
        """The voxel where the planes cross at first: the centre of the labels, or of the volume."""
        return [self._centre_along(axis) for axis in range(3)]

    def _centre_along(self, axis: int) -> int:
        name = next(name for name, plane in PLANES.items() if plane.cut == axis)
        true, predicted, _ = self.counts[name][0].sum(axis=1).T
        labelled = np.maximum(true, predicted).astype(float)
        length = self.image.shape[axis]
        if not labelled.any():
            return length // 2
        return int(round(np.average(np.arange(length), weights=labelled)))

    # ------------------------------------------------------------------- what the browser asks for

    @cached_property
    def voxel_type(self) -> type[np.int16] | type[np.float32]:
        """The type of the image in the browser: int16 if that is exact, else float32."""
        low, high = self.value_range
        if low < INT16.min or high > INT16.max:
            return np.float32
        if self.image.dtype.kind in "biu":
            return np.int16
        whole = all((slab == slab.astype(np.int16)).all() for slab in slabs(self.image))
        return np.int16 if whole else np.float32

    @property
    def browser_bytes(self) -> int:
        """Upper limit of the browser's memory for all voxels unchanged, in bytes."""
        return self.image.size * (FLOAT32_BYTES + len(self.masks))

    def box(self, bounds: Box) -> list[memoryview]:
        """Return the voxels of a box: image and masks, the first axis fastest."""
        where = tuple(slice(first, end) for first, end in bounds)
        image = self.image[where].T.astype(self.voxel_type, order="C")
        masks = [mask[where].T.astype(np.uint8, order="C") for mask in self.masks]
        return [part.data.cast("B") for part in (image, *masks)]

    def first_boxes(self) -> list[Box]:
        """Return three boxes of one slice each, for the first picture."""
        boxes = []
        for axis, index in enumerate(self.start):
            bounds = [[0, length] for length in self.image.shape]
            bounds[axis] = [index, index + 1]
            boxes.append(bounds)
        return boxes
