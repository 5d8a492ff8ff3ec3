"""The measurements of the chapter on evaluation: Dice, metrics that disagree, and coarse grids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from .. import metrics
from ..evaluation import StructureScore
from ..inference import labels_on_grid
from ..labels import STRUCTURES
from ..transforms import Compose, ExpandChannel, Orientation, Spacing
from ..transforms.crops import crop_box
from ..volume import Volume

GRID_VOXELS, GRID_SPACING_MM = 44, 2.0  #: edge of the cube in the figures of metrics, and spacing
LOWER_IS_BETTER = {"hd95", "asd", "assd", "relative_volume_difference"}


# ------------------------------------------------------------------------------- Dice by structure


def structure_dice(labels: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return the Dice of each structure between two label arrays ``(I, J, K)`` on one grid."""
    return {
        structure: metrics.dice(labels == value, reference == value)
        for value, structure in enumerate(STRUCTURES, start=1)
    }


def in_words(dices: Mapping[str, float | None], digits: int = 3) -> str:
    """Format the Dice of each structure on one line; ``None`` is a structure that was missed.

    >>> in_words({"left lung": 0.98, "trachea": None})
    'left lung 0.980, trachea missed'
    """
    words = []
    for structure, dice in dices.items():
        words.append(f"{structure} missed" if dice is None else f"{structure} {dice:.{digits}f}")
    return ", ".join(words)


def mean_dice(cases: Mapping[str, Sequence[StructureScore]]) -> dict[str, float]:
    """Return the mean Dice over the structures of each case, by the case's name."""
    return {
        name: float(np.mean([score.dice for score in scores])) for name, scores in cases.items()
    }


# ------------------------------------------------------------------------- metrics that disagree


def ball(radius_mm: float, centre_mm: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """Return a ball in a cube of 44 voxels of 2 mm per side, boolean ``(44, 44, 44)``.

    ``centre_mm`` is relative to the middle of the cube.
    """
    positions = np.arange(GRID_VOXELS) * GRID_SPACING_MM
    grid = np.stack(np.meshgrid(positions, positions, positions, indexing="ij"))
    middle = GRID_VOXELS * GRID_SPACING_MM / 2
    offsets = grid - middle - np.reshape(centre_mm, (3, 1, 1, 1))
    return (offsets**2).sum(axis=0) < radius_mm**2


@dataclass(frozen=True)
class MetricPair:
    """Two metrics and two predictions of one reference: ``first`` prefers A, ``second`` B.

    The masks are boolean ``(44, 44, 44)``, as :func:`ball` makes them.
    """

    first: str  #: a key of the result of :func:`unet3d_tutorial.metrics.score`
    second: str  #: another such key
    reference: np.ndarray
    a: np.ndarray
    b: np.ndarray

    @cached_property
    def scores(self) -> tuple[dict[str, float], dict[str, float]]:
        """All metrics of prediction A and of prediction B."""
        spacing_mm = (GRID_SPACING_MM,) * 3
        return (
            metrics.score(self.a, self.reference, spacing_mm=spacing_mm),
            metrics.score(self.b, self.reference, spacing_mm=spacing_mm),
        )

    def values(self, metric: str) -> tuple[float, float]:
        """Return the absolute value of one metric for A and for B."""
        a, b = self.scores
        return abs(a[metric]), abs(b[metric])

    def preferred(self, metric: str) -> str:
        """Return the prediction that ``metric`` rates better, ``"A"`` or ``"B"``."""
        a, b = self.values(metric)
        a_is_lower = a < b
        return "A" if a_is_lower == (metric in LOWER_IS_BETTER) else "B"


# ----------------------------------------------------------------------------- parts of a volume


def crop_to_labels(labels: Volume, margin: int) -> Volume:
    """Crop a volume ``(I, J, K)`` to its labels, with ``margin`` voxels around them."""
    (box,) = ndimage.find_objects((labels.array > 0).astype(np.uint8))
    first = [max(side.start - margin, 0) for side in box]
    size = [side.stop + margin - start for side, start in zip(box, first, strict=True)]
    return crop_box(labels, first, size)


def without_first_slices(volume: Volume, count: int) -> Volume:
    """Remove the first ``count`` slices of a volume ``(I, J, K)`` along I.

    The affine changes accordingly, so the rest stays at its position in the patient.
    """
    length, *others = volume.array.shape
    return crop_box(volume, (count, 0, 0), (length - count, *others))


def there_and_back(labels: Volume, spacing_mm: float) -> np.ndarray:
    """Resample labels ``(I, J, K)`` to an isotropic grid of ``spacing_mm``, and back.

    This is what a perfect network on that grid would reach: class scores of 0 and 1 on the coarse
    grid, interpolated to the original one. Returns labels ``(I, J, K)``.
    """
    steps = Compose([ExpandChannel(), Orientation("RAS"), Spacing((spacing_mm,) * 3)])
    _, coarse = steps(labels, labels)
    assert coarse is not None
    classes = np.arange(len(STRUCTURES) + 1).reshape(-1, 1, 1, 1)
    scores = Volume((coarse.array[0] == classes).astype(np.float32), coarse.affine)
    first, second, third = labels.array.shape
    return labels_on_grid(scores, (first, second, third), labels.affine)
