"""Checks of the viewer's arguments: each raises ``ValueError`` that names the argument."""

from collections.abc import Mapping

import numpy as np

from ..volume import Grid, Volume, check_same_grid
from .counts import label_box
from .grid import slabs

MAX_LABEL = 250  # the browser stores labels in one byte, and reserves a few values
MAX_LENGTH = 65535  # voxels along an axis
MAX_PREDICTIONS = 2
REAL_KINDS = "biuf"  # booleans, signed and unsigned integers, floats
SMALLEST_DETERMINANT = 1e-9

Labels = np.ndarray | Volume


def check_structures(structures: Mapping[int, str]) -> None:
    """Refuse label values that the browser cannot store, and an empty mapping."""
    refused = [value for value in structures if not _is_label_value(value)]
    if refused or not structures:
        raise ValueError(
            f"structures: expected names for label values from 1 to {MAX_LABEL}, "
            f"found {refused or 'none'}"
        )


def _is_label_value(value: object) -> bool:
    return not isinstance(value, bool) and value in range(1, MAX_LABEL + 1)


def affine_of(
    image: np.ndarray | Volume,
    spacing_mm: tuple[float, float, float] | None,
    affine: np.ndarray | None,
) -> np.ndarray:
    """Return the affine, 4 x 4: a :class:`Volume`'s own, or from the one argument given.

    For an array, exactly one of ``spacing_mm`` and ``affine`` is needed; for a :class:`Volume`,
    neither is allowed.
    """
    arguments = {"spacing_mm": spacing_mm, "affine": affine}
    given = [name for name, value in arguments.items() if value is not None]
    if isinstance(image, Volume):
        if given:
            raise ValueError(f"{given[0]}: a Volume has its own affine; leave it out")
        return _sound_affine(image.affine)
    if len(given) != 1:
        raise ValueError(
            f"expected spacing_mm or affine for an image of shape {np.shape(image)}, "
            f"found {' and '.join(given) or 'neither'}"
        )
    if spacing_mm is not None:
        return _sound_affine(_affine_of_spacing(spacing_mm))
    return _sound_affine(affine)


def _affine_of_spacing(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    lengths = np.asarray(spacing_mm, float)
    if lengths.shape != (3,) or not np.isfinite(lengths).all() or (lengths <= 0).any():
        raise ValueError(f"spacing_mm: expected three lengths above 0 mm, found {spacing_mm}")
    return np.diag([*lengths, 1.0])


def _sound_affine(affine: np.ndarray | None) -> np.ndarray:
    matrix = np.asarray(affine, float)
    sound = matrix.shape == (4, 4) and np.isfinite(matrix).all()
    if not sound or abs(np.linalg.det(matrix[:3, :3])) < SMALLEST_DETERMINANT:
        raise ValueError(
            f"affine: expected 4 x 4 finite numbers with positive spacing, found {matrix.tolist()}"
        )
    return matrix


def array_of(image: np.ndarray | Volume) -> np.ndarray:
    """Return the voxels; booleans, which NumPy cannot subtract, become 0 and 1."""
    array = image.array if isinstance(image, Volume) else np.asarray(image)
    return array.view(np.uint8) if array.dtype == bool else array


def check_image(array: np.ndarray) -> list[float]:
    """Refuse anything but a volume of finite numbers; return its smallest and largest value."""
    if array.ndim != 3 or 0 in array.shape or max(array.shape) > MAX_LENGTH:
        raise ValueError(f"image: expected a 3-D volume (I, J, K), found shape {array.shape}")
    if array.dtype.kind not in REAL_KINDS:
        raise ValueError(
            f"image: expected real numbers, found {array.dtype} of shape {array.shape}"
        )
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():  # the extremes are NaN if any voxel is
        count = sum(int(np.count_nonzero(~np.isfinite(slab))) for slab in slabs(array))
        raise ValueError(
            f"image of shape {array.shape}: expected finite values, "
            f"found {count} NaN or infinite voxels"
        )
    return [low, high]


def predictions_by_name(
    prediction: Labels | Mapping[str, Labels] | None,
) -> dict[str, Labels]:
    """Return predictions by name, at most two; those that are ``None`` are left out."""
    named = prediction if isinstance(prediction, Mapping) else {"prediction": prediction}
    given = {name: labels for name, labels in named.items() if labels is not None}
    if len(given) > MAX_PREDICTIONS:
        raise ValueError(
            f"prediction: expected one or two to compare, found {len(given)}: {list(given)}"
        )
    return given


def check_labels(
    name: str, labels: Labels, grid: Grid, structures: Mapping[int, str]
) -> np.ndarray:
    """Return the label array; refuse another grid than the image's, and values without a name."""
    array = labels.array if isinstance(labels, Volume) else np.asarray(labels)
    shape, affine = grid
    own_affine = labels.affine if isinstance(labels, Volume) else affine
    check_same_grid(name, (array.shape, own_affine), "the image", (shape, affine))
    _check_whole_numbers(name, array)
    if array.min() >= 0 and array.max() <= 255:
        array = array if array.dtype == np.uint8 else array.astype(np.uint8)
        values = _byte_values(array)
    else:
        values = set(np.unique(array).tolist())
    unnamed = sorted(values - {0} - set(structures))
    if unnamed:
        raise ValueError(
            f"{name} of shape {array.shape}: expected the values 0 and {sorted(structures)}, "
            f"found {unnamed[:10]}; name them with structures={{value: name}}"
        )
    return array


def _check_whole_numbers(name: str, array: np.ndarray) -> None:
    if array.dtype.kind not in REAL_KINDS:
        raise ValueError(
            f"{name}: expected whole numbers, found {array.dtype} of shape {array.shape}"
        )
    if array.dtype.kind != "f":
        return
    if not all(np.array_equal(slab, np.rint(slab)) for slab in slabs(array)):
        raise ValueError(
            f"{name}: expected whole numbers, found fractions or NaN in {array.dtype} "
            f"of shape {array.shape}"
        )


def _byte_values(array: np.ndarray) -> set[int]:
    """The values above 0 in an array of bytes, and possibly 0; counting is the fastest way."""
    counts = np.zeros(256, np.int64)
    for slab in slabs(array[label_box([array])]):
        counts += np.bincount(slab.ravel("K"), minlength=256)
    return set(np.flatnonzero(counts).tolist())
