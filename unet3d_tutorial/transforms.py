"""From a file to a network's input: small steps, each a callable ``(image, label) -> (image, label)``.

Image and label are :class:`~unet3d_tutorial.volume.Volume` objects and move together; ``label`` may be ``None``. Every step
returns new volumes and leaves its input as it was. Steps that draw random numbers do so from their own stream, set
with ``set_random_state``. MindSpore is not needed here.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from .config import DataConfig
from .volume import Volume, load_volume

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
    """The steps from any scan ``(I, J, K)`` to ``(1, I, J, K)`` HU on the working grid, in training and in inference."""
    steps = [ExpandChannel(), Orientation("RAS"), ClipHU()]
    if data.spacing_mm is not None:
        steps.append(Spacing(data.spacing_mm))
    return steps


def input_steps(data: DataConfig) -> list:
    """The steps from HU on the working grid to the network's input ``(C, I, J, K)``, nothing random."""
    steps = [ScaleIntensityRange(data.min_val, data.max_val)]
    return [*steps, AddPosition()] if data.position else steps


class LoadData:
    """Read an image file and, if there is one, its label file (NIfTI). Grids must agree.

    Raises ``FileNotFoundError`` or ``ValueError``, naming the file.
    """

    def __call__(self, image: str | Path, label: str | Path | None = None) -> Pair:
        image_volume = load_volume(image)
        if label is None:
            return image_volume, None
        label_volume = load_volume(label)
        if image_volume.array.shape != label_volume.array.shape:
            raise ValueError(f"{label}: shape {label_volume.array.shape}, but {image} has {image_volume.array.shape}")
        if not np.allclose(image_volume.affine, label_volume.affine, atol=1e-3):
            raise ValueError(f"{label}: its affine differs from that of {image}")
        return image_volume, label_volume


class ExpandChannel:
    """``(I, J, K) -> (1, I, J, K)``: networks expect a channel axis. The affine stays."""

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        return _both(lambda volume: replace(volume, array=volume.array[None]), image, label)


class Orientation:
    """Flip and permute the array axes so that they point to ``axcodes``; the affine follows, no voxel changes its place.

    ``"RAS"``: indices grow towards the patient's right, front and head, to the nearest axis if the scan is oblique.
    """

    def __init__(self, axcodes: str = "RAS"):
        if sorted("".join({"L": "R", "P": "A", "I": "S"}.get(code, code) for code in axcodes)) != ["A", "R", "S"]:
            raise ValueError(f"axcodes: expected one of L/R, one of P/A and one of I/S, found {axcodes!r}")
        self.axcodes = axcodes

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        return _both(self._turn, image, label)

    def _turn(self, volume: Volume) -> Volume:
        start = nib.io_orientation(volume.affine)
        turn = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(self.axcodes))
        affine = volume.affine @ nib.orientations.inv_ornt_aff(turn, volume.array.shape[-3:])
        lead = volume.array.ndim - 3  # nibabel wants the spatial axes first
        array = nib.orientations.apply_orientation(np.moveaxis(volume.array, range(lead), range(-lead, 0)), turn)
        return Volume(np.ascontiguousarray(np.moveaxis(array, range(-lead, 0), range(lead))), affine)


class Spacing:
    """Resample to ``spacing_mm`` along each array axis: linear for the image, nearest for the label.

    The outer edges of the first voxels stay in place and the affine is changed to match. Where the new grid is coarser
    the image is smoothed first, with a Gaussian whose width makes up the difference in resolution, so that thin
    structures fade instead of flickering (aliasing). The image becomes float32.
    """

    def __init__(self, spacing_mm: Sequence[float]):
        if len(spacing_mm) != 3 or min(spacing_mm) <= 0:
            raise ValueError(f"spacing_mm: expected three positive lengths in mm, found {spacing_mm}")
        self.spacing_mm = tuple(float(length) for length in spacing_mm)

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        ratio = np.array(self.spacing_mm) / image.spacing_mm
        if np.allclose(ratio, 1, rtol=1e-3):
            return image, label
        size = [max(1, round(n / r)) for n, r in zip(image.array.shape[-3:], ratio, strict=True)]
        # voxel i of the new grid has its centre at (i + 1/2) r - 1/2 of the old one
        scale, shift = np.diag([*ratio, 1.0]), np.eye(4)
        shift[:3, 3] = (ratio - 1) / 2
        affine = image.affine @ shift @ scale
        centres = [(np.arange(n) + 0.5) * r - 0.5 for n, r in zip(size, ratio, strict=True)]
        array = image.array.astype(np.float32)
        for axis, (centre, r) in enumerate(zip(centres, ratio, strict=True), start=array.ndim - 3):
            if r > 1:  # full width at half maximum of the old and the added blur add up in squares to the new
                array = ndimage.gaussian_filter1d(array, np.sqrt(r**2 - 1) / 2.355, axis=axis, mode="nearest")
            array = interpolate(array, axis, centre)
        if label is not None:
            nearest = [np.clip(np.rint(c).astype(int), 0, n - 1)
                       for c, n in zip(centres, label.array.shape[-3:], strict=True)]
            label = Volume(label.array[..., nearest[0][:, None, None], nearest[1][:, None], nearest[2]], affine)
        return Volume(array, affine), label


class ScaleIntensityRange:
    """Map HU linearly so that ``src_min`` becomes ``tgt_min`` and ``src_max`` becomes ``tgt_max``; the image, as float32.

    ``is_clip`` cuts off what lies outside. Label and affines stay.
    """

    def __init__(self, src_min: float, src_max: float, tgt_min: float = 0.0, tgt_max: float = 1.0, is_clip: bool = True):
        if src_min >= src_max:
            raise ValueError(f"src_min: expected a value below src_max = {src_max}, found {src_min}")
        self.src_min, self.src_max, self.tgt_min, self.tgt_max, self.is_clip = src_min, src_max, tgt_min, tgt_max, is_clip

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        slope = (self.tgt_max - self.tgt_min) / (self.src_max - self.src_min)
        array = (image.array.astype(np.float32) - np.float32(self.src_min)) * np.float32(slope) + np.float32(self.tgt_min)
        if self.is_clip:
            np.clip(array, min(self.tgt_min, self.tgt_max), max(self.tgt_min, self.tgt_max), out=array)
        return replace(image, array=array), label


class ClipHU:
    """Raise HU below -1024, and voxels that are not numbers, to -1024, before resampling smears them into the patient.

    Scanners fill what they did not see with -1024, -2048 or -3024. Below air there is nothing to learn.
    """

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        return replace(image, array=np.fmax(image.array, image.array.dtype.type(-1024))), label


class Pad:
    """Pad ``(C, I, J, K)`` on both sides to at least ``roi_size`` voxels: the image with its minimum, the label with 0.

    The affine follows, so every voxel keeps its place in the patient.
    """

    def __init__(self, roi_size: Sequence[int]):
        self.roi_size = tuple(roi_size)

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        if image.array.ndim != 4:
            raise ValueError(f"image: expected shape (C, I, J, K), found {image.array.shape}; add ExpandChannel")
        lack = np.maximum(np.array(self.roi_size) - image.array.shape[1:], 0)
        if not lack.any():
            return image, label
        before = lack // 2
        widths = [(0, 0), *zip(before, lack - before, strict=True)]
        affine = _moved(image.affine, -before)
        if label is not None:
            label = Volume(np.pad(label.array, widths), affine)
        return Volume(np.pad(image.array, widths, constant_values=image.array.min()), affine), label


class CenterOnBody:
    """Move the origin of the coordinates, so that the middle plane of the body is at 0 mm from left to right.

    The plane goes through the centre of all tissue, that is voxels above ``tissue_hu``. Only the affines change.
    """

    def __init__(self, tissue_hu: float = -300.0):
        self.tissue_hu = tissue_hu

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        tissue = image.array.reshape(-1, *image.array.shape[-3:])[0] > self.tissue_hu
        centre = np.ones(4)
        for axis in range(3):
            count = tissue.sum(axis=tuple({0, 1, 2} - {axis}))
            centre[axis] = (count * np.arange(len(count))).sum() / count.sum() if count.any() else (len(count) - 1) / 2
        shift = np.eye(4)
        shift[0, 3] = -(image.affine @ centre)[0]
        return _both(lambda volume: replace(volume, affine=shift @ volume.affine), image, label)


class ConvertLabel:
    """Label values ``lower_limit .. upper_limit`` become ``1 .. n``, all others 0 (background). Pure: a copy, uint8."""

    def __init__(self, lower_limit: int = 3, upper_limit: int = 5):
        self.lower_limit, self.upper_limit = lower_limit, upper_limit

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        if label is None:
            return image, None
        old = label.array
        known = (old >= self.lower_limit) & (old <= self.upper_limit)
        return image, replace(label, array=np.where(known, old - (self.lower_limit - 1), 0).astype(np.uint8))


class OneHot:
    """Label ``(..., 1, I, J, K)`` of class numbers to ``(..., num_classes, I, J, K)`` of zeros and ones, float32.

    One comparison with all class numbers at once instead of a loop over voxels.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        if label is None:
            return image, None
        if label.array.ndim < 4 or label.array.shape[-4] != 1:
            raise ValueError(f"label: expected shape (..., 1, I, J, K), found {label.array.shape}; add ExpandChannel")
        if label.array.max() >= self.num_classes:
            raise ValueError(f"label: expected values below {self.num_classes}, found {label.array.max()}")
        classes = np.arange(self.num_classes).reshape(-1, 1, 1, 1)
        return image, replace(label, array=(label.array == classes).astype(np.float32))


# ----------------------------------------------------------------------------------------------------- random steps
class RandomTransform:
    """A step that draws from its own random stream."""

    rng: np.random.Generator

    def set_random_state(self, seed: int | Sequence[int]) -> "RandomTransform":
        """Restart the stream; the same seed gives the same draws."""
        self.rng = np.random.default_rng(seed)
        return self


class RandomCropSamples(RandomTransform):
    """Cut ``num_samples`` boxes of ``roi_size`` voxels at random places: ``(C, I, J, K) -> (S, C, *roi_size)``.

    An image smaller than the box is padded first (:class:`Pad`). The affine is that of the first crop.
    """

    def __init__(self, roi_size: Sequence[int], num_samples: int = 1, seed: int | Sequence[int] = 0):
        self.roi_size, self.num_samples = tuple(roi_size), num_samples
        self.set_random_state(seed)

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        image, label = Pad(self.roi_size)(image, label)
        corners = self.draw(image.array.shape[1:])
        return _both(lambda volume: self._cut(volume, corners), image, label)

    def draw(self, shape: Sequence[int]) -> np.ndarray:
        """Lower corners of the boxes, ``(num_samples, 3)`` voxel indices; every place is equally likely."""
        last = np.array(shape) - self.roi_size
        return self.rng.integers(0, last + 1, size=(self.num_samples, 3))

    def _cut(self, volume: Volume, corners: np.ndarray) -> Volume:
        boxes = [tuple(slice(c, c + r) for c, r in zip(corner, self.roi_size, strict=True)) for corner in corners]
        return Volume(np.stack([volume.array[(slice(None), *box)] for box in boxes]), _moved(volume.affine, corners[0]))


class AddPosition(RandomTransform):
    """Add a channel that says how far each voxel is from the middle plane: ``(..., 1, I, J, K) -> (..., 2, I, J, K)``.

    Its unit is 100 mm, positive on the patient's right. Left and right lung look much alike, and a network that only
    sees HU takes long to find out which is which. Run :class:`CenterOnBody` before. With ``jitter`` the plane is moved
    (deviation 15 mm) and the scale varied (by up to 15 %), so that the exact border must come from the anatomy.
    """

    def __init__(self, jitter: bool = False, seed: int | Sequence[int] = 0):
        self.jitter = jitter
        self.set_random_state(seed)

    def __call__(self, image: Volume, label: Volume | None = None) -> Pair:
        shift, scale = (self.rng.normal(0, 0.15), self.rng.uniform(0.85, 1.15)) if self.jitter else (0.0, 1.0)
        i, j, k = np.ogrid[tuple(slice(n) for n in image.array.shape[-3:])]
        row = image.affine[0]
        position = ((row[0] * i + row[1] * j + row[2] * k + row[3]) / 100 * scale + shift).astype(np.float32)
        channel = np.broadcast_to(position, image.array.shape)
        return replace(image, array=np.concatenate([image.array, channel], axis=-4)), label


# ------------------------------------------------------------------------------------------------------------ shared
def interpolate(array: np.ndarray, axis: int, position: np.ndarray) -> np.ndarray:
    """Linear interpolation along one axis at fractional indices ``position``; beyond the ends the end value counts."""
    last = array.shape[axis] - 1
    position = np.clip(position, 0, last)
    lower = np.minimum(position.astype(int), max(last - 1, 0))
    weight = (position - lower).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    below, above = np.take(array, lower, axis), np.take(array, np.minimum(lower + 1, last), axis)
    return below + weight * (above - below)


def _both(step, image: Volume, label: Volume | None) -> Pair:
    return step(image), None if label is None else step(label)


def _moved(affine: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """The affine of a grid whose first voxel is voxel ``corner`` of the old one."""
    shift = np.eye(4)
    shift[:3, 3] = corner
    return affine @ shift
