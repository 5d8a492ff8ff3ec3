"""The canvas of a phantom: a grid of HU and labels that is painted with signed distances.

A voxel that is cut by a surface is blended according to the share that is inside, because a real
scanner averages over each voxel (partial volume effect).
"""

from types import EllipsisType

import numpy as np
from numpy.typing import ArrayLike

from ..volume import Volume
from .field_of_view import FieldOfView
from .shapes import Coordinates, capsule, ellipsoid
from .tissues import AIR

BACKGROUND = 0  #: label of everything that is neither lung nor airway

#: A part of the grid, or ``...`` for all of it.
Box = tuple[slice, ...] | EllipsisType

WARP_SCALE_MM = 70.0  #: width of the bumps that warp the body
#: A warped shape may extend this far beyond the bounding box of the straight one.
ELLIPSOID_MARGIN_MM = 30
TUBE_MARGIN_MM = 25


class Canvas:
    """A grid of HU and labels that is painted with signed distances.

    ``hu`` (float32) and ``label`` (uint8) are ``(I, J, K)``. ``x``, ``y``, ``z`` are arrays of the
    same shape with the patient's coordinates in mm. After :meth:`bend` they are tilted and smoothly
    warped, so that simple shapes are bent like real anatomy. ``straight_x`` and ``straight_y``
    remain unchanged: they are the scanner's coordinates.
    """

    def __init__(self, view: FieldOfView):
        self.spacing_mm = view.spacing_mm
        axes = [
            (np.arange(length) - (length - 1) / 2) * view.spacing_mm + middle
            for length, middle in zip(view.shape, view.centre, strict=True)
        ]
        self.origin = np.array([axis[0] for axis in axes])
        grid = np.meshgrid(*axes, indexing="ij")
        self.x, self.y, self.z = (np.array(axis, np.float32) for axis in grid)
        self.straight_x, self.straight_y = self.x, self.y
        self.hu = np.full(view.shape, AIR, np.float32)
        self.label = np.full(view.shape, BACKGROUND, np.uint8)

    def points(self, box: Box = ...) -> Coordinates:
        """The patient's coordinates in mm, of all voxels or of those in a box."""
        return self.x[box], self.y[box], self.z[box]

    def bend(self, rng: np.random.Generator, tilt: np.ndarray, warp_mm: float) -> None:
        """Tilt the patient and warp the coordinates smoothly by about ``warp_mm``.

        ``tilt`` are small rotations about x, y and z in radians.
        """
        x, y, z = self.points()
        (cos_x, cos_y, cos_z), (sin_x, sin_y, sin_z) = np.cos(tilt), np.sin(tilt)
        rotation = np.array(
            [
                [cos_y * cos_z, -cos_y * sin_z, sin_y],
                [sin_z, cos_z, -sin_x],
                [-sin_y, sin_x, cos_x * cos_y],
            ],
            np.float32,
        )
        warped = []
        for row in rotation:
            bumps = self.noise(rng, WARP_SCALE_MM)
            warped.append(row[0] * x + row[1] * y + row[2] * z + np.float32(warp_mm) * bumps)
        self.x, self.y, self.z = warped

    def noise(self, rng: np.random.Generator, scale_mm: float) -> np.ndarray:
        """Smooth random field with mean 0 and standard deviation 1, of the canvas's shape.

        Its bumps are about ``scale_mm`` wide: it is white noise on a grid of this spacing, which a
        Gaussian interpolates along one axis after the other.
        """
        coarse_shape = [
            int(np.ceil(length * self.spacing_mm / scale_mm)) + 3 for length in self.hu.shape
        ]
        field = rng.standard_normal(coarse_shape)
        for axis, length in enumerate(self.hu.shape):
            position = np.arange(length) * self.spacing_mm / scale_mm + 1
            distance = position[:, None] - np.arange(field.shape[axis])
            weight = np.exp(-(distance**2) / 0.8)
            weight /= np.sqrt((weight**2).sum(axis=1, keepdims=True))  # the deviation stays 1
            spread = np.tensordot(weight.astype(np.float32), field.astype(np.float32), (1, axis))
            field = np.moveaxis(spread, 0, axis)
        return field

    def share(self, distance: np.ndarray) -> np.ndarray:
        """Share of each voxel, 0 to 1, that is inside a shape of this signed distance in mm."""
        return np.clip(0.5 - distance / self.spacing_mm, 0.0, 1.0)

    def paint(
        self,
        distance: np.ndarray,
        hu: float | np.ndarray,
        label: int | None = None,
        box: Box = ...,
    ) -> None:
        """Blend ``hu`` into the inside of a shape, given by its signed distance in mm.

        A voxel that is at least half inside gets ``label``; ``None`` keeps the labels. With
        ``box``, ``distance`` has the shape of the box.
        """
        self._blend(self.share(distance), hu, label, box)

    def ellipsoid(
        self, centre: ArrayLike, radii: ArrayLike, hu: float, label: int | None = None
    ) -> None:
        """Paint an ellipsoid; centre and radii in mm, ``label`` as in :meth:`paint`."""
        centre, radii = np.asarray(centre, np.float32), np.asarray(radii, np.float32)
        box = self.box(centre - radii, centre + radii, ELLIPSOID_MARGIN_MM)
        if self.hu[box].size:
            self.paint(ellipsoid(self.points(box), centre, radii), hu, label, box)

    def tube(
        self,
        path: ArrayLike,
        radius: ArrayLike,
        hu: float,
        label: int | None = None,
        *,
        inside: np.ndarray | None = None,
    ) -> None:
        """Paint a tube along a path, the points of its centre line in mm, ``(points, 3)``.

        ``radius`` in mm is one number, or one for each point. ``inside`` limits the tube to a mask.
        A tube thinner than a voxel is blended according to its share of the voxel's cross-section.
        """
        path = np.asarray(path, np.float32)
        radii = np.broadcast_to(np.asarray(radius, np.float32), len(path))
        mean_radii = (radii[:-1] + radii[1:]) / 2
        for start, end, mean_radius in zip(path[:-1], path[1:], mean_radii, strict=True):
            box = self.box(start, end, mean_radius + TUBE_MARGIN_MM)
            if not self.hu[box].size:
                continue
            painted_radius = max(mean_radius, 0.5 * self.spacing_mm)
            distance = capsule(self.points(box), start, end) - painted_radius
            share = self.share(distance) * min(1.0, (2 * mean_radius / self.spacing_mm) ** 2)
            if inside is not None:
                share = share * inside[box]
            self._blend(share, hu, label, box)

    def box(self, low: np.ndarray, high: np.ndarray, margin: float) -> tuple[slice, ...]:
        """The part of the grid between two corners, given in mm.

        ``margin`` mm are added on all sides, because the grid is straight but the body is bent.
        """
        first = (np.minimum(low, high) - margin - self.origin) / self.spacing_mm
        last = (np.maximum(low, high) + margin - self.origin) / self.spacing_mm
        starts = np.floor(first).astype(int)
        stops = np.ceil(last).astype(int) + 1
        return tuple(
            slice(max(start, 0), max(stop, 0)) for start, stop in zip(starts, stops, strict=True)
        )

    def volumes(self) -> tuple[Volume, Volume]:
        """Image (int16, HU) and label (uint8), with axes left, posterior, superior (LPS)."""
        affine = np.diag([-self.spacing_mm, -self.spacing_mm, self.spacing_mm, 1.0])
        affine[:3, 3] = self.origin * [-1, -1, 1]
        hu = np.rint(self.hu).astype(np.int16)
        return Volume(hu, affine), Volume(self.label, affine)

    def _blend(
        self, share: np.ndarray, hu: float | np.ndarray, label: int | None, box: Box
    ) -> None:
        """Blend the voxels with ``hu`` by ``share``; set the label where it is at least half."""
        self.hu[box] += share * (hu - self.hu[box])
        if label is not None:
            self.label[box][share >= 0.5] = label
