"""Figures: what can be said of them without looking."""

import numpy as np

from unet3d_tutorial.view.figures import compare_planes, loss_curves
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


def test_the_curves_of_a_run_are_of_all_its_structures() -> None:
    names = ["left lung", "label 4", "label 5", "label 6"]
    figure = loss_curves(
        {"step": [0, 1], "loss": [2.0, 1.0]},
        {"step": [1, 2], **{name: [0.1, 0.2] for name in names}},
    )
    assert [line.get_label() for line in figure.axes[1].lines] == names
