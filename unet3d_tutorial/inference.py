"""From a network that sees one window to a mask of the whole scan. NumPy in, NumPy out: the network is any callable.

A *predictor* takes a float32 batch ``(N, C, *roi)`` and gives class scores (logits) ``(N, K, *roi)`` as anything that
``numpy.asarray`` reads. It may be a MindSpore cell, an ONNX session, a PyTorch module or a threshold.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import cc3d
import numpy as np
from scipy import ndimage, sparse

from .config import Config
from .transforms import CenterOnBody, Compose, Pad, grid_steps, input_steps
from .volume import Volume

Predictor = Callable[[np.ndarray], Any]


def segment(image: Volume, predictor: Predictor, config: Config) -> Volume:
    """Segment a whole scan: prepare, predict in windows, and return to the scan's own grid.

    ``image`` is ``(I, J, K)`` in HU, of any orientation and spacing. The result is uint8 with 0 background, 1 left
    lung, 2 right lung, 3 trachea, and has the shape and affine of ``image``. Raises ``ValueError`` if ``image`` is not
    3-D or if the predictor's number of classes is not ``config.model.num_classes``.
    """
    if image.array.ndim != 3:
        raise ValueError(f"image: expected a 3-D volume (I, J, K), found shape {image.array.shape}")
    prepared = prepare(image, config)
    options = config.inference
    logits = sliding_window_inference(
        prepared.array, options.roi_size, predictor, overlap=options.overlap, mode=options.mode
    )
    if len(logits) != config.model.num_classes:
        raise ValueError(f"predictor: expected {config.model.num_classes} classes, found {len(logits)}")
    labels = labels_on_grid(Volume(logits, prepared.affine), image.array.shape, image.affine,
                            lambda k: options.hu_weight * hu_scores(image.array[..., k]))
    if options.largest_component:
        labels = keep_largest_component(labels)
    return Volume(labels, image.affine)


def prepare(image: Volume, config: Config) -> Volume:
    """Make what the network sees of a scan ``(I, J, K)``: ``(C, I, J, K)`` float32 on the working grid.

    The affine is that of the working grid in the scan's own coordinates.
    """
    on_grid, _ = Compose([*grid_steps(config.data), Pad(config.inference.roi_size)])(image)
    network_input, _ = Compose([CenterOnBody(), *input_steps(config.data)])(on_grid)
    return Volume(network_input.array, on_grid.affine)


# -------------------------------------------------------------------------------------------------- the sliding window


def sliding_window_inference(
    image: np.ndarray,
    roi_size: tuple[int, int, int],
    predictor: Predictor,
    *,
    overlap: float = 0.25,
    mode: str = "constant",
    batch_size: int = 1,
) -> np.ndarray:
    """Predict windows that overlap and average them: ``(C, I, J, K)`` in, ``(classes, I, J, K)`` float32 out.

    Windows of ``roi_size`` voxels start every ``roi * (1 - overlap)`` voxels, the last one flush with the border, and
    go to ``predictor`` in batches of ``batch_size``. In their average each voxel of a window counts the same (``mode``
    ``"constant"``), or less the nearer it is to the window's border, where the network saw little context
    (``"gaussian"``).

    An axis shorter than the window is padded on both sides with 0.0, the scaled value of air, and cropped again.
    Memory: the output and one batch. Raises ``ValueError`` for a setting or a predictor's shape that cannot work.
    """
    roi = _check_window(image, roi_size, overlap, mode, batch_size)
    before = [max(r - n, 0) // 2 for n, r in zip(image.shape[1:], roi, strict=True)]
    after = [max(r - n, 0) - b for n, r, b in zip(image.shape[1:], roi, before, strict=True)]
    padded = np.pad(image.astype(np.float32, copy=False), [(0, 0), *zip(before, after, strict=True)])

    weight = window_weight(roi, mode)
    total, weights = None, np.zeros(padded.shape[1:], np.float32)
    for windows in _batches(window_slices(padded.shape[1:], roi, overlap), batch_size):
        scores = np.asarray(predictor(np.stack([padded[:, *window] for window in windows])))
        if scores.ndim != 5 or scores.shape[0] != len(windows) or scores.shape[2:] != roi:
            raise ValueError(f"predictor: expected scores of shape ({len(windows)}, K, {roi}), found {scores.shape}")
        if total is None:
            total = np.zeros((scores.shape[1], *padded.shape[1:]), np.float32)
        for window, score in zip(windows, scores, strict=True):
            total[:, *window] += weight * score
            weights[window] += weight
    total /= weights
    inner = tuple(slice(b, b + n) for b, n in zip(before, image.shape[1:], strict=True))
    return total[:, *inner]


def window_slices(shape: tuple[int, ...], roi_size: tuple[int, ...], overlap: float) -> list[tuple[slice, ...]]:
    """Where the windows lie in a volume that is nowhere smaller than one: three slices each, at fixed intervals."""
    starts = []
    for length, roi in zip(shape, roi_size, strict=True):
        interval = max(int(roi * (1 - overlap)), 1)
        steps = -(-(length - roi) // interval)  # the division rounded up: enough steps to reach the far border
        starts.append([min(step * interval, length - roi) for step in range(steps + 1)])
    corners = itertools.product(*starts)
    return [tuple(slice(s, s + roi) for s, roi in zip(corner, roi_size, strict=True)) for corner in corners]


def window_weight(roi_size: tuple[int, ...], mode: str) -> np.ndarray:
    """How much each voxel of a window counts, float32 of shape ``roi_size``.

    ``"gaussian"`` has a standard deviation of an eighth of the window, as in nnU-Net (Isensee et al., 2021). It all but
    vanishes in the window's corners, and a voxel seen by one window only would be divided by almost nothing: no weight
    is less than a thousandth.
    """
    if mode == "constant":
        return np.ones(roi_size, np.float32)
    curves = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (0.125 * n)) ** 2) for n in roi_size]
    weight = curves[0][:, None, None] * curves[1][:, None] * curves[2]
    return np.maximum(weight, 1e-3).astype(np.float32)


def _batches(windows: list[tuple[slice, ...]], size: int) -> Iterator[list[tuple[slice, ...]]]:
    for start in range(0, len(windows), size):
        yield windows[start : start + size]


def _check_window(
    image: np.ndarray, roi_size: tuple[int, ...], overlap: float, mode: str, batch_size: int
) -> tuple[int, ...]:
    """Return the ROI size as a tuple, or raise ``ValueError`` with the name of what cannot work."""
    rules = [
        (image.ndim == 4 and image.size > 0, "image", "shape (C, I, J, K) without an empty axis", image.shape),
        (len(roi_size) == 3 and min(roi_size) >= 1, "roi_size", "three positive numbers of voxels", roi_size),
        (0 <= overlap < 1, "overlap", "at least 0 and below 1", overlap),
        (mode in ("constant", "gaussian"), "mode", "constant or gaussian", mode),
        (batch_size >= 1, "batch_size", "at least 1", batch_size),
    ]
    for holds, name, expected, found in rules:
        if not holds:
            raise ValueError(f"{name}: expected {expected}, found {found}")
    return tuple(int(n) for n in roi_size)


# ----------------------------------------------------------------------------------------- back to the scan's own grid


def hu_scores(hu: np.ndarray) -> np.ndarray:
    """What the HU ``(I, J)`` of a slice say about the classes, as logits ``(4, I, J)``.

    Below -400 HU a voxel is more air than tissue, which speaks against background; above, against lung, and half as much
    against the trachea, whose label includes its wall. The scores are linear in HU and limited (-600 to 200 HU), so that
    they decide only where the network hesitates: at surfaces, which the scan shows finer than the working grid.
    """
    air = (-400 - np.fmin(np.fmax(hu, -600), 200)).astype(np.float32) / 300
    tissue = np.minimum(air, 0)
    return np.stack([-np.maximum(air, 0), tissue, tissue, 0.5 * tissue])


def labels_on_grid(
    logits: Volume, shape: tuple[int, int, int], affine: np.ndarray, prior: Callable[[int], np.ndarray] | None = None
) -> np.ndarray:
    """Find the class with the highest score at every voxel of another grid: uint8 of ``shape``.

    ``logits`` is ``(K, ...)`` on its own grid. Scores are interpolated linearly and only then compared: the nearest
    label would keep the steps of the coarse grid, and averages of labels mean nothing (half way from 0 to 2 is not 1).
    Only scores from inside the target grid count: its outermost voxels take the nearest such score, rather than mix
    with what was predicted for the padding around a small scan.

    ``prior`` gives scores ``(K, I, J)`` that are added to those of slice ``k``.

    Reorientation swaps and flips axes and resampling stretches them, so the interpolation is one small matrix an axis,
    with at most two entries a row. One slice of the last axis at a time keeps memory small. Raises ``ValueError`` if
    one grid is rotated against the other.
    """
    axes, scale, offset = _match_axes(logits.affine, affine, shape)
    scores = logits.array.transpose(0, *(1 + axes))
    matrices = [linear_weights(_positions(shape[a], scale[a], offset[a]), scores.shape[1 + a]) for a in range(3)]
    scores = np.ascontiguousarray(np.moveaxis(scores, 3, 0))  # two of its slices give one of the result
    labels = np.empty(shape, np.uint8)
    for k in range(shape[2]):
        across = _along(matrices[2][k : k + 1], scores, 0)[0]
        across = _along(matrices[0], _along(matrices[1], across, 2), 1)
        if prior is not None:
            across += prior(k)
        labels[:, :, k] = across.argmax(axis=0)
    return labels


def linear_weights(positions: np.ndarray, length: int) -> sparse.csr_array:
    """Linear interpolation as a matrix: row ``n`` takes ``length`` samples to the value at index ``positions[n]``.

    Positions outside ``0 .. length - 1`` take the nearest sample.
    """
    positions = np.clip(positions, 0, length - 1)
    lower = np.minimum(positions.astype(int), max(length - 2, 0))
    upper = np.minimum(lower + 1, length - 1)
    share = (positions - lower).astype(np.float32)
    rows = np.arange(len(positions))
    entries = (np.concatenate([1 - share, share]), (np.tile(rows, 2), np.concatenate([lower, upper])))
    return sparse.csr_array(entries, shape=(len(positions), length))


def _positions(length: int, scale: float, offset: float) -> np.ndarray:
    """Source indices of ``length`` target voxels, held to source voxels whose centres lie inside the target grid."""
    first, last = sorted(scale * edge + offset for edge in (-0.5, length - 0.5))
    low, high = np.ceil(first - 1e-3), np.floor(last + 1e-3)
    if low > high:  # a target thinner than one source voxel
        low = high = np.rint((first + last) / 2)
    return np.clip(scale * np.arange(length) + offset, low, high)


def _match_axes(
    source: np.ndarray, target: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each target axis: the source axis along it, and scale and offset from target index to source index."""
    matrix = np.linalg.inv(source) @ target
    axes = np.abs(matrix[:3, :3]).argmax(axis=0)
    scale = matrix[axes, np.arange(3)]
    rest = matrix[:3, :3].copy()
    rest[axes, np.arange(3)] = 0
    drift = np.abs(rest * np.array(shape)).max()  # in source voxels, from one end of the target grid to the other
    if sorted(axes) != [0, 1, 2] or drift > 0.01:
        raise ValueError(f"affine: expected grids with parallel axes, found a drift of {drift:.2g} voxels")
    return axes, scale, matrix[axes, 3]


def _along(matrix: sparse.csr_array, array: np.ndarray, axis: int) -> np.ndarray:
    """Apply ``matrix`` to every line of ``array`` along ``axis``."""
    first = np.moveaxis(array, axis, 0)
    product = matrix @ first.reshape(len(first), -1)
    return np.moveaxis(product.reshape(-1, *first.shape[1:]), 0, axis)


def keep_largest_component(labels: np.ndarray) -> np.ndarray:
    """Keep the largest connected piece of each structure in ``(I, J, K)`` labels; the others become background.

    A lung or a trachea is one piece, so smaller ones are mistakes: air outside the body, gas in the bowel. Voxels that
    share a face, an edge or a corner are connected (26 neighbours). Returns a new array.
    """
    kept = np.zeros_like(labels)
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            kept[box][cc3d.largest_k(labels[box] == value, k=1, connectivity=26) > 0] = value
    return kept
