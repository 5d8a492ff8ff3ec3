"""The canvas of a phantom: a grid of HU and labels that is painted with signed distances, and the
simple shapes.

Every shape is a *signed distance* in millimetres, negative inside. A voxel that a surface cuts is
blended by the share that lies inside, as a real scanner averages over it.
"""

import numpy as np

AIR = -1000.0  # HU
BACKGROUND = 0  # label of whatever is neither lung nor airway


class Canvas:
    """A grid of HU and labels that is painted with signed distances.

    ``x``, ``y``, ``z`` are ``(I, J, K)`` arrays of patient coordinates in mm, already tilted and
    smoothly warped, so that simple shapes come out bent like anatomy.
    """

    # landmarks in mm, known once the space between the lungs is laid out
    spine_y: float
    heart: np.ndarray
    heart_radii: np.ndarray
    oesophagus: np.ndarray

    def __init__(self, shape: tuple[int, ...], spacing_mm: float, centre: np.ndarray):
        self.spacing_mm = spacing_mm
        axes = [
            (np.arange(n) - (n - 1) / 2) * spacing_mm + c
            for n, c in zip(shape, centre, strict=True)
        ]
        self.origin = np.array([axis[0] for axis in axes])
        self.x, self.y, self.z = (
            np.array(a, np.float32) for a in np.meshgrid(*axes, indexing="ij")
        )
        self.hu = np.full(shape, AIR, np.float32)
        self.label = np.zeros(shape, np.uint8)

    def bend(self, rng: np.random.Generator, tilt: np.ndarray, warp_mm: float) -> None:
        """Tilt the patient and warp the coordinates smoothly by about ``warp_mm``."""
        grid = self.x, self.y, self.z
        (cx, cy, cz), (sx, sy, sz) = np.cos(tilt), np.sin(tilt)
        rotation = np.array(
            [[cy * cz, -cy * sz, sy], [sz, cz, -sx], [-sy, sx, cx * cy]], np.float32
        )
        warped = []
        for row in rotation:
            noise = self.noise(rng, 70.0)
            warped.append(
                row[0] * grid[0] + row[1] * grid[1] + row[2] * grid[2] + np.float32(warp_mm) * noise
            )
        self.x, self.y, self.z = warped

    def noise(self, rng: np.random.Generator, scale_mm: float) -> np.ndarray:
        """Smooth random field of mean 0 and deviation 1 whose bumps are about ``scale_mm`` wide."""
        field = rng.standard_normal(
            [int(np.ceil(n * self.spacing_mm / scale_mm)) + 3 for n in self.hu.shape]
        )
        for axis, n in enumerate(self.hu.shape):
            position = np.arange(n) * self.spacing_mm / scale_mm + 1
            weight = np.exp(-((position[:, None] - np.arange(field.shape[axis])) ** 2) / 0.8)
            weight /= np.sqrt((weight**2).sum(axis=1, keepdims=True))
            field = np.moveaxis(
                np.tensordot(weight.astype(np.float32), field.astype(np.float32), (1, axis)),
                0,
                axis,
            )
        return field

    def share(self, distance: np.ndarray) -> np.ndarray:
        """Share of each voxel that lies inside a surface, from its signed distance in mm."""
        return np.clip(0.5 - distance / self.spacing_mm, 0.0, 1.0)

    def paint(
        self, distance: np.ndarray, hu: float | np.ndarray, label: int | None = None, box=...
    ) -> None:
        """Blend ``hu`` into the inside; set ``label`` where at least half of the voxel is inside
        (None keeps it).
        """
        share = self.share(distance)
        self.hu[box] += share * (hu - self.hu[box])
        if label is not None:
            self.label[box][share >= 0.5] = label

    def box(self, low: np.ndarray, high: np.ndarray, margin: float) -> tuple[slice, ...]:
        """Index box that holds the part of the warped grid between two corners, given in mm."""
        start = np.floor((np.minimum(low, high) - margin - self.origin) / self.spacing_mm).astype(
            int
        )
        stop = (
            np.ceil((np.maximum(low, high) + margin - self.origin) / self.spacing_mm).astype(int)
            + 1
        )
        return tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(start, stop, strict=True))

    def ellipsoid(self, centre, radii, hu, label: int | None = None) -> None:
        """Paint an ellipsoid."""
        centre, radii = np.asarray(centre, np.float32), np.asarray(radii, np.float32)
        box = self.box(centre - radii, centre + radii, 30)
        if self.hu[box].size:
            self.paint(
                ellipsoid(self.x[box], self.y[box], self.z[box], centre, radii), hu, label, box
            )

    def tube(
        self,
        points,
        radius,
        hu: float,
        label: int | None = None,
        *,
        inside: np.ndarray | None = None,
    ) -> None:
        """Paint a tube through ``points``;

        ``radius`` is one number or one a point. ``inside`` limits it to a mask.

        A tube thinner than a voxel gets the brightness that its cross-section has in the voxel.
        """
        points = np.asarray(points, np.float32)
        radii = np.broadcast_to(np.asarray(radius, np.float32), len(points))
        for a, b, r in zip(points[:-1], points[1:], (radii[:-1] + radii[1:]) / 2, strict=True):
            box = self.box(a, b, r + 25)
            if not self.hu[box].size:
                continue
            distance = capsule(self.x[box], self.y[box], self.z[box], a, b) - max(
                r, 0.5 * self.spacing_mm
            )
            weight = self.share(distance) * min(1.0, (2 * r / self.spacing_mm) ** 2)
            if inside is not None:
                weight = weight * inside[box]
            self.hu[box] += weight * (hu - self.hu[box])
            if label is not None:
                self.label[box][weight >= 0.5] = label


def ellipsoid(x, y, z, centre, radii) -> np.ndarray:
    """Signed distance in mm to an ellipsoid, near its surface (first order)."""
    (cx, cy, cz), (rx, ry, rz) = centre, radii
    r = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2)
    return (r - 1) * min(rx, ry, rz)


def capsule(x, y, z, a, b) -> np.ndarray:
    """Distance in mm to the line from ``a`` to ``b``."""
    d = b - a
    t = np.clip(
        ((x - a[0]) * d[0] + (y - a[1]) * d[1] + (z - a[2]) * d[2]) / max(float(d @ d), 1e-6), 0, 1
    )
    return np.sqrt(
        (x - a[0] - t * d[0]) ** 2 + (y - a[1] - t * d[1]) ** 2 + (z - a[2] - t * d[2]) ** 2
    )


def superellipse(x, y, rx, ry, n: float) -> np.ndarray:
    """Signed distance in mm, to first order, to ``|x/rx|^n + |y/ry|^n = 1``; the radii may vary
    from voxel to voxel.
    """
    r = (np.abs(x / rx) ** n + np.abs(y / ry) ** n) ** (1 / n)
    return (r - 1) * np.minimum(rx, ry)


def ramp(value, start: float, stop: float):
    """0 below ``start``, 1 above ``stop``, smooth between."""
    t = np.clip((value - start) / (stop - start), 0, 1)
    return t * t * (3 - 2 * t)
