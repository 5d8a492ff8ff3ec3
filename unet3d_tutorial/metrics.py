"""Metrics of how well one mask agrees with another: overlap, volume and surface distances.

Overlap is a share from 0 to 1, volume is in mL, surface distances are in mm.

Every metric takes ``(prediction, reference)``, two boolean arrays ``(I, J, K)`` of one structure on
the same grid, and returns one number. Distances and volumes need ``spacing_mm``, the distance
between voxels along I, J and K. Overlap metrics do not need it, and accept it only so that all
metrics have the same signature. :func:`score` computes all metrics of a pair, and measures the
surfaces only once.

The values for empty masks are fixed, so that no ``NaN`` can drop a missed structure from a mean:

================================  ==========  ===============  ================
metric                            both empty  prediction       reference empty
                                              empty
================================  ==========  ===============  ================
dice, jaccard, surface_dice       1           0                0
precision, sensitivity            1           0                0
specificity                       1           1                share left empty
volume_difference                 0           -volume          volume
relative_volume_difference        0           -1               inf
hd95, asd, assd                   0           inf              inf
================================  ==========  ===============  ================

:mod:`unet3d_tutorial.book.contract` lists these cases and others (the border, a single voxel,
anisotropic voxels) with values computed by hand.

The definitions are those of MedPy (``medpy.metric.binary``), which raises errors for empty masks;
``surface_dice`` follows MONAI. For advice on choosing a metric see Maier-Hein et al., "Metrics
reloaded", 2024. All metrics raise ``ValueError`` for masks that are not boolean, not 3-D or of
different shapes, and for a spacing that is not three positive lengths.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

Mask = NDArray[np.bool_]  #: the voxels ``(I, J, K)`` of one structure
SpacingMm = Sequence[float]  #: distance between voxels along I, J, K, in mm

MM3_PER_ML = 1000

# ------------------------------------------------------------------------------------------ overlap


def dice(prediction: Mask, reference: Mask, *, spacing_mm: SpacingMm | None = None) -> float:
    """Twice the common volume over the sum of both volumes, 0..1 (Dice, 1945).

    1 if both masks are empty, 0 if one is.

    >>> prediction, reference = np.zeros((2, 4, 8, 8), bool)
    >>> prediction[:3], reference[1:3] = True, True
    >>> dice(prediction, reference)
    0.8
    """
    common, predicted, true = _voxels(prediction, reference, spacing_mm)
    return 2 * common / (predicted + true) if predicted + true else 1.0


def jaccard(prediction: Mask, reference: Mask, *, spacing_mm: SpacingMm | None = None) -> float:
    """Volume in both over volume in either, 0..1 (Jaccard, 1912).

    With Dice ``d`` it is ``d / (2 - d)``. 1 if both masks are empty, 0 if one is.
    """
    common, predicted, true = _voxels(prediction, reference, spacing_mm)
    return common / (predicted + true - common) if predicted + true else 1.0


def precision(prediction: Mask, reference: Mask, *, spacing_mm: SpacingMm | None = None) -> float:
    """Share of the prediction that is right, 0..1: low where the prediction spills over.

    1 if both masks are empty, 0 if one is.
    """
    common, predicted, true = _voxels(prediction, reference, spacing_mm)
    return common / predicted if predicted else float(true == 0)


def sensitivity(prediction: Mask, reference: Mask, *, spacing_mm: SpacingMm | None = None) -> float:
    """Share of the reference that was found, 0..1: low where the prediction misses parts.

    Also called recall. 1 if both masks are empty, 0 if one is.
    """
    common, predicted, true = _voxels(prediction, reference, spacing_mm)
    return common / true if true else float(predicted == 0)


def specificity(prediction: Mask, reference: Mask, *, spacing_mm: SpacingMm | None = None) -> float:
    """Share of the background that was left as background, 0..1.

    It grows with the empty space around a structure, so it is close to 1 for any small structure,
    whether found or not. 1 if the prediction is empty, and if there is no background.
    """
    common, predicted, true = _voxels(prediction, reference, spacing_mm)
    background = reference.size - true
    return (background - (predicted - common)) / background if background else 1.0


# ------------------------------------------------------------------------------------------- volume


def volume_difference(prediction: Mask, reference: Mask, *, spacing_mm: SpacingMm) -> float:
    """Volume of the prediction minus that of the reference, in mL.

    The positions of the two do not matter. An empty mask has a volume of 0.
    """
    _check(prediction, reference)
    _check_spacing(spacing_mm)
    voxels = np.count_nonzero(prediction) - np.count_nonzero(reference)
    return float(voxels * np.prod(np.asarray(spacing_mm, float)) / MM3_PER_ML)


def relative_volume_difference(
    prediction: Mask, reference: Mask, *, spacing_mm: SpacingMm | None = None
) -> float:
    """:func:`volume_difference` as a share of the reference's volume, -1 to inf.

    Positive if the prediction is too large. 0 if both masks are empty, -1 if only the prediction
    is, inf if only the reference is.
    """
    _, predicted, true = _voxels(prediction, reference, spacing_mm)
    if not true:
        return float("inf") if predicted else 0.0
    return (predicted - true) / true


# ----------------------------------------------------------------------------------------- surfaces


class SurfaceDistances(NamedTuple):
    """Distances in mm between two surfaces, one for each border voxel, in no particular order."""

    to_reference_mm: np.ndarray  #: from each border voxel of the prediction
    to_prediction_mm: np.ndarray  #: from each border voxel of the reference


def hd95(prediction: Mask, reference: Mask, *, spacing_mm: SpacingMm) -> float:
    """95th percentile of the distances from each surface to the other, in mm: the near-worst error.

    The distances of both directions are pooled; Huttenlocher et al. (1993) take the maximum of the
    two directions instead. 0 if both masks are empty, inf if one is.

    >>> prediction, reference = np.zeros((2, 4, 8, 8), bool)
    >>> prediction[2, 3, 4] = reference[2, 3, 5] = True
    >>> hd95(prediction, reference, spacing_mm=(0.7, 0.7, 2.5))
    2.5
    """
    return hd95_of(*surface_distances(prediction, reference, spacing_mm=spacing_mm))


def assd(prediction: Mask, reference: Mask, *, spacing_mm: SpacingMm) -> float:
    """Mean of the distances from each surface to the other, pooled, in mm: the typical error.

    Symmetric (Heimann et al., 2009). 0 if both masks are empty, inf if one is.
    """
    return assd_of(*surface_distances(prediction, reference, spacing_mm=spacing_mm))


def asd(prediction: Mask, reference: Mask, *, spacing_mm: SpacingMm) -> float:
    """Mean distance from the prediction's surface to the reference's, in mm.

    This distance is directed: parts that the prediction misses may have no effect. 0 if both masks
    are empty, inf if one is.
    """
    borders = _borders(prediction, reference, spacing_mm)
    return _mean_mm(_to_nearest_mm(*borders, spacing_mm))


def surface_dice(
    prediction: Mask, reference: Mask, *, spacing_mm: SpacingMm, tolerance_mm: float = 2.0
) -> float:
    """Share of both surfaces that lies within ``tolerance_mm`` of the other, 0..1.

    See Nikolov et al., 2018. Each border voxel counts as one element of the surface, as in MONAI's
    ``compute_surface_dice``. 1 if both masks are empty, 0 if one is. Raises ``ValueError`` for a
    negative tolerance.
    """
    distances_mm = surface_distances(prediction, reference, spacing_mm=spacing_mm)
    return surface_dice_of(*distances_mm, tolerance_mm=tolerance_mm)


def hd95_of(to_reference_mm: np.ndarray, to_prediction_mm: np.ndarray) -> float:
    """:func:`hd95` from the two arrays of :func:`surface_distances`, in mm.

    Use this if you need several distance metrics of one pair of masks.
    """
    pooled_mm = np.concatenate([to_reference_mm, to_prediction_mm])
    if not pooled_mm.size:
        return 0.0
    # NumPy's percentile of infinite distances would be NaN, with a warning.
    return float(np.percentile(pooled_mm, 95)) if np.isfinite(pooled_mm).all() else float("inf")


def assd_of(to_reference_mm: np.ndarray, to_prediction_mm: np.ndarray) -> float:
    """:func:`assd` from the two arrays of :func:`surface_distances`, in mm."""
    return _mean_mm(np.concatenate([to_reference_mm, to_prediction_mm]))


def surface_dice_of(
    to_reference_mm: np.ndarray, to_prediction_mm: np.ndarray, *, tolerance_mm: float = 2.0
) -> float:
    """:func:`surface_dice` from the two arrays of :func:`surface_distances`, 0..1.

    Raises ``ValueError`` for a negative tolerance.
    """
    if not tolerance_mm >= 0:
        raise ValueError(f"tolerance_mm: expected a length of at least 0 mm, found {tolerance_mm}")
    pooled_mm = np.concatenate([to_reference_mm, to_prediction_mm])
    return float(np.mean(pooled_mm <= tolerance_mm)) if pooled_mm.size else 1.0


def surface_distances(
    prediction: Mask, reference: Mask, *, spacing_mm: SpacingMm
) -> SurfaceDistances:
    """Distances from every border voxel of one mask to the nearest one of the other, in mm.

    Returns two 1-D arrays: from the prediction's border to the reference's, and the reverse. If
    both masks are empty, both arrays are empty; if one is, each array holds one infinite distance.
    """
    predicted, true = _borders(prediction, reference, spacing_mm)
    return SurfaceDistances(
        _to_nearest_mm(predicted, true, spacing_mm), _to_nearest_mm(true, predicted, spacing_mm)
    )


def border(mask: Mask) -> Mask:
    """Mark the voxels of a mask ``(I, J, K)`` with at least one of six neighbours outside the mask.

    Everything beyond the edge of the array counts as outside. An empty mask has no border.
    """
    inside = mask.copy()
    for axis in range(3):
        slices, kept = np.moveaxis(mask, axis, 0), np.moveaxis(inside, axis, 0)
        kept[1:] &= slices[:-1]
        kept[:-1] &= slices[1:]
        kept[:1] = False
        kept[-1:] = False
    return mask & ~inside


def score(
    prediction: Mask, reference: Mask, *, spacing_mm: SpacingMm, tolerance_mm: float = 2.0
) -> dict[str, float]:
    """All metrics of one pair of masks, by name, with the same values as the separate functions.

    The surfaces are measured once. All metrics except specificity are computed within the smallest
    box that contains both masks.
    """
    _check(prediction, reference)
    _check_spacing(spacing_mm)
    predicted, true = _crop(prediction, reference)
    distances_mm = surface_distances(predicted, true, spacing_mm=spacing_mm)
    return {
        "dice": dice(predicted, true),
        "jaccard": jaccard(predicted, true),
        "precision": precision(predicted, true),
        "sensitivity": sensitivity(predicted, true),
        "volume_difference": volume_difference(predicted, true, spacing_mm=spacing_mm),
        "relative_volume_difference": relative_volume_difference(predicted, true),
        "specificity": specificity(prediction, reference),
        "surface_dice": surface_dice_of(*distances_mm, tolerance_mm=tolerance_mm),
        "hd95": hd95_of(*distances_mm),
        "asd": _mean_mm(distances_mm.to_reference_mm),
        "assd": assd_of(*distances_mm),
    }


# --------------------------------------------------------------------------------------- the pieces


def _borders(prediction: Mask, reference: Mask, spacing_mm: SpacingMm) -> tuple[Mask, Mask]:
    """Both borders, within the smallest box that contains both masks.

    The rest of the grid does not affect the distances.
    """
    _check(prediction, reference)
    _check_spacing(spacing_mm)
    predicted, true = _crop(prediction, reference)
    return border(predicted), border(true)


def _crop(prediction: Mask, reference: Mask) -> tuple[Mask, Mask]:
    """Crop both masks to the smallest box that contains both; it is empty if both masks are."""
    box = []
    for axis in range(3):
        across = tuple({0, 1, 2} - {axis})
        filled = np.flatnonzero(prediction.any(axis=across) | reference.any(axis=across))
        box.append(slice(filled[0], filled[-1] + 1) if filled.size else slice(0))
    inner = tuple(box)
    return np.ascontiguousarray(prediction[inner]), np.ascontiguousarray(reference[inner])


def _to_nearest_mm(here: Mask, there: Mask, spacing_mm: SpacingMm) -> np.ndarray:
    """Distance from each voxel of ``here`` to the nearest one of ``there``, in mm, ``(voxels,)``.

    A single infinite distance if only one of the two is empty, no distances if both are.
    """
    if here.any() != there.any():
        return np.array([np.inf])
    distances_mm = np.zeros(np.count_nonzero(here))
    alone = ~there[here]  # voxels that are in both have distance 0 and need no search
    if alone.any():
        voxel_mm = np.asarray(spacing_mm, float)
        # A tree that is split at midpoints, without tight boxes: the same distances, but five times
        # faster where surfaces are far apart.
        tree = KDTree(
            np.argwhere(there) * voxel_mm, leafsize=32, balanced_tree=False, compact_nodes=False
        )
        distances_mm[alone], _ = tree.query(np.argwhere(here)[alone] * voxel_mm)
    return distances_mm


def _mean_mm(distances_mm: np.ndarray) -> float:
    """The mean distance; 0 if there are no distances, as for two empty masks."""
    return float(np.mean(distances_mm)) if distances_mm.size else 0.0


def _voxels(
    prediction: Mask, reference: Mask, spacing_mm: SpacingMm | None
) -> tuple[int, int, int]:
    """Count the voxels in both masks, in the prediction and in the reference."""
    _check(prediction, reference)
    if spacing_mm is not None:
        _check_spacing(spacing_mm)
    common = np.count_nonzero(prediction & reference)
    return int(common), int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))


def _check(prediction: Mask, reference: Mask) -> None:
    """Raise ``ValueError`` unless both masks are boolean, 3-D and of the same shape."""
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
            f"prediction: expected the reference's shape {reference.shape}, "
            f"found {prediction.shape}"
        )


def _check_spacing(spacing_mm: SpacingMm | None) -> None:
    """Raise ``ValueError`` unless it is three positive lengths."""
    lengths_mm = np.atleast_1d(np.asarray(spacing_mm, float))
    positive = np.isfinite(lengths_mm) & (lengths_mm > 0)
    if lengths_mm.shape != (3,) or not positive.all():
        raise ValueError(f"spacing_mm: expected three positive lengths in mm, found {spacing_mm}")
