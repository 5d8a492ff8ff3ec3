"""Make a volume small enough for a page: average blocks, quantise values and compress."""

import zlib
from collections.abc import Iterator

import numpy as np

from .scene import Scene

Factors = tuple[int, int, int]  #: voxels of a block along each axis
FINEST: Factors = (1, 1, 1)
STEPS = 256  # for the values that nearly all voxels have
CODES = 65535  # the largest number of steps that two bytes hold
SAMPLED_VOXELS = 500_000  # approximate number that is packed to estimate the size of a page
NEARLY_EQUAL = 1.05  # largest ratio of two block lengths that grow together
COMPRESSION = 6  # zlib's level


# -------------------------------------------------------------------------------- blocks of voxels


def ever_coarser(shape: tuple[int, ...], spacing: tuple[float, ...]) -> Iterator[Factors]:
    """Yield sizes of blocks to average: single voxels first, then larger and larger blocks.

    At each step a block grows along the axis where it is shortest in mm, and along axes where it is
    nearly as short.
    """
    factors = [1, 1, 1]
    while True:
        i, j, k = factors
        yield i, j, k
        sizes = [
            length * factor if factor < voxels else np.inf
            for length, factor, voxels in zip(spacing, factors, shape, strict=True)
        ]
        finest = min(sizes)
        if finest == np.inf:
            return
        for axis, size in enumerate(sizes):
            if size <= NEARLY_EQUAL * finest:
                factors[axis] += 1


def coarser(
    scene: Scene, factors: Factors, slices: slice | np.ndarray = slice(None)
) -> list[np.ndarray]:
    """Return image and masks, ``(K, J, I)``, on the grid of blocks.

    The image has the means of the blocks; masks have the labels of their middle voxels. ``slices``
    selects slices along the scan's last axis.
    """
    image = scene.image[..., slices].T
    masks = [mask[..., slices].T for mask in scene.masks]
    reversed_factors = factors[::-1]
    middles = [block_middle(mask, reversed_factors) for mask in masks]
    return [block_mean(image, reversed_factors), *middles]


def sample(scene: Scene, factors: Factors) -> tuple[list[np.ndarray], float]:
    """Return some slices of :func:`coarser`, about half a million voxels, and their share."""
    slices = scene.image.shape[2]
    blocks = -(-slices // factors[2])  # rounded up
    enough = 3 + int(SAMPLED_VOXELS * blocks * np.prod(factors) / scene.image.size)
    chosen = np.linspace(0, blocks - 1, min(blocks, enough))
    firsts = np.rint(chosen)[:, None].astype(int) * factors[2]
    used = np.minimum(firsts + np.arange(factors[2]), slices - 1).ravel()
    return coarser(scene, factors, used), len(chosen) / blocks


def block_mean(array: np.ndarray, factors: Factors) -> np.ndarray:
    """Average blocks, in float32; a block that extends too far repeats the axis's last voxel."""
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        lines = np.moveaxis(array, axis, 0)
        total = lines[::factor].astype(np.float32)
        for n in range(1, factor):
            part = lines[n::factor]
            total[: len(part)] += part
            total[len(part) :] += lines[-1]
        array = np.moveaxis(total / np.float32(factor), 0, axis)
    return array


def block_middle(mask: np.ndarray, factors: Factors) -> np.ndarray:
    """Return the label of the middle voxel of each block."""
    middles = []
    for length, factor in zip(mask.shape, factors, strict=True):
        firsts = np.arange(0, length, factor)
        middles.append(np.minimum(firsts + factor // 2, length - 1))
    return mask[np.ix_(*middles)]


def block_affine(factors: Factors) -> np.ndarray:
    """Return the 4 x 4 affine from the index of a block to its centre, in voxels."""
    affine = np.diag([*map(float, factors), 1.0])
    affine[:3, 3] = (np.array(factors) - 1) / 2
    return affine


# ------------------------------------------------------------------------------------------- bytes


def finest_step(scene: Scene) -> float:
    """Return the smallest step between stored values, in the image's unit.

    The central 99.8 % of a sample's values are divided into 256 steps, or the whole range if nearly
    all voxels are equal. The whole range has at most as many steps as 16 bits can represent. If
    the browser gets the image as int16, the step is a whole number.
    """
    low, high = np.percentile(scene.image[::4, ::4, ::4], [0.1, 99.9])
    whole_range = scene.value_range[1] - scene.value_range[0]
    step = float(high - low) / STEPS or whole_range / STEPS or 1.0
    step = max(step, whole_range / CODES)
    return float(max(1, round(step))) if scene.voxel_type is np.int16 else step


def pack(parts: list[np.ndarray], low: float, step: float) -> bytes:
    """Compress an image as two bytes per voxel, all low bytes first, and labels as one byte.

    ``parts`` are image and masks; the image's values become steps above ``low``. Predicting voxels
    from their neighbours, as in PNG, does not help, because of a CT's noise.
    """
    image, *masks = parts
    codes = np.rint((image - low) / step).astype(np.uint16)
    low_bytes, high_bytes = codes.astype(np.uint8), (codes >> 8).astype(np.uint8)
    planes = [low_bytes, high_bytes, *masks]
    return zlib.compress(b"".join(plane.tobytes() for plane in planes), COMPRESSION)
