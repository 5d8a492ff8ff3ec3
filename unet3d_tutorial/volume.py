"""A scan is an array and an affine: voxels, and the map from their indices to the patient.

The modules of ``files`` read a :class:`Volume` from a file, and write one to a file.
"""

from dataclasses import dataclass
from html import escape
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np

#: Tolerance for comparing grids. Headers may be rounded to six digits; grids that really differ are
#: a voxel apart or more.
GRID_TOLERANCE_MM = 0.05
#: Above this number of voxels the range of values is not printed, as finding it takes 0.1 s.
LARGE_VOXELS = 2**27

Grid = tuple[tuple[int, ...], np.ndarray]  #: shape, whose last three entries are I, J, K; affine


class BadScanError(ValueError):
    """A scan or mask that cannot be used.

    The message names the file, what was found and what was expected.
    """


@dataclass(frozen=True, eq=False, repr=False)
class Volume:
    """Voxels and the map from voxel index to patient position.

    ``array`` is ``(I, J, K)``, or ``(C, I, J, K)`` once a channel axis has been added. ``affine``
    is a 4 x 4 matrix that maps an index ``(i, j, k, 1)`` to a position in mm towards the patient's
    right, front and head (RAS+, the convention of nibabel).

    >>> scan = Volume(np.zeros((40, 50, 60)), np.diag([-2.0, -2.0, 3.0, 1.0]))
    >>> scan
    Volume(shape (40, 50, 60), type float64, spacing 2 x 2 x 3 mm, axes LPS, values 0 to 0)
    >>> scan.spacing_mm, scan.axis_codes
    ((2.0, 2.0, 3.0), 'LPS')

    Volumes are equal if their arrays have the same type, shape and values, with NaN equal to NaN,
    and if their affines are equal. They are not hashable, because their arrays can change: they
    cannot be in a set or be the key of a dictionary.
    """

    array: np.ndarray
    affine: np.ndarray

    @property
    def grid(self) -> Grid:
        """Shape and affine of the volume."""
        return self.array.shape, self.affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along each array axis, in mm."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in mL.

        The spacing alone is not enough: with a tilted gantry the axes are not at right angles.
        """
        i, j, k = self.affine[:3, :3].T
        return abs(float(i @ np.cross(j, k))) / 1000

    @property
    def axis_codes(self) -> str:
        """Where each array axis points, for example ``"RAS"`` or ``"LPS"``."""
        return "".join(nib.aff2axcodes(self.affine))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Volume):
            return NotImplemented
        return _is_same(self.array, other.array) and _is_same(self.affine, other.affine)

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self._facts().items())
        return f"Volume({facts})"

    def _repr_html_(self) -> str:
        """A small HTML table, which Jupyter shows instead of the line of text."""
        rows = "".join(
            f"<tr><th>{name}</th><td>{escape(value)}</td></tr>"
            for name, value in self._facts().items()
        )
        return f"<table>{rows}</table>"

    def _facts(self) -> dict[str, str]:
        """The most important properties, as text: shape, type, spacing, axes, values."""
        facts = {
            "shape": str(self.array.shape),
            "type": str(self.array.dtype),
            "spacing": " x ".join(f"{mm:.3g}" for mm in self.spacing_mm) + " mm",
            "axes": self.axis_codes,
        }
        if self.array.dtype.kind in "biuf" and 0 < self.array.size <= LARGE_VOXELS:
            least, greatest = float(self.array.min()), float(self.array.max())
            facts["values"] = f"{least:.6g} to {greatest:.6g}"
        return facts


def _is_same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have the same type, shape and values; NaN counts as equal to NaN."""
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


# -------------------------------------------------------------------------------------------- grids


def grid_distance_mm(shape: tuple[int, ...], a: np.ndarray, b: np.ndarray) -> float:
    """How far apart two grids of the same shape are, in mm.

    ``a`` and ``b`` are their affines. The result is the largest distance between a corner of the
    first grid and the same corner of the second.
    """
    ends = [(0, count - 1) for count in shape[-3:]]
    corners = np.array([(*corner, 1) for corner in product(*ends)]).T
    apart = (a - b) @ corners
    return float(np.linalg.norm(apart[:3], axis=0).max())


def check_same_grid(
    name: str | Path, grid: Grid, reference_name: str | Path, reference: Grid
) -> None:
    """Raise :class:`BadScanError` unless a grid has the shape and position of a reference.

    Positions may differ by up to :data:`GRID_TOLERANCE_MM`. The names, for example of files, are
    used in the message.
    """
    shape, affine = grid
    reference_shape, reference_affine = reference
    if shape != reference_shape:
        raise BadScanError(
            f"{name}: expected {reference_name}'s shape {reference_shape}, found {shape}"
        )
    distance = grid_distance_mm(shape, affine, reference_affine)
    if distance > GRID_TOLERANCE_MM:
        raise BadScanError(
            f"{name}: expected {reference_name}'s affine {reference_affine.round(4).tolist()}, "
            f"found a grid {distance:.2f} mm away"
        )


def check_finite(array: np.ndarray, name: str | Path) -> None:
    """Raise :class:`BadScanError` if a voxel is infinite or not a number."""
    if array.dtype.kind != "f":
        return
    # Checking minimum and maximum is enough, and unlike np.isfinite(array) it needs no memory.
    if np.isfinite(array.min()) and np.isfinite(array.max()):
        return
    count = np.count_nonzero(~np.isfinite(array))
    raise BadScanError(
        f"{name}: expected finite values, found {count} voxels that are not a number or infinite; "
        "write the file again with a number in their place, such as -1000 HU for air"
    )
