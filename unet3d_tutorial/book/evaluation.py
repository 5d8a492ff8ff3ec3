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

GRID_VOXELS, GRID_SPACING_MM = 44, 2.0  #: a cube's edge and its voxels, for the drawings of metrics
LOWER_IS_BETTER = {"hd95", "asd", "assd", "relative_volume_difference"}


# ------------------------------------------------------------------------------- Dice by structure


def structure_dice(labels: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Dice of each structure in two label arrays ``(I, J, K)`` of one grid."""
    return {
        structure: metrics.dice(labels == value, reference == value)
        for value, structure in enumerate(STRUCTURES, start=1)
    }


def in_words(dices: Mapping[str, float | None], digits: int = 3) -> str:
    """Dice by structure as one line of text; ``None`` is a structure that was missed.

    >>> in_words({"left lung": 0.98, "trachea": None})
    'left lung 0.980, trachea missed'
    """
    words = []
    for structure, dice in dices.items():
        words.append(f"{structure} missed" if dice is None else f"{structure} {dice:.{digits}f}")
    return ", ".join(words)


def mean_dice(cases: Mapping[str, Sequence[StructureScore]]) -> dict[str, float]:
    """The mean Dice over the structures of each case, by the case's name."""
    return {
        name: float(np.mean([score.dice for score in scores])) for name, scores in cases.items()
    }


# ------------------------------------------------------------------------- metrics that disagree


def ball(radius_mm: float, centre_mm: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """A ball in a cube of 44 voxels of 2 mm, boolean ``(44, 44, 44)``.

    ``centre_mm`` is counted from the middle of the cube.
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

    first: str  #: a key of what :func:`unet3d_tutorial.metrics.score` gives
    second: str
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
        """Size of one metric for A and for B, without its sign."""
        a, b = self.scores
        return abs(a[metric]), abs(b[metric])

    def preferred(self, metric: str) -> str:
        """The prediction that ``metric`` calls better, ``"A"`` or ``"B"``."""
        a, b = self.values(metric)
        a_is_lower = a < b
        return "A" if a_is_lower == (metric in LOWER_IS_BETTER) else "B"


# ----------------------------------------------------------------------------- parts of a volume


def crop_to_labels(labels: Volume, margin: int) -> Volume:
    """The box around all labels of a volume ``(I, J, K)``, ``margin`` voxels wider on each side."""
    (box,) = ndimage.find_objects((labels.array > 0).astype(np.uint8))
    first = [max(side.start - margin, 0) for side in box]
    size = [side.stop + margin - start for side, start in zip(box, first, strict=True)]
    return crop_box(labels, first, size)


def without_first_slices(volume: Volume, count: int) -> Volume:
    """A volume ``(I, J, K)`` without its first ``count`` slices along I.

    The affine follows, so the rest stays where it is in the patient.
    """
    length, *others = volume.array.shape
    return crop_box(volume, (count, 0, 0), (length - count, *others))


def there_and_back(labels: Volume, spacing_mm: float) -> np.ndarray:
    """Labels ``(I, J, K)`` after a way through a grid of cubes of ``spacing_mm``.

    As if a network had predicted the very labels on that grid: class scores of 0 and 1, brought
    back by interpolation.
    """
    steps = Compose([ExpandChannel(), Orientation("RAS"), Spacing((spacing_mm,) * 3)])
    _, coarse = steps(labels, labels)
    assert coarse is not None
    classes = np.arange(len(STRUCTURES) + 1).reshape(-1, 1, 1, 1)
    scores = Volume((coarse.array[0] == classes).astype(np.float32), coarse.affine)
    first, second, third = labels.array.shape
    return labels_on_grid(scores, (first, second, third), labels.affine)
