"""The classical baseline on a chest made of boxes."""

import nibabel as nib
import numpy as np
import pytest

from unet3d_tutorial.baseline import classical_baseline, close_slices
from unet3d_tutorial.evaluation import evaluate
from unet3d_tutorial.volume import Volume


def chest(touching=False):
    """A box-shaped chest at 4 mm, RAS: body, two lungs, a trachea that forks into them, a table,
    air all round.
    """
    hu = np.full((80, 60, 60), -1000, np.int16)
    truth = np.zeros(hu.shape, np.uint8)
    hu[5:75, 12:50] = 40
    hu[8:72, 4:10] = 100
    hu[10:70, 5:9] = -950  # the table is hollow
    for value, (low, high) in ((1, (10, 37)), (2, (43, 70))):
        truth[low:high, 18:44, 6:46] = value
    truth[38:42, 34:38, 30:60] = 3
    truth[37:43, 34:38, 30:34] = 3  # the main bronchi reach the lungs
    hu[truth > 0] = -850
    hu[truth == 3] = -1000
    if touching:
        hu[37:43, 19:21, 20:24] = -850
    return Volume(hu, np.diag([4.0, 4.0, 4.0, 1.0])), truth


@pytest.fixture(scope="module")
def found_in_chest():
    return classical_baseline(chest()[0])


@pytest.mark.parametrize("touching", [False, True])
def test_baseline_on_a_simple_chest(touching, found_in_chest):
    image, truth = chest(touching)
    result = classical_baseline(image) if touching else found_in_chest
    assert result.array.dtype == np.uint8 and np.array_equal(result.affine, image.affine)
    left, right, trachea = evaluate(result, Volume(truth, image.affine))
    assert left.dice > 0.95 and right.dice > 0.95
    assert trachea.dice > 0.7
    assert left.hd95_mm <= 8 and right.hd95_mm <= 8, "within two voxels"
    assert not result.array[:, :12].any(), "the hollow table is not lung"


def test_baseline_finds_the_same_in_another_orientation(found_in_chest):
    image, _ = chest()
    there = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt("IPL")
    )
    turned = nib.Nifti1Image(image.array, image.affine).as_reoriented(there)
    result = classical_baseline(Volume(np.asarray(turned.dataobj), turned.affine))
    back = result.array.transpose(2, 1, 0)[::-1, ::-1, ::-1]
    assert np.array_equal(back, found_in_chest.array)


@pytest.mark.parametrize("hu", [-1000, 40, np.nan])
@pytest.mark.parametrize("shape", [(30, 30, 30), (1, 1, 1), (20, 20, 1)])
def test_baseline_without_a_chest(hu, shape):
    result = classical_baseline(Volume(np.full(shape, hu, np.float32), np.eye(4)))
    assert result.array.shape == shape and not result.array.any()


def test_baseline_with_one_lung():
    image, truth = chest()
    image.array[truth == 1] = 40
    counts = np.bincount(classical_baseline(image).array.ravel(), minlength=4)
    assert counts[1] == 0
    assert counts[2] == pytest.approx((truth == 2).sum(), rel=0.1)


def test_closing_stays_within_a_slice():
    mask = np.zeros((40, 40, 5), bool)
    mask[5:35, 5:35, 1:4] = True
    mask[18:22, 18:22, 2] = False  # a vessel of 8 mm across
    mask[:, :, 3] = False
    closed = close_slices(mask)
    assert closed[18:22, 18:22, 2].all()
    assert not closed[:, :, [0, 3, 4]].any()
    assert (closed[:, :, 1] == mask[:, :, 1]).all()
