"""From a network that sees one window to a mask of the whole scan.

NumPy in, NumPy out: the network is any callable, a predictor as :mod:`.sliding_window` describes.

Two grids are involved. The network was trained on the *working grid*, which has a fixed spacing and
a fixed order of axes, and is covered by windows. The mask is needed on the *scan's grid*. Along its
first axis, the working grid consists of *rows*, and scores arrive in *slabs* of several rows. The
*slices* of the scan are counted along the axis of the scan that is parallel to this one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .config import Config
from .postprocessing import Prior, clean, hu_prior

# The sliding window is part of inference, so all its names are available here too.
from .sliding_window import Predictor as Predictor
from .sliding_window import Shape as Shape
from .sliding_window import SlidingWindow as SlidingWindow
from .sliding_window import sliding_window_inference as sliding_window_inference
from .sliding_window import sliding_window_slabs as sliding_window_slabs
from .sliding_window import window_slices as window_slices
from .sliding_window import window_weight as window_weight
from .sliding_window import with_flips as with_flips
from .transforms import CenterOnBody, Compose, Pad, grid_steps, input_steps
from .transforms.resampling import apply_along, linear_weights
from .volume import Volume

#: Number of slices that are labelled together. If the scan's array stores slices interleaved,
#: working on several at once makes better use of each cache line.
SLICES_AT_ONCE = 4
#: Tolerance for rounding of affines at the edge of a grid, in voxels.
EDGE_TOLERANCE = 1e-3
#: A position this close to the centre of a voxel, in voxels, counts as that voxel.
ROUNDING = 1e-6
#: Axes count as parallel if they drift apart by at most this share of a voxel over a whole scan.
MOST_DRIFT = 0.01


def segment(
    image: Volume, predictor: Predictor, config: Config, *, progress: bool = False
) -> Volume:
    """Segment a whole scan: prepare, predict windows, resample to the scan's grid, clean up.

    ``image`` is ``(I, J, K)`` in HU, of any orientation and spacing. The result is uint8 with 0
    background, 1 left lung, 2 right lung, 3 trachea, and has the shape and affine of ``image``.
    ``progress`` shows a bar over the windows. Memory is needed for the network's input, and for the
    scores of a slab that is one window thick. Raises ``ValueError`` if ``image`` is not 3-D, or if
    the predictor's number of classes is not ``config.model.num_classes``.
    """
    if image.array.ndim != 3:
        raise ValueError(f"image: expected a 3-D volume (I, J, K), found shape {image.array.shape}")
    options = config.inference
    if options.flip_axes:
        predictor = with_flips(predictor, options.flip_axes, position=config.data.position)
    window = SlidingWindow(
        options.roi_size, options.overlap, options.mode, options.batch_size, options.placement
    )
    prepared = prepare(image, config)
    slabs = sliding_window_slabs(prepared.array, window, predictor, progress=progress)
    slabs = _of_classes(slabs, config.model.num_classes)
    working_grid = Volume(prepared.array[0], prepared.affine)
    prior, gain = hu_prior(image, config)
    labels = labels_from_slabs(slabs, working_grid, image.array.shape, image.affine, prior, gain)
    return Volume(clean(labels, image, config), image.affine)


def prepare(image: Volume, config: Config) -> Volume:
    """Turn a scan into the network's input ``(C, I, J, K)`` on the working grid.

    ``image`` is ``(I, J, K)`` in HU. The result is float32, and its affine is that of the working
    grid in the scan's own coordinates.
    """
    to_working_grid = Compose([*grid_steps(config.data), Pad(config.inference.roi_size)])
    to_channels = Compose([CenterOnBody(), *input_steps(config.data)])
    on_grid, _ = to_working_grid(image)
    channels, _ = to_channels(on_grid)
    return Volume(channels.array, on_grid.affine)


def _of_classes(slabs: Iterable[np.ndarray], number: int) -> Iterator[np.ndarray]:
    """The slabs ``(classes, n, J, K)``, unchanged; ``ValueError`` unless there are ``number``."""

    def checked(scores: np.ndarray) -> np.ndarray:
        if len(scores) != number:
            raise ValueError(f"predictor: expected {number} classes, found {len(scores)}")
        return scores

    # Unlike a loop, map does not keep a slab in memory while the next one is computed.
    return map(checked, slabs)


# ---------------------------------------------------------------------- back to the scan's own grid


def labels_on_grid(
    logits: Volume,
    shape: Shape,
    affine: np.ndarray,
    prior: Prior | None = None,
    gain: float = np.inf,
) -> np.ndarray:
    """Find the class with the highest score at every voxel of another grid: uint8 of ``shape``.

    ``logits`` is ``(classes, I, J, K)`` on its own grid. Scores are interpolated linearly, and only
    then compared. Nearest-neighbour labels would show the steps of the coarse grid, and
    interpolated labels are meaningless (half way from 0 to 2 is not 1). Only scores from inside the
    target grid are used: its outermost voxels take the nearest such score, so that predictions for
    the padding around a small scan have no effect.

    ``prior`` gives scores to add, or is ``None``. It is called with a box of the target, three
    slices, and returns scores ``(classes, ...)`` for that box. ``gain`` is the most by which it
    raises any class over class 0: where class 0 leads by more, nothing is computed. Raises
    ``ValueError`` if one grid is rotated relative to the other.
    """
    grid = Volume(logits.array[0], logits.affine)
    return labels_from_slabs([logits.array], grid, shape, affine, prior, gain)


def labels_from_slabs(
    slabs: Iterable[np.ndarray],
    grid: Volume,
    shape: Shape,
    affine: np.ndarray,
    prior: Prior | None = None,
    gain: float = np.inf,
) -> np.ndarray:
    """Like :func:`labels_on_grid`, for scores that arrive slab by slab.

    ``slabs`` are ``(classes, n, J, K)``, in order along the first axis of ``grid``, the working
    grid. Only shape and affine of ``grid`` are used. ``shape`` and ``affine`` are those of the
    scan; ``prior`` and ``gain`` are as in :func:`labels_on_grid`.

    Each slice of the scan lies between two rows of the working grid. It is labelled as soon as the
    scores of both rows are available, so scores are held for one slab and one row only::

        rows of the working grid    0     1     2     3     4     5
        first slab                  [-----------]
        second slab                                   [-----------]
        and the row before it                   [-----------------]
        slices of the scan            0  1  2  3  4  5  6  7  8  9
        are labelled from             [- first -][--- second ----]
    """
    scan = _ScanOnWorkingGrid.locate(grid, shape, affine)
    labelling = _Labelling(scan, np.zeros(shape, np.uint8), prior, gain)
    for first_row, scores in _with_row_before(slabs):
        labelling.add(first_row, scores)
        # Free it before the next slab is computed, which may use the same memory.
        del scores
    return labelling.labels


def largest(scores: np.ndarray) -> np.ndarray:
    """The class with the highest score: ``(classes, ...)`` to uint8 ``(...)``.

    In a tie the lowest class wins. This equals ``scores.argmax(axis=0)``, which is slow in NumPy
    along a short axis.
    """
    highest = scores[0].copy()
    winner = np.zeros(scores.shape[1:], np.uint8)
    for value in range(1, len(scores)):
        np.copyto(winner, value, where=scores[value] > highest)
        np.maximum(highest, scores[value], out=highest)
    return winner


@dataclass(frozen=True)
class _ScanOnWorkingGrid:
    """Where the voxels of a scan lie on the working grid, one entry for each of three axes.

    The axes are in *slab order*: first the scan's axis that is parallel to the first axis of the
    working grid, then the scan's other two.
    """

    slab_axis: int  #: the scan's axis that is parallel to the first axis of the working grid
    #: for each axis, the parallel axis of the working grid; axis 0 comes first
    grid_axes: tuple[int, ...]
    #: for each axis, the fractional index on the working grid of every voxel of the scan
    positions: tuple[np.ndarray, ...]

    @classmethod
    def locate(cls, grid: Volume, shape: Shape, affine: np.ndarray) -> "_ScanOnWorkingGrid":
        """Locate the scan's grid, of this ``shape`` and ``affine``, on the working grid."""
        parallel, scale, offset = _match_axes(grid.affine, affine, shape)
        slab_axis = parallel.index(0)
        in_plane = [axis for axis in range(3) if axis != slab_axis]
        slab_order = [slab_axis, *in_plane]
        positions = tuple(
            _positions(shape[axis], scale[axis], offset[axis], grid.array.shape[parallel[axis]])
            for axis in slab_order
        )
        return cls(slab_axis, tuple(parallel[axis] for axis in slab_order), positions)


class _Labelling:
    """Fill in the labels of a scan from slabs of scores on the working grid."""

    def __init__(
        self, scan: _ScanOnWorkingGrid, labels: np.ndarray, prior: Prior | None, gain: float
    ):
        self.scan = scan
        self.labels = labels  #: uint8 on the scan's grid, 0 where nothing is labelled yet
        self.prior = prior
        self.gain = gain if prior else 0.0
        self.last_row = -1.0  #: row of the working grid up to which slices are labelled

    def add(self, first_row: int, scores: np.ndarray) -> None:
        """Label the slices within a slab ``(classes, rows, J, K)`` that begins at ``first_row``."""
        row_of_slice = self.scan.positions[0]
        last_row = first_row + scores.shape[1] - 1
        ready = np.flatnonzero((self.last_row < row_of_slice) & (row_of_slice <= last_row))
        # To slab order, after the axis of the classes.
        scores = scores.transpose(0, *(1 + axis for axis in self.scan.grid_axes))
        undecided = _undecided(scores, self.gain)
        for first in range(0, len(ready), SLICES_AT_ONCE):
            numbers = ready[first : first + SLICES_AT_ONCE]
            self._label(numbers, row_of_slice[numbers] - first_row, scores, undecided)
        self.last_row = last_row

    def _label(
        self, numbers: np.ndarray, rows: np.ndarray, scores: np.ndarray, undecided: np.ndarray
    ) -> None:
        """Label the slices with these ``numbers``, which lie at these ``rows`` of the slab.

        ``scores`` ``(classes, ...)`` and ``undecided`` are in slab order.
        """
        positions = [rows, *self.scan.positions[1:]]
        in_plane = _undecided_box(undecided, positions)
        if in_plane is None:
            return
        positions = [rows, positions[1][in_plane[0]], positions[2][in_plane[1]]]
        for axis in range(3):
            scores = _resample(scores, axis + 1, positions[axis])
        # From slab order to the scan's own axes.
        scores = np.moveaxis(scores, 1, 1 + self.scan.slab_axis)
        box = list(in_plane)
        box.insert(self.scan.slab_axis, slice(numbers[0], numbers[-1] + 1))
        if self.prior is not None:
            scores = scores + self.prior(tuple(box))
        self.labels[tuple(box)] = largest(scores)


def _with_row_before(slabs: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the index of a slab's first row, and the slab with the row before it in front."""
    first_row, row_before = 0, None
    for slab in slabs:
        scores = slab if row_before is None else np.concatenate([row_before, slab], axis=1)
        yield first_row, scores
        first_row += scores.shape[1] - 1
        row_before = scores[:, -1:].copy()
        del slab, scores  # free them before the next slab is computed


def _undecided(scores: np.ndarray, gain: float) -> np.ndarray:
    """Mark the voxels where a class may still beat class 0 after up to ``gain`` is added to it.

    ``(classes, ...)`` to boolean ``(...)``. Class 0 also wins at any position between unmarked
    voxels: its lead there is at least a weighted mean of its leads at these voxels. NaN is marked.
    """
    lead = scores[0] - scores[1:].max(axis=0, initial=-np.inf)
    rounding = 1e-3 * (1 + np.abs(scores[0]))  # many times the error of rounding
    return ~(lead > gain + rounding)


def _undecided_box(
    undecided: np.ndarray, positions: Sequence[np.ndarray]
) -> tuple[slice, slice] | None:
    """The ranges along axes 1 and 2 of the scan that touch a marked voxel; ``None`` if none do.

    ``positions`` are the scan's indices on the working grid along each of the three axes, rising or
    falling. Only the rows of the slab next to the positions along axis 0 are searched.
    """
    low = max(int(np.floor(positions[0].min())), 0)
    high = int(np.ceil(positions[0].max()))
    seen = undecided[low : high + 1].any(axis=0)
    first = _touching(seen.any(axis=1), positions[1])
    second = _touching(seen.any(axis=0), positions[2])
    return None if first is None or second is None else (first, second)


def _touching(marked: np.ndarray, positions: np.ndarray) -> slice | None:
    """The range of ``positions`` less than a voxel from the marked voxels ``(n,)``, or ``None``."""
    where = np.flatnonzero(marked)
    if not len(where):
        return None
    inside = np.flatnonzero((positions > where[0] - 1) & (positions < where[-1] + 1))
    return slice(inside[0], inside[-1] + 1) if len(inside) else None


def _resample(array: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    """Interpolate linearly along one axis; if every position is a voxel, only select."""
    voxels = positions.astype(int)
    if not np.array_equal(voxels, positions):
        return apply_along(linear_weights(positions, array.shape[axis]), array, axis)
    if np.array_equal(voxels, np.arange(array.shape[axis])):
        return array
    return np.take(array, voxels, axis)


def _positions(length: int, scale: float, offset: float, source_length: int) -> np.ndarray:
    """Indices on the source's axis of ``length`` target voxels, at ``scale * index + offset``.

    They are limited to the source voxels whose centres lie inside the target grid.
    """
    first, last = sorted(scale * edge + offset for edge in (-0.5, length - 0.5))
    low, high = np.ceil(first - EDGE_TOLERANCE), np.floor(last + EDGE_TOLERANCE)
    if low > high:  # a target thinner than one source voxel
        low = high = np.rint((first + last) / 2)
    inside = np.clip(scale * np.arange(length) + offset, low, high)
    positions = np.clip(inside, 0, source_length - 1)
    nearest = np.rint(positions)
    return np.where(np.abs(positions - nearest) < ROUNDING, nearest, positions)


def _match_axes(
    source: np.ndarray, target: np.ndarray, shape: Shape
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """For each axis of the target: the source's axis that is parallel to it, scale and offset.

    ``shape`` is that of the target. ``scale * index + offset`` converts an index on the target's
    axis to one on the source's. Raises ``ValueError`` if one affine is rotated relative to the
    other.
    """
    to_source = np.linalg.inv(source) @ target
    turn = to_source[:3, :3]
    axes = np.abs(turn).argmax(axis=0)
    scale = to_source[axes, np.arange(3)]
    astray = turn.copy()
    astray[axes, np.arange(3)] = 0
    # In source voxels, from one end of the target grid to the other.
    drift = np.abs(astray * np.array(shape)).max()
    if sorted(axes) != [0, 1, 2] or drift > MOST_DRIFT:
        raise ValueError(
            f"affine: expected grids with parallel axes, found a drift of {drift:.2g} voxels"
        )
    return [int(axis) for axis in axes], scale, to_source[axes, 3]
