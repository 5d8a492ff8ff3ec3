"""Resampling along one array axis as a sparse matrix.

A volume is resampled along one axis after the other. Along each axis, every line of voxels is
multiplied by the same matrix, which maps old samples to new ones. The matrix is sparse, because
each new sample depends on only a few old ones.
"""

import numpy as np
from scipy import ndimage, sparse

FULL_WIDTH = 2.355  #: full width at half maximum of a Gaussian, in standard deviations


def linear_weights(positions: np.ndarray, length: int) -> sparse.csr_array:
    """Linear interpolation as a matrix ``(len(positions), length)``.

    Row ``n`` maps ``length`` samples to the value at the fractional index ``positions[n]``; at most
    two of its entries are not 0. Positions outside ``0 .. length - 1`` get the nearest sample.

    >>> weights = linear_weights(np.array([0.25, 9.0]), length=3)
    >>> weights.toarray().tolist()
    [[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]
    """
    positions = np.clip(positions, 0, length - 1)
    lower = np.minimum(positions.astype(int), max(length - 2, 0))
    upper = np.minimum(lower + 1, length - 1)
    upper_share = (positions - lower).astype(np.float32)
    values = np.concatenate([1 - upper_share, upper_share])
    rows = np.tile(np.arange(len(positions)), 2)
    columns = np.concatenate([lower, upper])
    return sparse.csr_array((values, (rows, columns)), shape=(len(positions), length))


def resampling_weights(positions: np.ndarray, length: int, ratio: float) -> sparse.csr_array:
    """Like :func:`linear_weights`, but the samples are smoothed first if the new grid is coarser.

    ``ratio`` is the new distance between samples divided by the old one. If it is above 1, details
    too fine for the new grid would appear as coarse patterns that are not there (aliasing). The
    width of the Gaussian is such that the squared full widths at half maximum of the old voxel and
    of the Gaussian add up to that of the new voxel.
    """
    weights = linear_weights(positions, length)
    if ratio <= 1:
        return weights
    sigma = np.sqrt(ratio**2 - 1) / FULL_WIDTH  # of the Gaussian, in old voxels
    gaussian = ndimage.gaussian_filter1d(np.eye(length), sigma, axis=0, mode="nearest")
    return weights @ sparse.csr_array(gaussian.astype(np.float32))


def apply_along(matrix: sparse.csr_array, array: np.ndarray, axis: int) -> np.ndarray:
    """Multiply every line of an array along ``axis`` by a matrix, which may change its length."""
    axis_first = np.moveaxis(array, axis, 0)
    lines = axis_first.reshape(len(axis_first), -1)
    product = matrix @ lines
    return np.moveaxis(product.reshape(-1, *axis_first.shape[1:]), 0, axis)
