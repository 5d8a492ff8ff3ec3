"""The contract of the metrics: the required results for edge cases, computed by hand.

Chapter 9 shows these cases as a table, and a test checks every metric against them.
"""

from dataclasses import dataclass

import numpy as np

from ..metrics import Mask

#: First voxel of a box and first voxel after it along I, J, K; () is an empty mask.
Edges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ContractCase:
    """Two boxes on a small grid, and the value of each metric in :mod:`unet3d_tutorial.metrics`."""

    name: str
    shape: tuple[int, int, int]  #: voxels of the grid
    prediction: Edges
    reference: Edges
    spacing_mm: tuple[float, float, float]
    expected: dict[str, float]  #: value of each metric, by its name

    def masks(self) -> tuple[Mask, Mask]:
        """Return prediction and reference, boolean, of ``shape``."""
        return self._box(self.prediction), self._box(self.reference)

    def _box(self, edges: Edges) -> Mask:
        mask = np.zeros(self.shape, bool)
        if edges:
            mask[tuple(slice(first, end) for first, end in edges)] = True
        return mask


_GRID = (8, 8, 8)
_CUBE = ((2, 5), (2, 5), (2, 5))
_MM = (1.0, 1.0, 1.0)
_INF = float("inf")

#: Edge cases for which a metric must give no error, warning or NaN.
CONTRACT: tuple[ContractCase, ...] = (
    ContractCase(
        name="both empty",
        shape=_GRID,
        prediction=(),
        reference=(),
        spacing_mm=_MM,
        expected={
            "dice": 1,
            "jaccard": 1,
            "precision": 1,
            "sensitivity": 1,
            "specificity": 1,
            "volume_difference": 0,
            "relative_volume_difference": 0,
            "surface_dice": 1,
            "hd95": 0,
            "asd": 0,
            "assd": 0,
        },
    ),
    ContractCase(
        name="prediction empty",
        shape=_GRID,
        prediction=(),
        reference=_CUBE,
        spacing_mm=_MM,
        expected={
            "dice": 0,
            "jaccard": 0,
            "precision": 0,
            "sensitivity": 0,
            "specificity": 1,
            "volume_difference": -0.027,
            "relative_volume_difference": -1,
            "surface_dice": 0,
            "hd95": _INF,
            "asd": _INF,
            "assd": _INF,
        },
    ),
    ContractCase(
        name="reference empty",
        shape=_GRID,
        prediction=_CUBE,
        reference=(),
        spacing_mm=_MM,
        expected={
            "dice": 0,
            "jaccard": 0,
            "precision": 0,
            "sensitivity": 0,
            "specificity": 485 / 512,
            "volume_difference": 0.027,
            "relative_volume_difference": _INF,
            "surface_dice": 0,
            "hd95": _INF,
            "asd": _INF,
            "assd": _INF,
        },
    ),
    # The surface of a full 4 x 4 x 4 grid is its outer layer, 56 voxels. Without the last slice
    # there are 44. The 4 in the middle of the cut face and the 16 of the missing slice are one
    # voxel away from the other surface.
    ContractCase(
        name="touching the border",
        shape=(4, 4, 4),
        prediction=((0, 3), (0, 4), (0, 4)),
        reference=((0, 4), (0, 4), (0, 4)),
        spacing_mm=_MM,
        expected={
            "dice": 6 / 7,
            "jaccard": 3 / 4,
            "precision": 1,
            "sensitivity": 3 / 4,
            "specificity": 1,
            "volume_difference": -0.016,
            "relative_volume_difference": -1 / 4,
            "surface_dice": 1,
            "hd95": 1,
            "asd": 4 / 44,
            "assd": 20 / 100,
        },
    ),
    # Of the cube's border voxels, 6 are 1 mm away from its centre, 12 are sqrt(2) mm and 8 are
    # sqrt(3) mm.
    ContractCase(
        name="one voxel in a cube",
        shape=_GRID,
        prediction=((3, 4),) * 3,
        reference=_CUBE,
        spacing_mm=_MM,
        expected={
            "dice": 2 / 28,
            "jaccard": 1 / 27,
            "precision": 1,
            "sensitivity": 1 / 27,
            "specificity": 1,
            "volume_difference": -0.026,
            "relative_volume_difference": -26 / 27,
            "surface_dice": 1,
            "hd95": 3**0.5,
            "asd": 1,
            "assd": (1 + 6 + 12 * 2**0.5 + 8 * 3**0.5) / 27,
        },
    ),
    ContractCase(
        name="two voxels off, thin slices",
        shape=_GRID,
        prediction=((2, 3),) * 3,
        reference=((4, 5), (2, 3), (2, 3)),
        spacing_mm=(0.7, 0.7, 2.5),
        expected={
            "dice": 0,
            "jaccard": 0,
            "precision": 0,
            "sensitivity": 0,
            "specificity": 510 / 511,
            "volume_difference": 0,
            "relative_volume_difference": 0,
            "surface_dice": 1,
            "hd95": 1.4,
            "asd": 1.4,
            "assd": 1.4,
        },
    ),
    ContractCase(
        name="two slices off, thick slices",
        shape=_GRID,
        prediction=((2, 3),) * 3,
        reference=((2, 3), (2, 3), (4, 5)),
        spacing_mm=(0.7, 0.7, 2.5),
        expected={
            "dice": 0,
            "jaccard": 0,
            "precision": 0,
            "sensitivity": 0,
            "specificity": 510 / 511,
            "volume_difference": 0,
            "relative_volume_difference": 0,
            "surface_dice": 0,
            "hd95": 5,
            "asd": 5,
            "assd": 5,
        },
    ),
)
