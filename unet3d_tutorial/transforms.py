"""From a file to a network's input: small steps, each a callable ``(image, label) -> (image,
label)``.

Image and label are :class:`~unet3d_tutorial.volume.Volume` objects and move together; ``label`` may
be ``None``. Every step returns new volumes and leaves its input as it was; a new volume may share
memory with the old one, so do not write into either. Steps that draw random numbers do so from
their own stream, set with ``set_random_state``; those that only vary the training scans are in
:mod:`unet3d_tutorial.augment`. MindSpore is not needed here.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage, sparse

from .config import DataConfig
from .files.nifti import load_volume
from .volume import BadScanError, Volume, check_same_grid

Pair = tuple[Volume, Volume | None]


class Compose:
    """Run steps one after the other."""

    def __init__(self, steps: Sequence):
        self.steps = list(steps)

    def set_random_state(self, seed: int | Sequence[int]) -> "Compose":
        """Give every random step a stream of its own, derived from ``seed``."""
        for number, step in enumerate(self.steps):
            if isinstance(step, RandomTransform):
                step.set_random_state([*np.atleast_1d(seed), number])
        return self

    def __call__(self, image, label=None):
        for step in self.steps:
            image, label = step(image, label)
        return image, label


def grid_steps(data: DataConfig) -> list:
    """The steps from any scan ``(I, J, K)`` to ``(1, I, J, K)`` HU on the working grid, in training
    and in inference.
    """
    steps = [ExpandChannel(), Orientation("RAS"), ClipHU()]
    if data.spacing_mm is not None:
        steps.append(Spacing(data.spacing_mm))
    return steps


def input_steps(data: DataConfig) -> list:
    """The steps from HU on the working grid to the network's input ``(C, I, J, K)``, nothing
    random.
    """
    steps = [ScaleIntensityRange(data.min_val, data.max_val)]
    return [*steps, AddPosition()] if data.position else steps


class LoadData:
    """Read an image file and, if there is one, its label file (NIfTI).

    Grids must agree; the label takes the image's.

    Raises ``FileNotFoundError`` or ``ValueError``, naming the file.
    """

    def __call__(self, image: str | Path, label: str | Path | None = None) -> Pair:
        image_volume = load_volume(image)
        if label is None:
            return image_volume, None
        label_volume = load_volume(label)
        check_same_grid(label, label_volume.grid, image, image_volume.grid)
        return image_volume, replace(label_volume, affine=image_volume.affine)


class ExpandChannel:
    """``(I, J, K) -> (1, I, J, K)``: networks expect a channel axis. The affine stays."""

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        return _both(lambda volume: replace(volume, array=volume.array[None]), image, label)


class Orientation:
    """Flip and permute the array axes so that they point to ``axcodes``; the affine follows, no
    voxel changes its place.

    ``"RAS"``: indices grow towards the patient's right, front and head, to the nearest axis if the
    scan is oblique.
    """

    def __init__(self, axcodes: str = "RAS"):
        if sorted("".join({"L": "R", "P": "A", "I": "S"}.get(code, code) for code in axcodes)) != [
            "A",
            "R",
            "S",
        ]:
            raise ValueError(
                f"axcodes: expected one of L/R, one of P/A and one of I/S, found {axcodes!r}"
            )
        self.axcodes = axcodes

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        return _both(self._turn, image, label)

    def _turn(self, volume: Volume) -> Volume:
        start = nib.io_orientation(volume.affine)
        turn = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(self.axcodes))
        affine = volume.affine @ nib.orientations.inv_ornt_aff(turn, volume.array.shape[-3:])
        lead = volume.array.ndim - 3  # nibabel wants the spatial axes first
        array = nib.orientations.apply_orientation(
            np.moveaxis(volume.array, range(lead), range(-lead, 0)), turn
        )
        return Volume(np.moveaxis(array, range(-lead, 0), range(lead)), affine)


class Spacing:
    """Resample to ``spacing_mm`` along each array axis: linear for the image, nearest for the
    label.

    The outer edges of the first voxels stay in place and the affine is changed to match. Where the
    new grid is coarser the image is smoothed first, with a Gaussian whose width makes up the
    difference in resolution, so that thin structures fade instead of flickering (aliasing). The
    image becomes float32.
    """

    def __init__(self, spacing_mm: Sequence[float]):
        if len(spacing_mm) != 3 or min(spacing_mm) <= 0:
            raise ValueError(
                f"spacing_mm: expected three positive lengths in mm, found {spacing_mm}"
            )
        self.spacing_mm = tuple(float(length) for length in spacing_mm)

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        ratio = np.array(self.spacing_mm) / image.spacing_mm
        if np.allclose(ratio, 1, rtol=1e-3):
            return image, label
        size = [max(1, round(n / r)) for n, r in zip(image.array.shape[-3:], ratio, strict=True)]
        # voxel i of the new grid has its centre at (i + 1/2) r - 1/2 of the old one
        affine = _moved(image.affine, (ratio - 1) / 2) @ np.diag([*ratio, 1.0])
        centres = [(np.arange(n) + 0.5) * r - 0.5 for n, r in zip(size, ratio, strict=True)]
        array = image.array.astype(np.float32, copy=False)
        for axis in (-1, -2, -3):
            array = along(
                resampling_weights(centres[axis], array.shape[axis], ratio[axis]), array, axis
            )
        if label is not None:
            nearest = [
                np.clip(np.rint(c).astype(int), 0, n - 1)
                for c, n in zip(centres, label.array.shape[-3:], strict=True)
            ]
            label = Volume(
                label.array[..., nearest[0][:, None, None], nearest[1][:, None], nearest[2]], affine
            )
        return Volume(array, affine), label


class ScaleIntensityRange:
    """Map HU linearly so that ``src_min`` becomes ``tgt_min`` and ``src_max`` becomes ``tgt_max``;
    the image, as float32.

    ``is_clip`` cuts off what lies outside. Label and affines stay.

    >>> scan = Volume(np.array([[[-1000, -300, 3000]]]), np.eye(4))
    >>> ScaleIntensityRange(-1000, 400)(scan)[0].array
    array([[[0. , 0.5, 1. ]]], dtype=float32)
    """

    def __init__(
        self,
        src_min: float,
        src_max: float,
        tgt_min: float = 0.0,
        tgt_max: float = 1.0,
        is_clip: bool = True,
    ):
        if src_min >= src_max:
            raise ValueError(
                f"src_min: expected a value below src_max = {src_max}, found {src_min}"
            )
        self.src_min = src_min
        self.src_max = src_max
        self.tgt_min = tgt_min
        self.tgt_max = tgt_max
        self.is_clip = is_clip

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        slope = (self.tgt_max - self.tgt_min) / (self.src_max - self.src_min)
        array = (image.array.astype(np.float32) - np.float32(self.src_min)) * np.float32(
            slope
        ) + np.float32(self.tgt_min)
        if self.is_clip:
            np.clip(
                array, min(self.tgt_min, self.tgt_max), max(self.tgt_min, self.tgt_max), out=array
            )
        return replace(image, array=array), label


class ClipHU:
    """Raise HU below -1024, and voxels that are not numbers, to -1024, before resampling smears
    them into the patient.

    Scanners fill what they did not see with -1024, -2048 or -3024. Below air there is nothing to
    learn.
    """

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        kind = image.array.dtype
        if (
            kind.kind in "iu" and np.iinfo(kind).min > -1024
        ):  # the type has no such value, and would take another for it
            return image, label
        return replace(image, array=np.fmax(image.array, kind.type(-1024))), label


class Pad:
    """Pad ``(C, I, J, K)`` on both sides to at least ``roi_size`` voxels: the image with its
    minimum, the label with 0.

    The affine follows, so every voxel keeps its place in the patient.
    """

    def __init__(self, roi_size: Sequence[int]):
        self.roi_size = tuple(roi_size)

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        if image.array.ndim != 4:
            raise ValueError(
                f"image: expected shape (C, I, J, K), found {image.array.shape}; add ExpandChannel"
            )
        lack = np.maximum(np.array(self.roi_size) - image.array.shape[1:], 0)
        if not lack.any():
            return image, label
        before = lack // 2
        widths = [(0, 0), *zip(before, lack - before, strict=True)]
        affine = _moved(image.affine, -before)
        if label is not None:
            label = Volume(np.pad(label.array, widths), affine)
        return Volume(np.pad(image.array, widths, constant_values=image.array.min()), affine), label


class CenterCrop:
    """Cut the middle ``roi_size`` voxels out of ``(..., I, J, K)``; what is smaller stays.

    The affine follows.
    """

    def __init__(self, roi_size: Sequence[int]):
        self.roi_size = tuple(roi_size)

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        first = [
            max(n // 2 - r // 2, 0)
            for n, r in zip(image.array.shape[-3:], self.roi_size, strict=True)
        ]
        return _both(lambda volume: cut(volume, first, self.roi_size), image, label)


class CropForeground:
    """Cut away what surrounds the patient: the smallest box of all voxels above ``above_hu``, and
    ``margin`` voxels more.

    The affine follows, so every voxel keeps its place in the patient. An image without such voxels
    stays whole.
    """

    def __init__(self, above_hu: float = -500.0, margin: int = 0):
        self.above_hu = above_hu
        self.margin = margin

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        patient = (image.array > self.above_hu).reshape(-1, *image.array.shape[-3:]).any(axis=0)
        found = [np.flatnonzero(patient.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        if not len(found[0]):
            return image, label
        first = np.maximum([places[0] - self.margin for places in found], 0)
        last = np.array([places[-1] + self.margin for places in found])
        return _both(lambda volume: cut(volume, first, last + 1 - first), image, label)


class CenterOnBody:
    """Count positions along the volume's own axes, from the middle plane of the body: there, left
    to right is 0 mm.

    The plane goes through the centre of all tissue, that is voxels above ``tissue_hu``. Only the
    affines change: they lose the origin and a slant of the whole grid, which says where the
    scanner's table stood and how the grid was laid, but nothing of the patient.
    """

    def __init__(self, tissue_hu: float = -300.0):
        self.tissue_hu = tissue_hu

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        affine = _straight(image)
        across = int(np.argmax(np.abs(affine[0, :3])))  # the array axis between left and right
        tissue = image.array.reshape(-1, *image.array.shape[-3:])[0] > self.tissue_hu
        count = tissue.sum(axis=tuple({0, 1, 2} - {across}))
        centre = (
            (count * np.arange(len(count))).sum() / count.sum()
            if count.any()
            else (len(count) - 1) / 2
        )
        affine[0, 3] = -affine[0, across] * centre
        return _both(lambda volume: replace(volume, affine=affine.copy()), image, label)


def has_classes(label: np.ndarray) -> bool:
    """Whether a mask holds the classes 1, 2 and 3, as this package writes them, and not LUNA16's
    values 3, 4 and 5.

    LUNA16's masks may hold 1 and 2 too, for what counts as background, but a lung or the trachea
    above 3 as well.
    """
    return bool(label.max() <= 3 and ((label == 1) | (label == 2)).any())


def convert_files(steps: Compose, image: Path, label: Path) -> Pair:
    """Run ``steps``, of which the first reads the files; what a later one finds wrong is told with
    the label's name.
    """
    try:
        return steps(image, label)
    except BadScanError:  # names its file
        raise
    except ValueError as error:
        raise BadScanError(f"{label}: {error}") from error


class ConvertLabel:
    """Label values ``lower_limit .. upper_limit`` become ``1 .. n``, all others 0 (background).

    Pure: a copy, uint8.

    Raises ``ValueError`` for a mask of classes 1, 2 and 3 if both lungs would become background,
    and the trachea a lung.
    """

    def __init__(self, lower_limit: int = 3, upper_limit: int = 5):
        self.lower_limit = lower_limit
        self.upper_limit = upper_limit

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        if label is None:
            return image, None
        old = label.array
        if self.lower_limit > 2 and has_classes(old):
            raise ValueError(
                f"expected label values from {self.lower_limit} to {self.upper_limit}, found the classes 1, 2 "
                "and 3; for masks of these set data.lower_limit=1 data.upper_limit=3"
            )
        known = (old >= self.lower_limit) & (old <= self.upper_limit)
        return image, replace(
            label, array=np.where(known, old - (self.lower_limit - 1), 0).astype(np.uint8)
        )


class OneHot:
    """Label ``(..., 1, I, J, K)`` of class numbers to ``(..., num_classes, I, J, K)`` of zeros and
    ones, float32.

    One comparison with all class numbers at once instead of a loop over voxels.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        if label is None:
            return image, None
        if label.array.ndim < 4 or label.array.shape[-4] != 1:
            raise ValueError(
                f"label: expected shape (..., 1, I, J, K), found {label.array.shape}; add ExpandChannel"
            )
        if label.array.max() >= self.num_classes:
            raise ValueError(
                f"label: expected values below {self.num_classes}, found {label.array.max()}"
            )
        classes = np.arange(self.num_classes, dtype=label.array.dtype).reshape(-1, 1, 1, 1)
        hot = np.empty(np.broadcast_shapes(label.array.shape, classes.shape), np.float32)
        # Writes 0 and 1 straight into place.
        np.equal(label.array, classes, out=hot, casting="unsafe")
        return image, replace(label, array=hot)


# ------------------------------------------------------------------------------------- random steps
class RandomTransform:
    """A step that draws from its own random stream: first its parameters (``draw``), then what they
    do (``apply``).
    """

    rng: np.random.Generator

    def set_random_state(self, seed: int | Sequence[int]) -> "RandomTransform":
        """Restart the stream; the same seed gives the same draws."""
        self.rng = np.random.default_rng(seed)
        return self

    def draw(self, shape: Sequence[int]) -> Any:
        """Parameters for an image array of this shape, or ``None`` to leave it as it is.

        Moves the stream on.
        """
        raise NotImplementedError

    def apply(self, image: Volume, label: Volume | None, parameters: Any) -> Pair:
        """What the parameters do. Draws nothing."""
        raise NotImplementedError

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        parameters = self.draw(image.array.shape)
        return (image, label) if parameters is None else self.apply(image, label, parameters)


class RandomCropSamples(RandomTransform):
    """Cut ``num_samples`` boxes of ``roi_size`` voxels at random places:

    ``(C, I, J, K) -> (S, C, *roi_size)``.

    An image smaller than the box is padded first (:class:`Pad`). Every place is equally likely; but
    a share ``foreground`` of the boxes, on average, is centred on a voxel of a structure (label
    above 0), each structure of the scan equally often, as far as the border allows: else small
    structures are in few crops. The affine is that of the first crop.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        num_samples: int = 1,
        seed: int | Sequence[int] = 0,
        foreground: float = 0.0,
    ):
        self.roi_size = tuple(roi_size)
        self.num_samples = num_samples
        self.foreground = foreground
        self.set_random_state(seed)

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        image, label = Pad(self.roi_size)(image, label)
        return self.apply(
            image, label, self.draw(image.array.shape, None if label is None else label.array)
        )

    def draw(self, shape: Sequence[int], label: np.ndarray | None = None) -> np.ndarray:
        """Lower corners of the boxes, ``(num_samples, 3)`` voxel indices."""
        last = np.array(shape[-3:]) - self.roi_size
        corners = self.rng.integers(0, last + 1, size=(self.num_samples, 3))
        if label is not None and self.foreground > 0:
            for number in np.flatnonzero(self.rng.random(self.num_samples) < self.foreground):
                centre = self._voxel_of_a_structure(label)
                if centre is not None:
                    corners[number] = np.clip(centre - np.array(self.roi_size) // 2, 0, last)
        return corners

    def _voxel_of_a_structure(self, label: np.ndarray) -> np.ndarray | None:
        for value in self.rng.permutation(int(label.max())) + 1:
            places = np.flatnonzero(label == value)
            if len(places):
                return np.array(np.unravel_index(self.rng.choice(places), label.shape)[-3:])
        return None

    def apply(self, image: Volume, label: Volume | None, parameters: np.ndarray) -> Pair:
        return _both(lambda volume: self._cut(volume, parameters), image, label)

    def _cut(self, volume: Volume, corners: np.ndarray) -> Volume:
        crops = [cut(volume, corner, self.roi_size) for corner in corners]
        return Volume(np.stack([crop.array for crop in crops]), crops[0].affine)


class AddPosition(RandomTransform):
    """Add a channel that says how far each voxel is from the middle plane:

    ``(..., 1, I, J, K) -> (..., 2, I, J, K)``.

    Its unit is 100 mm, positive on the patient's right. Left and right lung look much alike, and a
    network that only sees HU takes long to find out which is which. Run :class:`CenterOnBody`
    before. With ``jitter`` the plane is moved (deviation 15 mm) and the scale varied (by up to 15
    %), so that the exact border must come from the anatomy.
    """

    def __init__(self, jitter: bool = False, seed: int | Sequence[int] = 0):
        self.jitter = jitter
        self.set_random_state(seed)

    def draw(self, shape: Sequence[int]) -> tuple[float, float]:
        """Shift in 100 mm and scale."""
        return (
            (self.rng.normal(0, 0.15), self.rng.uniform(0.85, 1.15)) if self.jitter else (0.0, 1.0)
        )

    def apply(self, image: Volume, label: Volume | None, parameters: tuple[float, float]) -> Pair:
        shift, scale = parameters
        i, j, k = np.ogrid[tuple(slice(n) for n in image.array.shape[-3:])]
        row = image.affine[0]
        position = ((row[0] * i + row[1] * j + row[2] * k + row[3]) / 100 * scale + shift).astype(
            np.float32
        )
        channel = np.broadcast_to(position, image.array.shape)
        return replace(image, array=np.concatenate([image.array, channel], axis=-4)), label


# ------------------------------------------------------------------------------------------- shared
def linear_weights(positions: np.ndarray, length: int) -> sparse.csr_array:
    """Linear interpolation as a matrix: row ``n`` takes ``length`` samples to the value at index
    ``positions[n]``.

    Positions outside ``0 .. length - 1`` take the nearest sample. A row has at most two entries.
    """
    positions = np.clip(positions, 0, length - 1)
    lower = np.minimum(positions.astype(int), max(length - 2, 0))
    upper = np.minimum(lower + 1, length - 1)
    share = (positions - lower).astype(np.float32)
    rows = np.arange(len(positions))
    entries = (
        np.concatenate([1 - share, share]),
        (np.tile(rows, 2), np.concatenate([lower, upper])),
    )
    return sparse.csr_array(entries, shape=(len(positions), length))


def resampling_weights(positions: np.ndarray, length: int, ratio: float) -> sparse.csr_array:
    """Like :func:`linear_weights`, of samples that were smoothed first if the new ones are ``ratio
    > 1`` times as far apart.

    Full widths at half maximum (2.355 standard deviations), of the old voxel and of the blur, add
    up in squares to the new.
    """
    weights = linear_weights(positions, length)
    if ratio <= 1:
        return weights
    blur = ndimage.gaussian_filter1d(
        np.eye(length), np.sqrt(ratio**2 - 1) / 2.355, axis=0, mode="nearest"
    )
    return weights @ sparse.csr_array(blur.astype(np.float32))


def along(matrix: sparse.csr_array, array: np.ndarray, axis: int) -> np.ndarray:
    """Apply ``matrix`` to every line of ``array`` along ``axis``."""
    first = np.moveaxis(array, axis, 0)
    product = matrix @ first.reshape(len(first), -1)
    return np.moveaxis(product.reshape(-1, *first.shape[1:]), 0, axis)


def cut(volume: Volume, first: Sequence[int], size: Sequence[int]) -> Volume:
    """The box of ``size`` voxels that begins at voxel ``first``, without a copy.

    The affine follows.
    """
    box = tuple(slice(f, f + n) for f, n in zip(first, size, strict=True))
    return Volume(volume.array[(..., *box)], _moved(volume.affine, first))


def _both(step, image: Volume, label: Volume | None) -> Pair:
    return step(image), None if label is None else step(label)


def _straight(volume: Volume) -> np.ndarray:
    """An affine with the volume's spacing and, of its axes' directions, the nearest ones of the
    patient. No origin.
    """
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (towards, sign) in enumerate(nib.io_orientation(volume.affine)):
        affine[int(towards), axis] = sign * volume.spacing_mm[axis]
    return affine


def _moved(affine: np.ndarray, corner: Sequence[float]) -> np.ndarray:
    """The affine of a grid whose first voxel is voxel ``corner`` of the old one."""
    shift = np.eye(4)
    shift[:3, 3] = corner
    return affine @ shift
