"""From a network that sees one window to a mask of the whole scan.

NumPy in, NumPy out: the network is any callable.

A *predictor* takes a float32 batch ``(N, C, *roi)`` and gives class scores (logits) ``(N, K,
*roi)`` as anything that ``numpy.asarray`` reads. It may be a MindSpore cell, an ONNX session, a
PyTorch module or a threshold.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import cc3d
import numpy as np
from scipy import ndimage
from tqdm import tqdm

from .config import Config
from .labels import LEFT_LUNG, RIGHT_LUNG, STRUCTURES
from .postprocessing import whole_air
from .transforms import CenterOnBody, Compose, Pad, grid_steps, input_steps
from .transforms.resampling import apply_along, linear_weights
from .volume import Volume

Predictor = Callable[[np.ndarray], Any]
#: background, left lung, right lung, trachea: whose HU, sides and air are known
NUM_CLASSES = len(STRUCTURES) + 1
HU_GAIN = 2 / 3  #: by how much :func:`hu_scores` raises a structure over the background, at most
#: slices of the scan that return to its grid at once; more than one, since a file may store them
#: interleaved
CHUNK = 4


def segment(
    image: Volume, predictor: Predictor, config: Config, *, progress: bool = False
) -> Volume:
    """Segment a whole scan: prepare, predict in windows, and return to the scan's own grid.

    ``image`` is ``(I, J, K)`` in HU, of any orientation and spacing. The result is uint8 with 0
    background, 1 left lung, 2 right lung, 3 trachea, and has the shape and affine of ``image``.
    ``progress`` shows a bar over the windows. Memory: the network's input, and scores for a slab of
    it one window thick. Raises ``ValueError`` if ``image`` is not 3-D or if the predictor's number
    of classes is not ``config.model.num_classes``.
    """
    if image.array.ndim != 3:
        raise ValueError(f"image: expected a 3-D volume (I, J, K), found shape {image.array.shape}")
    prepared, options = prepare(image, config), config.inference
    if options.flip_axes:
        predictor = with_flips(predictor, options.flip_axes, position=config.data.position)
    slabs = sliding_window_slabs(
        prepared.array,
        options.roi_size,
        predictor,
        overlap=options.overlap,
        mode=options.mode,
        batch_size=options.batch_size,
        placement=options.placement,
        progress=progress,
    )
    prior, gain = _hu_prior(image.array, options.hu_weight, config.model.num_classes)
    labels = labels_from_slabs(
        _of_classes(slabs, config.model.num_classes),
        Volume(prepared.array[0], prepared.affine),
        image.array.shape,
        image.affine,
        prior,
        gain,
    )
    return Volume(clean(labels, image, config), image.affine)


def clean(labels: np.ndarray, image: Volume, config: Config) -> np.ndarray:
    """Mend a mask on the scan's own grid by what lungs and trachea are: the repairs that
    ``config.inference`` asks for.
    """
    options = config.inference
    if options.largest_component:
        labels = keep_largest_component(labels)
    if options.whole_air and config.model.num_classes == NUM_CLASSES:
        labels = whole_air(labels, image)
    return fill_holes(labels) if options.fill_holes else labels


def prepare(image: Volume, config: Config) -> Volume:
    """Make what the network sees of a scan ``(I, J, K)``:

    ``(C, I, J, K)`` float32 on the working grid.

    The affine is that of the working grid in the scan's own coordinates.
    """
    on_grid, _ = Compose([*grid_steps(config.data), Pad(config.inference.roi_size)])(image)
    network_input, _ = Compose([CenterOnBody(), *input_steps(config.data)])(on_grid)
    return Volume(network_input.array, on_grid.affine)


def _of_classes(slabs: Iterable[np.ndarray], number: int) -> Iterator[np.ndarray]:
    def checked(scores: np.ndarray) -> np.ndarray:
        if len(scores) != number:
            raise ValueError(f"predictor: expected {number} classes, found {len(scores)}")
        return scores

    return map(checked, slabs)  # which, unlike a loop, does not hold a slab while the next is made


def _hu_prior(
    hu: np.ndarray, weight: float, classes: int
) -> tuple[Callable[[tuple], np.ndarray] | None, float]:
    """What :func:`labels_from_slabs` takes as ``prior`` and ``gain``, from the scan's HU."""
    if not weight:
        return None, 0.0
    if classes != NUM_CLASSES:
        raise ValueError(
            f"inference.hu_weight: expected 0 for a network of {classes} classes, found {weight:g}; what HU "
            "say is known of background, left lung, right lung and trachea only"
        )
    return lambda index: weight * hu_scores(np.ascontiguousarray(hu[index])), weight * HU_GAIN


# ------------------------------------------------------------------------------- the sliding window


def sliding_window_inference(
    image: np.ndarray,
    roi_size: tuple[int, int, int],
    predictor: Predictor,
    *,
    overlap: float = 0.25,
    mode: str = "constant",
    batch_size: int = 1,
    placement: str = "fixed",
    progress: bool = False,
) -> np.ndarray:
    """Predict windows that overlap and average them:

    ``(C, I, J, K)`` in, ``(classes, I, J, K)`` float32 out.

    Windows of ``roi_size`` voxels lie ``roi * (1 - overlap)`` voxels apart (see
    :func:`window_slices` for ``placement``) and go to ``predictor`` in batches of ``batch_size``.
    In their average each voxel of a window counts the same (``mode`` ``"constant"``), or less the
    nearer it is to the window's border, where the network saw little context (``"gaussian"``).
    ``progress`` shows a bar.

    An axis shorter than the window is padded on both sides with 0.0, the scaled value of air, and
    cropped again. With ``placement="fixed"`` the result is that of MONAI's function of this name,
    with its default settings. Memory: the output, one slab of it, and one batch;
    :func:`sliding_window_slabs` does without the output. Raises ``ValueError`` for a setting or a
    predictor's shape that cannot work.
    """
    slabs = sliding_window_slabs(
        image,
        roi_size,
        predictor,
        overlap=overlap,
        mode=mode,
        batch_size=batch_size,
        placement=placement,
        progress=progress,
    )
    whole, start = None, 0
    for scores in slabs:
        if whole is None:
            whole = np.empty((len(scores), *image.shape[1:]), np.float32)
        whole[:, start : start + scores.shape[1]] = scores
        start += scores.shape[1]
    return whole


def sliding_window_slabs(
    image: np.ndarray,
    roi_size: tuple[int, int, int],
    predictor: Predictor,
    *,
    overlap: float = 0.25,
    mode: str = "constant",
    batch_size: int = 1,
    placement: str = "fixed",
    progress: bool = False,
) -> Iterator[np.ndarray]:
    """Give the result of :func:`sliding_window_inference` piece by piece:

    ``(classes, n, J, K)``, in order along I.

    Windows are visited from low to high I. Once the next one starts further on, no window will
    touch the rows before it: they are finished, handed out and forgotten. A scan of any length
    needs scores for one window's thickness only.
    """
    roi = _check_window(image, roi_size, overlap, mode, batch_size, placement)
    padded, inner = _pad_to(image, roi)
    windows = window_slices(padded.shape[1:], roi, overlap, placement)
    mean = _MovingMean(padded.shape[1:], window_weight(roi, mode))
    for window, scores in _predictions(padded, windows, predictor, batch_size, progress):
        if window[0].start > mean.start:
            yield mean.finish(window[0].start)[:, :, *inner[1:]]
        mean.add(window, scores)
    rows = slice(None) if mean.start else inner[0]  # an axis is padded only if one window covers it
    yield mean.rest()[:, rows, *inner[1:]]


class _MovingMean:
    """Weighted mean of windows over the rows ``start .. start + window`` of a volume ``(I, J, K)``;
    it moves along I.
    """

    def __init__(self, shape: tuple[int, ...], weight: np.ndarray):
        self.start = 0
        self.weight = weight
        self.weights = np.zeros((len(weight), *shape[1:]), np.float32)
        # (classes, window, J, K), once the number of classes is known
        self.total: np.ndarray | None = None

    def add(self, window: tuple[slice, ...], scores: np.ndarray) -> None:
        """Add the scores ``(classes, *roi)`` of a window whose first row is ``start``."""
        if self.total is None:
            self.total = np.zeros((len(scores), *self.weights.shape), np.float32)
        for total, score in zip(
            self.total, scores, strict=True
        ):  # one class at a time: a temporary of one class
            total[:, *window[1:]] += self.weight * score
        self.weights[:, *window[1:]] += self.weight

    def finish(self, stop: int) -> np.ndarray:
        """Means ``(classes, stop - start, J, K)`` of the rows before ``stop``, where the slab then
        starts.
        """
        rows = stop - self.start
        means = self.total[:, :rows] / self.weights[:rows]
        for sums in (*self.total, self.weights):
            sums[: len(sums) - rows] = sums[rows:].copy()
            sums[len(sums) - rows :] = 0
        self.start = stop
        return means

    def rest(self) -> np.ndarray:
        """Means ``(classes, window, J, K)`` of all rows that are left, in place of the sums:
        nothing can be added after.
        """
        return np.divide(self.total, self.weights, out=self.total)


def _predictions(
    image: np.ndarray,
    windows: Sequence[tuple[slice, ...]],
    predictor: Predictor,
    batch_size: int,
    progress: bool,
) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Give every window with its scores ``(classes, *roi)``; they are predicted a batch at a time."""
    with tqdm(total=len(windows), desc="windows", disable=not progress) as bar:
        for start in range(0, len(windows), batch_size):
            batch = windows[start : start + batch_size]
            crops = np.stack([image[:, *window] for window in batch])
            scores = np.asarray(predictor(crops))
            if scores.ndim != 5 or len(scores) != len(batch) or scores.shape[2:] != crops.shape[2:]:
                expected = f"({len(batch)}, K, {', '.join(map(str, crops.shape[2:]))})"
                raise ValueError(
                    f"predictor: expected scores of shape {expected}, found {scores.shape}"
                )
            yield from zip(batch, scores, strict=True)
            bar.update(len(batch))


def _pad_to(image: np.ndarray, roi: tuple[int, ...]) -> tuple[np.ndarray, tuple[slice, ...]]:
    """Pad ``(C, I, J, K)`` with 0 to at least one window, as float32; the slices take the padding
    away again.
    """
    lack = [max(r - n, 0) for n, r in zip(image.shape[1:], roi, strict=True)]
    image = image.astype(np.float32, copy=False)
    if any(lack):
        image = np.pad(image, [(0, 0), *((n // 2, n - n // 2) for n in lack)])
    return image, tuple(
        slice(n // 2, size - (n - n // 2)) for n, size in zip(lack, image.shape[1:], strict=True)
    )


def window_slices(
    shape: tuple[int, ...], roi_size: tuple[int, ...], overlap: float, placement: str = "fixed"
) -> list[tuple[slice, ...]]:
    """Where the windows lie in a volume that is nowhere smaller than one: three slices each, in
    order along I, J, K.

    ``"fixed"``: at intervals of ``roi * (1 - overlap)`` voxels, the last one flush with the border,
    so that it overlaps its neighbour more than the others do (the original case, MONAI).
    ``"even"``: no more windows, but the same distance between all of them, to a voxel (nnU-Net).
    """
    starts = [
        _starts(length, roi, overlap, placement)
        for length, roi in zip(shape, roi_size, strict=True)
    ]
    corners = itertools.product(*starts)
    return [
        tuple(slice(s, s + roi) for s, roi in zip(corner, roi_size, strict=True))
        for corner in corners
    ]


def _starts(length: int, roi: int, overlap: float, placement: str) -> list[int]:
    """First voxels of the windows along one axis."""
    interval = max(int(roi * (1 - overlap)), 1)
    # The division rounded up: enough steps to reach the far border.
    steps = -(-(length - roi) // interval)
    if placement == "even" and steps:
        return [round(step * (length - roi) / steps) for step in range(steps + 1)]
    return [min(step * interval, length - roi) for step in range(steps + 1)]


def window_weight(roi_size: tuple[int, ...], mode: str) -> np.ndarray:
    """How much each voxel of a window counts, float32 of shape ``roi_size``.

    ``"gaussian"`` has a standard deviation of an eighth of the window, as in nnU-Net (Isensee et
    al., 2021) and MONAI. It all but vanishes in the window's corners, and a voxel seen by one
    window only would be divided by almost nothing: no weight is less than a thousandth.
    """
    if mode == "constant":
        return np.ones(roi_size, np.float32)
    curves = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (0.125 * n)) ** 2) for n in roi_size]
    weight = curves[0][:, None, None] * curves[1][:, None] * curves[2]
    return np.maximum(weight, 1e-3).astype(np.float32)


def with_flips(predictor: Predictor, axes: Sequence[int], *, position: bool = False) -> Predictor:
    """A predictor that also sees the window mirrored, and averages: test-time flips.

    ``axes`` are spatial axes of the window in RAS order, 0 from left to right; every combination is
    tried, so n axes cost 2**n predictions. A mirror from left to right makes a left lung of a right
    one: their scores are exchanged back, and with ``position`` the sign of channel 1, the distance
    from the body's middle plane, is turned. Raises ``ValueError`` for axis 0 if the scores are not
    of the four classes background, left lung, right lung and trachea.
    """
    flips = [
        combination for n in range(len(axes) + 1) for combination in itertools.combinations(axes, n)
    ]

    def averaged(batch: np.ndarray) -> np.ndarray:
        return sum(_flipped(predictor, batch, flip, position) for flip in flips) / np.float32(
            len(flips)
        )

    return averaged


def _flipped(
    predictor: Predictor, batch: np.ndarray, axes: Sequence[int], position: bool
) -> np.ndarray:
    """Scores of ``(N, C, *roi)`` by way of its mirror image along ``axes``."""
    spatial = tuple(axis + 2 for axis in axes)
    mirrored = np.ascontiguousarray(np.flip(batch, spatial))
    if position and 0 in axes:
        mirrored[:, 1] *= -1
    scores = np.flip(np.asarray(predictor(mirrored)), spatial)
    if 0 not in axes:
        return scores
    classes = scores.shape[1]
    if classes != NUM_CLASSES:
        raise ValueError(
            f"inference.flip_axes: expected no 0 for a network of {classes} classes, found {axes}; what a "
            "mirror exchanges is known of background, left lung, right lung and trachea only"
        )
    order = np.arange(classes)
    order[[LEFT_LUNG, RIGHT_LUNG]] = RIGHT_LUNG, LEFT_LUNG
    return scores[:, order]


def _check_window(
    image: np.ndarray,
    roi_size: tuple[int, ...],
    overlap: float,
    mode: str,
    batch_size: int,
    placement: str,
) -> tuple[int, ...]:
    """Return the ROI size as a tuple, or raise ``ValueError`` with the name of what cannot work."""
    rules = [
        (
            image.ndim == 4 and image.size > 0,
            "image",
            "shape (C, I, J, K) without an empty axis",
            image.shape,
        ),
        (
            len(roi_size) == 3 and min(roi_size) >= 1,
            "roi_size",
            "three positive numbers of voxels",
            roi_size,
        ),
        (0 <= overlap < 1, "overlap", "at least 0 and below 1", overlap),
        (mode in ("constant", "gaussian"), "mode", "constant or gaussian", mode),
        (batch_size >= 1, "batch_size", "at least 1", batch_size),
        (placement in ("fixed", "even"), "placement", "fixed or even", placement),
    ]
    for holds, name, expected, found in rules:
        if not holds:
            raise ValueError(f"{name}: expected {expected}, found {found}")
    return tuple(int(n) for n in roi_size)


# ---------------------------------------------------------------------- back to the scan's own grid


def hu_scores(hu: np.ndarray) -> np.ndarray:
    """What the HU of voxels, of any shape ``(...)``, say about the classes, as logits ``(4, ...)``.

    Below -400 HU a voxel is more air than tissue, which speaks against background; above, against
    lung, and half as much against the trachea, whose label includes its wall. The scores are linear
    in HU and limited (-600 to 200 HU), so that they decide only where the network hesitates: at
    surfaces, which the scan shows finer than the working grid.
    """
    air = (-400 - np.fmin(np.fmax(hu, -600), 200)).astype(np.float32) / 300
    tissue = np.minimum(air, 0)
    return np.stack([-np.maximum(air, 0), tissue, tissue, 0.5 * tissue])


def labels_on_grid(
    logits: Volume,
    shape: tuple[int, int, int],
    affine: np.ndarray,
    prior: Callable[[tuple], np.ndarray] | None = None,
    gain: float = np.inf,
) -> np.ndarray:
    """Find the class with the highest score at every voxel of another grid: uint8 of ``shape``.

    ``logits`` is ``(K, ...)`` on its own grid. Scores are interpolated linearly and only then
    compared: the nearest label would keep the steps of the coarse grid, and averages of labels mean
    nothing (half way from 0 to 2 is not 1). Only scores from inside the target grid count: its
    outermost voxels take the nearest such score, rather than mix with what was predicted for the
    padding around a small scan.

    ``prior`` gives scores that are added: it is called with an index of a box of the target, three
    slices, and returns them for that, ``(K, ...)``. ``gain`` is by how much it raises any class
    over class 0, at most: where class 0 leads by more, nothing is computed. Raises ``ValueError``
    if one grid is rotated against the other.
    """
    grid = Volume(logits.array[0], logits.affine)
    return labels_from_slabs([logits.array], grid, shape, affine, prior, gain)


def labels_from_slabs(
    slabs: Iterable[np.ndarray],
    grid: Volume,
    shape: tuple[int, int, int],
    affine: np.ndarray,
    prior: Callable[[tuple], np.ndarray] | None = None,
    gain: float = np.inf,
) -> np.ndarray:
    """:func:`labels_on_grid` from scores that come in slabs ``(K, n, J, K)`` along the first axis
    of ``grid``.

    Each slice of the target lies between two slices of the scores. As soon as both are there its
    labels are found, and no more than a slab of scores is ever held. Only shape and affine of
    ``grid`` are used.
    """
    axes, scale, offset = _match_axes(grid.affine, affine, shape)
    positions = [
        _positions(shape[a], scale[a], offset[a], grid.array.shape[axes[a]]) for a in range(3)
    ]
    streamed = list(axes).index(0)  # the target's axis that runs with the slabs
    first, second = (a for a in range(3) if a != streamed)
    labels, done = np.zeros(shape, np.uint8), -1.0
    for start, scores in _joined(slabs):
        scores, end = (
            scores.transpose(0, 1, 1 + axes[first], 1 + axes[second]),
            start + scores.shape[1] - 1,
        )
        undecided = _undecided(scores, gain if prior else 0.0)
        across = None
        ready = np.flatnonzero((positions[streamed] > done) & (positions[streamed] <= end))
        for numbers in (ready[n : n + CHUNK] for n in range(0, len(ready), CHUNK)):
            places = [positions[streamed][numbers] - start, positions[first], positions[second]]
            box = _box(undecided, places)
            if box is None:
                continue
            places = [p[part] for p, part in zip(places, box, strict=True)]
            across = scores
            for axis in range(3):
                across = _resample(across, axis + 1, places[axis])
            across = np.moveaxis(across, 1, 1 + streamed)
            index = [box[1], box[2]]
            index.insert(streamed, slice(numbers[0], numbers[-1] + 1))
            labels[tuple(index)] = largest(
                across if prior is None else across + prior(tuple(index))
            )
        done = end
        # Before the next slab is made; at the scan's own resolution one is a view of the other.
        del (scores, across)
    return labels


def largest(scores: np.ndarray) -> np.ndarray:
    """``scores.argmax(axis=0)`` of ``(K, ...)``, as uint8, of a tie the lowest;

    NumPy's own is slow along a short axis.
    """
    best, winner = scores[0].copy(), np.zeros(scores.shape[1:], np.uint8)
    for value in range(1, len(scores)):
        np.copyto(winner, value, where=scores[value] > best)
        np.maximum(best, scores[value], out=best)
    return winner


def _undecided(scores: np.ndarray, gain: float) -> np.ndarray:
    """Mark where a class may still beat class 0 once up to ``gain`` was added to it:

    ``(K, ...)`` to boolean ``(...)``.

    Between voxels that are not marked class 0 wins too, for its lead there is a mean of its leads
    at the voxels around.
    """
    slack = 1e-3 * (1 + np.abs(scores[0]))  # many times what rounding can do
    # Also what is not a number.
    return ~(scores[0] - scores[1:].max(axis=0, initial=-np.inf) > gain + slack)


def _box(undecided: np.ndarray, places: list[np.ndarray]) -> tuple[slice, slice, slice] | None:
    """The box of target voxels that touches a marked voxel; ``None`` if none does.

    ``places`` are the positions of the target's slices along each of the three axes, in order or in
    reverse. All slices along axis 0 are kept.
    """
    low, high = int(np.floor(places[0].min())), int(np.ceil(places[0].max()))
    seen = undecided[max(low, 0) : high + 1].any(axis=0)
    box = [slice(None)]
    for axis in (0, 1):
        marked = np.flatnonzero(seen.any(axis=1 - axis))
        if not len(marked):
            return None
        inside = np.flatnonzero(
            (places[axis + 1] > marked[0] - 1) & (places[axis + 1] < marked[-1] + 1)
        )
        if not len(inside):
            return None
        box.append(slice(inside[0], inside[-1] + 1))
    return tuple(box)


def _joined(slabs: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Each slab with the index of its first slice, and with the last slice of the slab before in
    front of it.
    """
    start, last = 0, None
    for slab in slabs:
        scores = slab if last is None else np.concatenate([last, slab], axis=1)
        yield start, scores
        start, last = start + scores.shape[1] - 1, scores[:, -1:].copy()
        del slab, scores  # before the next slab is made


def _resample(array: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    """Interpolate along one axis; where every position is a voxel, only pick."""
    whole = positions.astype(int)
    if np.array_equal(whole, positions):
        unchanged = np.array_equal(whole, np.arange(array.shape[axis]))
        return array if unchanged else np.take(array, whole, axis)
    return apply_along(linear_weights(positions, array.shape[axis]), array, axis)


def _positions(length: int, scale: float, offset: float, source_length: int) -> np.ndarray:
    """Source indices of ``length`` target voxels, held to source voxels whose centres lie inside
    the target grid.
    """
    first, last = sorted(scale * edge + offset for edge in (-0.5, length - 0.5))
    low, high = np.ceil(first - 1e-3), np.floor(last + 1e-3)
    if low > high:  # a target thinner than one source voxel
        low = high = np.rint((first + last) / 2)
    positions = np.clip(
        np.clip(scale * np.arange(length) + offset, low, high), 0, source_length - 1
    )
    nearest = np.rint(positions)
    # Rounding errors of the two affines.
    return np.where(np.abs(positions - nearest) < 1e-6, nearest, positions)


def _match_axes(
    source: np.ndarray, target: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each target axis: the source axis along it, and scale and offset from target index to
    source index.
    """
    matrix = np.linalg.inv(source) @ target
    axes = np.abs(matrix[:3, :3]).argmax(axis=0)
    scale = matrix[axes, np.arange(3)]
    rest = matrix[:3, :3].copy()
    rest[axes, np.arange(3)] = 0
    drift = np.abs(
        rest * np.array(shape)
    ).max()  # in source voxels, from one end of the target grid to the other
    if sorted(axes) != [0, 1, 2] or drift > 0.01:
        raise ValueError(
            f"affine: expected grids with parallel axes, found a drift of {drift:.2g} voxels"
        )
    return axes, scale, matrix[axes, 3]


def keep_largest_component(labels: np.ndarray) -> np.ndarray:
    """Keep the largest connected piece of each structure in ``(I, J, K)`` labels; the others become
    background.

    A lung or a trachea is one piece, so smaller ones are mistakes: air outside the body, gas in the
    bowel. Voxels that share a face, an edge or a corner are connected (26 neighbours). Returns a
    new array.
    """
    kept = np.zeros_like(labels)
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            kept[box][cc3d.largest_k(labels[box] == value, k=1, connectivity=26) > 0] = value
    return kept


def fill_holes(labels: np.ndarray) -> np.ndarray:
    """Give background that one structure encloses on all sides to that structure;

    ``(I, J, K)`` labels, a new array.

    A lung has no holes: what is left out inside, a vessel or a nodule, is part of it. Background is
    enclosed if no way through the faces of its voxels leads out. Other structures inside keep their
    labels.
    """
    filled = labels.copy()
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        pieces = cc3d.connected_components(labels[box] != value, connectivity=6)
        faces = [np.moveaxis(pieces, axis, 0)[end] for axis in range(3) for end in (0, -1)]
        outside = np.unique(np.concatenate([face.ravel() for face in faces]))
        holes = ~np.isin(pieces, outside) & (labels[box] == 0)
        filled[box][holes] = value
    return filled
