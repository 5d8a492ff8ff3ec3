"""Sliding-window inference: predict a volume of any size with a network that sees one window.

NumPy in, NumPy out: the network is any callable.

A *predictor* takes a float32 NumPy batch ``(N, C, *roi)`` and returns class scores (logits)
``(N, K, *roi)`` in any form that ``numpy.asarray`` accepts. It may wrap a MindSpore cell, an ONNX
session, a PyTorch module or a simple threshold.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from .config import Config
from .labels import LEFT_LUNG, NUM_CLASSES, RIGHT_LUNG

Predictor = Callable[[np.ndarray], Any]
Shape = tuple[int, ...]  #: voxels along I, J, K
Box = tuple[slice, ...]  #: a part of a volume: one slice for each of I, J, K


@dataclass(frozen=True)
class SlidingWindow:
    """The settings of a sliding window: size, overlap, weight, batch size and placement.

    The section ``inference`` of the configuration describes these settings. Raises ``ValueError``
    for values that its rules do not allow.
    """

    roi_size: Shape  #: size of a window in voxels; any three positive numbers
    overlap: float = 0.25  #: share of a window that neighbours have in common, 0 <= overlap < 1
    mode: str = "constant"  #: see :func:`window_weight`
    batch_size: int = 1  #: number of windows that the predictor gets at once
    placement: str = "fixed"  #: see :func:`window_slices`

    def __post_init__(self) -> None:
        if len(self.roi_size) != 3 or min(self.roi_size) < 1:
            raise ValueError(
                f"roi_size: expected three positive numbers of voxels, found {self.roi_size}"
            )
        names = ("overlap", "mode", "batch_size", "placement")
        Config.from_dict({"inference": {name: getattr(self, name) for name in names}})

    @property
    def weight(self) -> np.ndarray:
        """The weight of each voxel of a window, see :func:`window_weight`."""
        return window_weight(self.roi_size, self.mode)

    def slices(self, shape: Shape) -> list[Box]:
        """The positions of the windows in a volume of ``shape``, see :func:`window_slices`."""
        return window_slices(shape, self.roi_size, self.overlap, self.placement)


def sliding_window_inference(
    image: np.ndarray,
    roi_size: Shape,
    predictor: Predictor,
    *,
    overlap: float = 0.25,
    mode: str = "constant",
    batch_size: int = 1,
    placement: str = "fixed",
    progress: bool = False,
) -> np.ndarray:
    """Predict overlapping windows and average their logits.

    ``image`` is ``(C, I, J, K)``; the result is ``(classes, I, J, K)``, float32.

    Windows of ``roi_size`` voxels are ``roi * (1 - overlap)`` voxels apart (see
    :func:`window_slices` for ``placement``) and are passed to ``predictor`` in batches of
    ``batch_size``. In the average, all voxels of a window have the same weight (``mode``
    ``"constant"``), or a lower weight the closer they are to the window's border, where the network
    had little context (``"gaussian"``). ``progress`` shows a bar.

    An axis shorter than the window is padded on both sides with 0.0, the scaled value of air, and
    the padding is cropped from the result. With ``placement="fixed"`` the result equals that of
    MONAI's function of the same name with its default settings. Memory is needed for the output,
    one slab of it, and one batch; :func:`sliding_window_slabs` does not need the output. Raises
    ``ValueError`` for invalid settings, and for scores of the wrong shape.
    """
    window = SlidingWindow(roi_size, overlap, mode, batch_size, placement)
    whole, row = np.empty(0, np.float32), 0
    for slab in sliding_window_slabs(image, window, predictor, progress=progress):
        if row == 0:  # the first slab shows the number of classes
            whole = np.empty((len(slab), *image.shape[1:]), np.float32)
        rows = slab.shape[1]
        whole[:, row : row + rows] = slab
        row += rows
    return whole


def sliding_window_slabs(
    image: np.ndarray, window: SlidingWindow, predictor: Predictor, *, progress: bool = False
) -> Iterator[np.ndarray]:
    """Yield the result of :func:`sliding_window_inference` slab by slab, in order along I.

    ``image`` is ``(C, I, J, K)``; each slab is ``(classes, n, J, K)``. Windows are visited from low
    to high I. Once the next window starts further along I, no window will touch the rows before it:
    they are complete, so they are yielded and dropped. For a scan of any length, scores are kept
    only for the thickness of one window::

        rows along I     0 . . . . . . . . . . . . . . . . . .
        first windows    [-------------]
        second windows             [-------------]
        third windows                        [-------------]
        slabs            [--------][--------][-------------]
    """
    if image.ndim != 4 or image.size == 0:
        raise ValueError(
            f"image: expected shape (C, I, J, K) without an empty axis, found {image.shape}"
        )
    padded, inner = _pad_to(image, window.roi_size)
    shape = padded.shape[1:]
    mean = _MovingMean(shape, window.weight)
    boxes = window.slices(shape)
    for box, scores in _predictions(padded, boxes, predictor, window.batch_size, progress):
        if box[0].start > mean.first_row:
            yield mean.finish(box[0].start)[:, :, *inner[1:]]
        mean.add(box, scores)
    # The axis I is padded only if one window covers it, and then this slab is the only one.
    rows = slice(None) if mean.first_row else inner[0]
    yield mean.rest()[:, rows, *inner[1:]]


class _MovingMean:
    """The weighted mean of windows over as many rows of a volume as one window has.

    The rows are ``first_row .. first_row + window`` of ``(I, J, K)``; they move along I.
    """

    def __init__(self, shape: Shape, weight: np.ndarray):
        self.first_row = 0
        self.weight = weight
        self.weight_sums = np.zeros((len(weight), *shape[1:]), np.float32)
        # (classes, window, J, K); the first window's scores show the number of classes.
        self.score_sums = np.zeros((0, *self.weight_sums.shape), np.float32)

    def add(self, box: Box, scores: np.ndarray) -> None:
        """Add the scores ``(classes, *roi)`` of a window whose first row is ``first_row``."""
        if not len(self.score_sums):
            self.score_sums = np.zeros((len(scores), *self.weight_sums.shape), np.float32)
        # One class at a time, so that memory for weighted scores is needed for one class only.
        for sums, of_class in zip(self.score_sums, scores, strict=True):
            sums[:, *box[1:]] += self.weight * of_class
        self.weight_sums[:, *box[1:]] += self.weight

    def finish(self, next_row: int) -> np.ndarray:
        """Means ``(classes, n, J, K)`` of the rows before ``next_row``, the new first row."""
        rows = next_row - self.first_row
        means = self.score_sums[:, :rows] / self.weight_sums[:rows]
        for sums in (*self.score_sums, self.weight_sums):
            kept = len(sums) - rows
            sums[:kept] = sums[rows:].copy()
            sums[kept:] = 0
        self.first_row = next_row
        return means

    def rest(self) -> np.ndarray:
        """Means ``(classes, window, J, K)`` of all rows that are left.

        They overwrite the sums, so nothing can be added afterwards.
        """
        return np.divide(self.score_sums, self.weight_sums, out=self.score_sums)


def _predictions(
    image: np.ndarray,
    boxes: Sequence[Box],
    predictor: Predictor,
    batch_size: int,
    progress: bool,
) -> Iterator[tuple[Box, np.ndarray]]:
    """Yield each window's box and scores ``(classes, *roi)``, predicting one batch at a time."""
    with tqdm(total=len(boxes), desc="windows", disable=not progress) as bar:
        for start in range(0, len(boxes), batch_size):
            batch = boxes[start : start + batch_size]
            crops = np.stack([image[:, *box] for box in batch])
            scores = np.asarray(predictor(crops))
            _check_scores(scores, crops)
            yield from zip(batch, scores, strict=True)
            bar.update(len(batch))


def _check_scores(scores: np.ndarray, crops: np.ndarray) -> None:
    """Raise ``ValueError`` unless scores ``(N, K, *roi)`` fit the windows ``(N, C, *roi)``."""
    number, _, *roi = crops.shape
    fits = scores.ndim == 5 and len(scores) == number and scores.shape[2:] == tuple(roi)
    if not fits:
        expected = f"({number}, K, {', '.join(map(str, roi))})"
        raise ValueError(f"predictor: expected scores of shape {expected}, found {scores.shape}")


def _pad_to(image: np.ndarray, roi_size: Shape) -> tuple[np.ndarray, Box]:
    """Pad ``(C, I, J, K)`` with 0 to at least the size of one window, as float32.

    Also returns the box, three slices, that removes the padding again.
    """
    shape = image.shape[1:]
    lacking = [max(roi - length, 0) for roi, length in zip(roi_size, shape, strict=True)]
    before = [number // 2 for number in lacking]
    after = [number - number // 2 for number in lacking]
    inner = tuple(slice(first, first + length) for first, length in zip(before, shape, strict=True))
    image = image.astype(np.float32, copy=False)
    if any(lacking):
        image = np.pad(image, [(0, 0), *zip(before, after, strict=True)])
    return image, inner


def window_slices(
    shape: Shape, roi_size: Shape, overlap: float, placement: str = "fixed"
) -> list[Box]:
    """The positions of the windows in a volume that is at least as large as one window.

    Each position is three slices; they are in order along I, J, K.

    With ``placement="fixed"``, windows are ``roi * (1 - overlap)`` voxels apart. The last one ends
    at the border, so it overlaps its neighbour more than the others do (the original case, MONAI).
    With ``"even"``, there are as many windows, but at equal distances, to within a voxel (nnU-Net).
    """
    starts = [
        _starts(length, roi, overlap, placement)
        for length, roi in zip(shape, roi_size, strict=True)
    ]
    boxes = []
    for corner in itertools.product(*starts):
        edges = zip(corner, roi_size, strict=True)
        boxes.append(tuple(slice(start, start + roi) for start, roi in edges))
    return boxes


def _starts(length: int, roi: int, overlap: float, placement: str) -> list[int]:
    """First voxels of the windows along one axis."""
    interval = max(int(roi * (1 - overlap)), 1)
    # Rounded up: enough steps to reach the far border.
    steps = -(-(length - roi) // interval)
    if placement == "even" and steps:
        return [round(step * (length - roi) / steps) for step in range(steps + 1)]
    return [min(step * interval, length - roi) for step in range(steps + 1)]


def window_weight(roi_size: Shape, mode: str) -> np.ndarray:
    """The weight of each voxel of a window in the average, float32 of shape ``roi_size``.

    ``"constant"`` is 1 everywhere. ``"gaussian"`` has a standard deviation of one eighth of the
    window, as in nnU-Net (Isensee et al., 2021) and MONAI. It is almost zero in the window's
    corners. No weight is below 0.001, so that a voxel covered by a single window is not divided by
    almost zero.
    """
    if mode == "constant":
        return np.ones(roi_size, np.float32)
    curves = []
    for voxels in roi_size:
        offset = np.arange(voxels) - (voxels - 1) / 2
        curves.append(np.exp(-0.5 * (offset / (0.125 * voxels)) ** 2))
    weight = curves[0][:, None, None] * curves[1][:, None] * curves[2]
    return np.maximum(weight, 1e-3).astype(np.float32)


# --------------------------------------------------------------------------------- mirrored windows


def with_flips(predictor: Predictor, axes: Sequence[int], *, position: bool = False) -> Predictor:
    """A predictor with test-time flips: the average over mirrored copies of the window.

    ``axes`` are spatial axes of the window in RAS order; axis 0 runs from left to right. Every
    combination is used, so n axes cost 2**n predictions. Mirroring axis 0 turns a right lung into a
    left lung, so the scores of the two are exchanged back. With ``position``, the sign of channel
    1, the distance from the body's middle plane, is reversed, too. The predictor raises
    ``ValueError`` for axis 0 if its scores are not of the four classes background, left lung, right
    lung and trachea.
    """
    flips: list[tuple[int, ...]] = []
    for number in range(len(axes) + 1):
        flips += itertools.combinations(axes, number)

    def averaged(batch: np.ndarray) -> np.ndarray:
        total = _flipped(predictor, batch, flips[0], position)
        for flip in flips[1:]:
            total = total + _flipped(predictor, batch, flip, position)
        return total / np.float32(len(flips))

    return averaged


def _flipped(
    predictor: Predictor, batch: np.ndarray, axes: Sequence[int], position: bool
) -> np.ndarray:
    """Scores of ``(N, C, *roi)``, predicted from its mirror image along ``axes``."""
    array_axes = tuple(axis + 2 for axis in axes)
    mirrored = np.ascontiguousarray(np.flip(batch, array_axes))
    if position and 0 in axes:
        mirrored[:, 1] *= -1
    scores = np.flip(np.asarray(predictor(mirrored)), array_axes)
    if 0 not in axes:
        return scores
    classes = scores.shape[1]
    if classes != NUM_CLASSES:
        raise ValueError(
            f"inference.flip_axes: expected no 0 for a network of {classes} classes, "
            f"found {axes}; mirroring left to right needs the classes background, left lung, "
            "right lung and trachea"
        )
    order = np.arange(classes)
    order[[LEFT_LUNG, RIGHT_LUNG]] = RIGHT_LUNG, LEFT_LUNG
    return scores[:, order]
