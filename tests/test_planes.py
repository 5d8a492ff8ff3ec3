"""Pictures of slices: what can be said of them without looking."""

import io

import numpy as np
import pytest

from unet3d_tutorial.view.planes import compare_planes, show_planes
from unet3d_tutorial.volume import Volume


def one_voxel(where: int, spacing_mm: float = 2.0) -> Volume:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[where, where, where] = 1
    return Volume(labels, np.diag([spacing_mm] * 3 + [1.0]))


def test_rows_on_one_grid_show_the_same_planes() -> None:
    """Two labels of one image are compared slice by slice; another grid has planes of its own."""
    low, high, other = one_voxel(5), one_voxel(15), one_voxel(15, 3.0)
    figure = compare_planes([(str(n), label, label) for n, label in enumerate((low, high, other))])
    depths = [axis.get_title().split(", ")[1] for axis in figure.axes]
    assert depths == ["at 10 mm"] * 6 + ["at 45 mm"] * 3


def test_a_mask_may_have_its_axes_in_another_order_than_the_image() -> None:
    image = np.random.default_rng(0).normal(-500, 300, (12, 10, 8))
    label = (np.indices(image.shape).sum(axis=0) > 15).astype(np.uint8)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    swapped = Volume(label.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]])

    def picture(mask: Volume) -> bytes:
        file = io.BytesIO()
        show_planes(Volume(image, affine), mask).savefig(file, format="raw")
        return file.getvalue()

    assert picture(swapped) == picture(Volume(label, affine))


def test_volumes_that_do_not_belong_together_are_refused() -> None:
    scan = one_voxel(5)
    with pytest.raises(ValueError, match=r"expected a 3-D volume .* found shape \(20, 20\)"):
        show_planes(Volume(scan.array[0], scan.affine))
    with pytest.raises(ValueError, match=r"of shape \(20, 20, 20\), found \(19, 20, 20\)"):
        show_planes(scan, Volume(scan.array[1:], scan.affine))
    with pytest.raises(ValueError, match=r"position: expected a voxel .* found \(20, 0, 0\)"):
        show_planes(scan, position=(20, 0, 0))
