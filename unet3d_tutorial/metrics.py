"""How well one mask agrees with another: overlap as a share, volume in mL, distances between
surfaces in millimetres.

Every function takes ``(prediction, reference)``, two boolean arrays ``(I, J, K)`` of one structure
on one grid. Distances and volumes need the size of a voxel, ``spacing_mm``; overlap does not, and
takes it only so that all can be called alike. :func:`score` gives all metrics of one pair, and
measures the surfaces once.

What an empty mask gives is a contract, so that no ``NaN`` drops a missed structure from a mean:

================================  ==========  ===============  ================
metric                            both empty  prediction       reference empty
                                              empty
================================  ==========  ===============  ================
dice, jaccard, surface_dice       1           0                0
precision, sensitivity            1           0                0
specificity                       1           1                share left empty
relative_volume_difference        0           -1               inf
hd95, asd, assd                   0           inf              inf
================================  ==========  ===============  ================

:data:`CONTRACT` holds these cases and others (the border, one voxel, anisotropic voxels) with
values worked out by hand.

The definitions are those of MedPy (``medpy.metric.binary``), which raises for empty masks, and that
of MONAI for ``surface_dice``. On choosing: Maier-Hein et al., "Metrics reloaded", 2024. All raise
``ValueError`` for masks that are not boolean, not 3-D or of different shape, and for a spacing that
is not three positive lengths.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

Spacing = Sequence[float]


# ------------------------------------------------------------------------------------------ overlap


def dice(
    prediction: np.ndarray, reference: np.ndarray, *, spacing_mm: Spacing | None = None
) -> float:
    """Twice the common volume over the sum of both volumes, 0..1 (Dice, 1945).

    >>> prediction, reference = np.zeros((2, 4, 8, 8), bool)
    >>> prediction[:3], reference[1:3] = True, True
    >>> dice(prediction, reference)
    0.8
    """
    common, predicted, true = _counts(prediction, reference, spacing_mm)
    return 2 * common / (predicted + true) if predicted + true else 1.0


def jaccard(
    prediction: np.ndarray, reference: np.ndarray, *, spacing_mm: Spacing | None = None
) -> float:
    """Volume in both over volume in either, 0..1; with Dice ``d`` it is ``d / (2 - d)``."""
    common, predicted, true = _counts(prediction, reference, spacing_mm)
    return common / (predicted + true - common) if predicted + true else 1.0


def precision(
    prediction: np.ndarray, reference: np.ndarray, *, spacing_mm: Spacing | None = None
) -> float:
    """Share of the prediction that is right, 0..1. Low where the prediction spills over."""
    common, predicted, true = _counts(prediction, reference, spacing_mm)
    return common / predicted if predicted else float(true == 0)


def sensitivity(
    prediction: np.ndarray, reference: np.ndarray, *, spacing_mm: Spacing | None = None
) -> float:
    """Share of the reference that was found, 0..1, also called recall.

    Low where the prediction misses parts.
    """
    common, predicted, true = _counts(prediction, reference, spacing_mm)
    return common / true if true else float(predicted == 0)


def specificity(
    prediction: np.ndarray, reference: np.ndarray, *, spacing_mm: Spacing | None = None
) -> float:
    """Share of the background that was left as background, 0..1; 1.0 if there is no background.

    It grows with the empty space around a structure, so it is close to 1 for any small one, found
    or not.
    """
    common, predicted, true = _counts(prediction, reference, spacing_mm)
    background = reference.size - true
    return (background - (predicted - common)) / background if background else 1.0


# ------------------------------------------------------------------------------------------- volume


def volume_difference(
    prediction: np.ndarray, reference: np.ndarray, *, spacing_mm: Spacing
) -> float:
    """Volume of the prediction less that of the reference, in mL. Blind to where either lies."""
    _check(prediction, reference, spacing_mm, needs_spacing=True)
    voxels = np.count_nonzero(prediction) - np.count_nonzero(reference)
    return float(voxels * np.prod(np.asarray(spacing_mm, float)) / 1000)


def relative_volume_difference(
    prediction: np.ndarray, reference: np.ndarray, *, spacing_mm: Spacing | None = None
) -> float:
    """:func:`volume_difference` as a share of the reference's volume: -1 if all was missed,
    positive for too much.
    """
    _, predicted, true = _counts(prediction, reference, spacing_mm)
    if not true:
        return float("inf") if predicted else 0.0
    return (predicted - true) / true


# ----------------------------------------------------------------------------------------- surfaces


def hd95(prediction: np.ndarray, reference: np.ndarray, *, spacing_mm: Spacing) -> float:
    """95th percentile of the distances from each surface to the other, pooled, in mm: the
    near-worst error.

    >>> prediction, reference = np.zeros((2, 4, 8, 8), bool)
    >>> prediction[2, 3, 4] = reference[2, 3, 5] = True
    >>> hd95(prediction, reference, spacing_mm=(0.7, 0.7, 2.5))
    2.5
    """
    return hd95_of(*surface_distances(prediction, reference, spacing_mm=spacing_mm))


def assd(prediction: np.ndarray, reference: np.ndarray, *, spacing_mm: Spacing) -> float:
    """Mean of the distances from each surface to the other, pooled, in mm: the typical error.

    Symmetric.
    """
    return assd_of(*surface_distances(prediction, reference, spacing_mm=spacing_mm))


def asd(prediction: np.ndarray, reference: np.ndarray, *, spacing_mm: Spacing) -> float:
    """Mean distance from the prediction's surface to the reference's, in mm.

    Directed: missed parts may not show.
    """
    borders = _borders(prediction, reference, spacing_mm)
    return _summary(_to_nearest(*borders, spacing_mm), np.mean)


def surface_dice(
    prediction: np.ndarray, reference: np.ndarray, *, spacing_mm: Spacing, tolerance_mm: float = 2.0
) -> float:
    """Share of both surfaces that lies within ``tolerance_mm`` of the other, 0..1 (Nikolov et al.,
    2018).

    Each border voxel counts as one piece of surface, as in MONAI's ``compute_surface_dice``. Raises
    ``ValueError`` for a negative tolerance.
    """
    return surface_dice_of(
        *surface_distances(prediction, reference, spacing_mm=spacing_mm), tolerance_mm=tolerance_mm
    )


def hd95_of(to_reference: np.ndarray, to_prediction: np.ndarray) -> float:
    """:func:`hd95` from the two arrays of :func:`surface_distances`, for who needs several
    distances of one pair.
    """
    return _summary(
        np.concatenate([to_reference, to_prediction]), lambda pooled: np.percentile(pooled, 95)
    )


def assd_of(to_reference: np.ndarray, to_prediction: np.ndarray) -> float:
    """:func:`assd` from the two arrays of :func:`surface_distances`."""
    return _summary(np.concatenate([to_reference, to_prediction]), np.mean)


def surface_dice_of(
    to_reference: np.ndarray, to_prediction: np.ndarray, *, tolerance_mm: float = 2.0
) -> float:
    """:func:`surface_dice` from the two arrays of :func:`surface_distances`."""
    if not tolerance_mm >= 0:
        raise ValueError(f"tolerance_mm: expected a length of at least 0 mm, found {tolerance_mm}")
    pooled = np.concatenate([to_reference, to_prediction])
    return float(np.mean(pooled <= tolerance_mm)) if pooled.size else 1.0


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, *, spacing_mm: Spacing
) -> tuple[np.ndarray, np.ndarray]:
    """Measure from every border voxel of one mask to the nearest border voxel of the other.

    Returns two 1-D arrays in mm, in no useful order: from the prediction's border to the
    reference's, and back. If one mask is empty, each holds one infinite distance; if both are, the
    arrays are empty.
    """
    here, there = _borders(prediction, reference, spacing_mm)
    return _to_nearest(here, there, spacing_mm), _to_nearest(there, here, spacing_mm)


def border(mask: np.ndarray) -> np.ndarray:
    """Mark the voxels of a mask that have one of their six neighbours outside it.

    Outside the array is outside it.
    """
    inside = mask.copy()
    for axis in range(3):
        lines, kept = np.moveaxis(mask, axis, 0), np.moveaxis(inside, axis, 0)
        kept[1:] &= lines[:-1]
        kept[:-1] &= lines[1:]
        kept[:1] = kept[-1:] = False
    return mask & ~inside


def score(
    prediction: np.ndarray, reference: np.ndarray, *, spacing_mm: Spacing, tolerance_mm: float = 2.0
) -> dict[str, float]:
    """All metrics of one pair by name, each as its own function gives it; the surfaces are measured
    once.
    """
    _check(prediction, reference, spacing_mm, needs_spacing=True)
    pair = _crop(prediction, reference)
    distances = surface_distances(*pair, spacing_mm=spacing_mm)
    in_box = (dice, jaccard, precision, sensitivity, volume_difference, relative_volume_difference)
    values = {metric.__name__: metric(*pair, spacing_mm=spacing_mm) for metric in in_box}
    return values | {
        "specificity": specificity(prediction, reference),
        "surface_dice": surface_dice_of(*distances, tolerance_mm=tolerance_mm),
        "hd95": hd95_of(*distances),
        "asd": _summary(distances[0], np.mean),
        "assd": assd_of(*distances),
    }


# ------------------------------------------------------------------------------------- the contract


@dataclass(frozen=True)
class ContractCase:
    """Two boxes on a small grid, and what the metrics must give; worked out by hand, not by this
    module.
    """

    name: str
    shape: tuple[int, int, int]  #: voxels of the grid
    #: first voxel and first voxel after, along I, J, K; () is an empty mask
    prediction: tuple[tuple[int, int], ...]
    reference: tuple[tuple[int, int], ...]
    spacing_mm: tuple[float, float, float]
    expected: dict[str, float]  #: metric to value

    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        """Prediction and reference, boolean, of ``shape``."""
        masks = np.zeros((2, *self.shape), bool)
        for mask, box in zip(masks, (self.prediction, self.reference), strict=True):
            mask[tuple(slice(*ends) for ends in box)] = bool(box)
        return masks[0], masks[1]


_GRID = (8, 8, 8)
_CUBE = ((2, 5), (2, 5), (2, 5))
_MM = (1.0, 1.0, 1.0)
_INF = float("inf")

#: Borderline cases that a metric must answer without an error, a warning or a NaN.
CONTRACT: tuple[ContractCase, ...] = (
    ContractCase(
        "both empty",
        _GRID,
        (),
        (),
        _MM,
        {
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
        "prediction empty",
        _GRID,
        (),
        _CUBE,
        _MM,
        {
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
        "reference empty",
        _GRID,
        _CUBE,
        (),
        _MM,
        {
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
    # The outer layer of a full 4 x 4 x 4 grid is surface, 56 voxels; without its last slice there
    # are 44, and the 4 in the middle of the cut face and the 16 of the lost slice are one voxel
    # away from the other surface.
    ContractCase(
        "touching the border",
        (4, 4, 4),
        ((0, 3), (0, 4), (0, 4)),
        ((0, 4), (0, 4), (0, 4)),
        _MM,
        {
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
    # From the centre of the cube 6 of its border voxels are 1 mm away, 12 are sqrt(2), 8 are
    # sqrt(3).
    ContractCase(
        "one voxel in a cube",
        _GRID,
        ((3, 4),) * 3,
        _CUBE,
        _MM,
        {
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
        "two voxels off, thin slices",
        _GRID,
        ((2, 3),) * 3,
        ((4, 5), (2, 3), (2, 3)),
        (0.7, 0.7, 2.5),
        {
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
        "two slices off, thick slices",
        _GRID,
        ((2, 3),) * 3,
        ((2, 3), (2, 3), (4, 5)),
        (0.7, 0.7, 2.5),
        {
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


# --------------------------------------------------------------------------------------- the pieces


def _borders(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Spacing
) -> tuple[np.ndarray, np.ndarray]:
    """Both borders, within the box that holds both masks: the rest of the grid has no part in a
    distance.
    """
    _check(prediction, reference, spacing_mm, needs_spacing=True)
    return tuple(border(mask) for mask in _crop(prediction, reference))


def _crop(prediction: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut both masks to the smallest box that holds both, of no voxels if both are empty."""
    box = []
    for axis in range(3):
        others = tuple({0, 1, 2} - {axis})
        filled = np.flatnonzero(prediction.any(axis=others) | reference.any(axis=others))
        box.append(slice(filled[0], filled[-1] + 1) if filled.size else slice(0))
    return tuple(np.ascontiguousarray(mask[tuple(box)]) for mask in (prediction, reference))


def _to_nearest(here: np.ndarray, there: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Distance in mm from each voxel of ``here`` to the nearest of ``there``; voxels of both are 0
    without a search.
    """
    if here.any() != there.any():
        return np.array([np.inf])
    distances = np.zeros(np.count_nonzero(here))
    alone = ~there[here]
    if alone.any():
        size = np.asarray(spacing_mm, float)
        # A tree split at midpoints, with loose boxes: the same answers, five times faster where
        # surfaces lie far apart.
        tree = KDTree(
            np.argwhere(there) * size, leafsize=32, balanced_tree=False, compact_nodes=False
        )
        distances[alone], _ = tree.query(np.argwhere(here)[alone] * size)
    return distances


def _summary(distances: np.ndarray, statistic: Callable[[np.ndarray], float]) -> float:
    """Apply ``statistic``; no distances at all (both masks empty) give 0, infinite ones inf and no
    warning.
    """
    if distances.size == 0:
        return 0.0
    return float(statistic(distances)) if np.isfinite(distances).all() else float("inf")


def _counts(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Spacing | None
) -> tuple[int, int, int]:
    """Count the voxels in both masks, in the prediction, in the reference."""
    _check(prediction, reference, spacing_mm, needs_spacing=False)
    return tuple(int(np.count_nonzero(m)) for m in (prediction & reference, prediction, reference))


def _check(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Spacing | None,
    *,
    needs_spacing: bool,
) -> None:
    for name, mask in (("prediction", prediction), ("reference", reference)):
        dtype = getattr(mask, "dtype", type(mask).__name__)
        if dtype != np.bool_:
            raise ValueError(
                f"{name}: expected a boolean mask such as (labels == 1), found {dtype}"
            )
        if mask.ndim != 3:
            raise ValueError(f"{name}: expected a 3-D mask (I, J, K), found shape {mask.shape}")
    if prediction.shape != reference.shape:
        raise ValueError(
            f"prediction: expected the reference's shape {reference.shape}, found {prediction.shape}"
        )
    if spacing_mm is None and not needs_spacing:
        return
    lengths = np.atleast_1d(np.asarray(spacing_mm, float))
    if lengths.shape != (3,) or not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError(f"spacing_mm: expected three positive lengths in mm, found {spacing_mm}")
