"""Count the voxels of each structure in every slice, for the viewer's legend and strips."""

from collections.abc import Sequence

import numpy as np


def count_by_slice(
    truth: np.ndarray | None,
    prediction: np.ndarray | None,
    values: Sequence[int],
    shape: tuple[int, ...],
) -> list[np.ndarray]:
    """Count voxels in truth, in prediction and in both, slice by slice.

    The masks are ``(I, J, K)``, of ``shape``; ``None`` counts as empty. Returns one array for each
    axis, ``(slices, values, 3)``.
    """
    counts = [np.zeros((length, len(values), 3), np.int64) for length in shape]
    box = label_box([labels for labels in (truth, prediction) if labels is not None])
    for number, value in enumerate(values):
        true = None if truth is None else truth[box] == value
        predicted = None if prediction is None else prediction[box] == value
        both = None if true is None or predicted is None else true & predicted
        for column, mask in enumerate((true, predicted, both)):
            if mask is None:
                continue
            for axis, sums in enumerate(_slice_sums(mask)):
                counts[axis][box[axis], number, column] = sums
    return counts


def label_box(masks: Sequence[np.ndarray]) -> tuple[slice, slice, slice]:
    """Return the smallest box around all labels, because most of a scan is background."""
    return _label_extent(masks, 0), _label_extent(masks, 1), _label_extent(masks, 2)


def _label_extent(masks: Sequence[np.ndarray], axis: int) -> slice:
    """The indices along one axis from the first label to the last."""
    if not masks:
        return slice(0, 0)
    used = np.logical_or.reduce([_has_label(mask, axis) for mask in masks])
    places = np.flatnonzero(used)
    return slice(places[0], places[-1] + 1) if len(places) else slice(0, 0)


def _has_label(mask: np.ndarray, axis: int) -> np.ndarray:
    """Which slices along an axis contain a label, as booleans.

    Memory is read forwards, because NumPy is 20 times slower on a mirrored view.
    """
    forwards = mask[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in mask.strides)]
    others = tuple(other for other in range(3) if other != axis)
    used = forwards.max(axis=others) > 0
    return used[::-1] if mask.strides[axis] < 0 else used


def _slice_sums(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The number of a mask's voxels in each slice, for each axis."""
    ones = mask.view(np.uint8)
    # 16 bits are enough for a sum along the longest axis that check_image allows.
    along_k = ones.sum(axis=2, dtype=np.uint16)
    along_i = ones.sum(axis=0, dtype=np.uint16)
    return along_k.sum(axis=1), along_k.sum(axis=0), along_i.sum(axis=0)
