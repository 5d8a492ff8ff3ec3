"""Simple shapes as signed distances: how far each point is from a surface in mm, negative inside.

``np.minimum`` gives the union of two shapes, ``np.maximum`` their intersection, and a minus sign
the complement. Points are given by their coordinates ``x, y, z`` in mm, three arrays of equal
shape.
"""

import numpy as np
from numpy.typing import ArrayLike

#: x, y and z in mm of the points, arrays of one shape.
Coordinates = tuple[np.ndarray, np.ndarray, np.ndarray]

FAR_AWAY_MM = 1e3  #: signed distance to a shape that does not exist


def ellipsoid(points: Coordinates, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Signed distance to an ellipsoid; an approximation, best near its surface.

    ``centre`` and ``radii`` are three numbers each, in mm.
    """
    x, y, z = points
    centre_x, centre_y, centre_z = centre
    radius_x, radius_y, radius_z = radii
    relative = np.sqrt(
        ((x - centre_x) / radius_x) ** 2
        + ((y - centre_y) / radius_y) ** 2
        + ((z - centre_z) / radius_z) ** 2
    )
    return (relative - 1) * min(radius_x, radius_y, radius_z)


def capsule(points: Coordinates, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance in mm to the line segment from ``start`` to ``end``, never negative.

    Minus a radius, it is the signed distance to a tube with round ends.
    """
    x, y, z = points
    along = end - start
    squared_length = max(float(along @ along), 1e-6)
    from_start = (x - start[0]) * along[0] + (y - start[1]) * along[1] + (z - start[2]) * along[2]
    share = np.clip(from_start / squared_length, 0, 1)  # of the way to the nearest point
    return np.sqrt(
        (x - start[0] - share * along[0]) ** 2
        + (y - start[1] - share * along[1]) ** 2
        + (z - start[2] - share * along[2]) ** 2
    )


def tube(points: Coordinates, path: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance to a tube along ``path``, its centre line, ``(points, 3)``; all in mm."""
    segments = [capsule(points, start, end) for start, end in zip(path[:-1], path[1:], strict=True)]
    return np.minimum.reduce(segments) - radius


def superellipse(
    x: np.ndarray, y: np.ndarray, radius_x: ArrayLike, radius_y: ArrayLike, exponent: float
) -> np.ndarray:
    """Approximate signed distance to the superellipse ``|x / radius_x|^n + |y / radius_y|^n = 1``.

    ``exponent`` n is 2 for an ellipse; larger values are squarer. The radii may vary from voxel to
    voxel, so that a stack of superellipses forms a trunk.
    """
    relative = (np.abs(x / radius_x) ** exponent + np.abs(y / radius_y) ** exponent) ** (
        1 / exponent
    )
    return (relative - 1) * np.minimum(radius_x, radius_y)


def ramp(values: np.ndarray, start: float, stop: float) -> np.ndarray:
    """0 below ``start``, 1 above ``stop``, and a smooth cubic between them, flat at both ends."""
    share = np.clip((values - start) / (stop - start), 0, 1)
    return share * share * (3 - 2 * share)
