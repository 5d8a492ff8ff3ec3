"""Figures: what can be said of them without looking."""

import numpy as np

from unet3d_tutorial.plotting import compare_planes
from unet3d_tutorial.volume import Volume


def one_voxel(where: int, spacing_mm: float = 2.0) -> Volume:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[where, where, where] = 1
    return Volume(labels, np.diag([spacing_mm] * 3 + [1.0]))


def test_rows_on_one_grid_show_the_same_planes() -> None:
    """Two labels of one image are compared slice by slice; on another grid the planes are its own."""
    low, high, other = one_voxel(5), one_voxel(15), one_voxel(15, 3.0)
    figure = compare_planes([(str(n), label, label) for n, label in enumerate((low, high, other))])
    depths = [axis.get_title().split(", ")[1] for axis in figure.axes]
    assert depths == ["at 10 mm"] * 6 + ["at 45 mm"] * 3
