"""What a voxel's HU say, the largest piece, the holes, and pieces of air.

A piece of air goes to the structure that nearly fills it, and to none if walls, shares or distance
speak against it.
"""

import numpy as np
import pytest

from unet3d_tutorial.config import Config
from unet3d_tutorial.inference import segment
from unet3d_tutorial.postprocessing import (
    HU_GAIN,
    clean,
    fill_holes,
    hu_scores,
    keep_largest_component,
    whole_air,
)
from unet3d_tutorial.predict.evaluate import segment_all
from unet3d_tutorial.transforms import Orientation
from unet3d_tutorial.volume import Volume

# ------------------------------------------------------------------------------- the voxel's own HU


def test_the_gain_of_hu_scores_is_its_largest():
    scores = hu_scores(np.arange(-3100, 3000))
    assert (scores[1:] - scores[0]).max() == pytest.approx(HU_GAIN)


def test_hu_scores_are_limited_and_half_as_strong_for_the_trachea():
    background, left, right, trachea = hu_scores(
        np.array([[-3024, -600, -400, -100, 200, 3000]], np.int16)
    )
    assert background[0] == pytest.approx([-2 / 3, -2 / 3, 0, 0, 0, 0])
    assert left[0] == pytest.approx([0, 0, 0, -1, -2, -2])
    assert np.array_equal(left, right) and np.array_equal(trachea, left / 2)
    assert np.isfinite(hu_scores(np.array([[np.nan]]))).all()


# ---------------------------------------------------------------------------------------- the holes


def test_holes_are_filled_with_the_structure_around_them():
    labels = np.zeros((14, 14, 14), np.uint8)
    labels[1:8, 1:8, 1:8] = 1
    labels[3:5, 3:5, 3:5] = 0  # enclosed
    labels[2, 2, 2] = 3  # enclosed, but another structure
    labels[6, 6, 5:8] = 0  # open at one end
    labels[9:13, 9:13, 0:4] = 2
    labels[10:12, 10:12, 0:2] = 0  # open towards the edge of the array
    before, expected = labels.copy(), labels.copy()
    expected[3:5, 3:5, 3:5] = 1
    filled = fill_holes(labels)
    assert np.array_equal(filled, expected) and filled.dtype == np.uint8
    assert np.array_equal(labels, before)
    assert not fill_holes(np.zeros((3, 3, 3), np.uint8)).any()


# -------------------------------------------------------------------------------- the largest piece


def test_largest_piece_of_each_structure():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[1:5, 1:5, 1:5] = 1
    labels[5, 5, 5] = 1  # touches by a corner: belongs
    labels[8:10, 8:10, 8:10] = 1
    labels[0, 11, 0:3] = 3
    labels[11, 11, 0:2] = 3
    before = labels.copy()
    kept = keep_largest_component(labels)
    expected = before.copy()
    expected[8:10, 8:10, 8:10] = 0
    expected[11, 11, 0:2] = 0
    assert np.array_equal(kept, expected) and kept.dtype == np.uint8
    assert np.array_equal(labels, before)
    assert not keep_largest_component(np.zeros((3, 3, 3), np.uint8)).any()


# ------------------------------------------------------------------------------ whole pieces of air

SPACING_MM = (1.0, 1.0, 5.0)


def chest() -> tuple[np.ndarray, np.ndarray]:
    """HU and labels, axes R, A, S: two lungs, and between them a trachea with a wall of one voxel,
    beside the right lung.
    """
    hu, labels = np.full((80, 50, 6), 40, np.int16), np.zeros((80, 50, 6), np.uint8)
    for value, box in ((1, np.s_[5:30, 10:40]), (2, np.s_[46:75, 10:40]), (3, np.s_[35:45, 20:30])):
        hu[box], labels[box] = -900, value
    return hu, labels


def mended(hu: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return whole_air(labels, Volume(hu, np.diag([*SPACING_MM, 1.0])))


def test_a_right_mask_stays_and_its_input_too() -> None:
    hu, labels = chest()
    before = labels.copy()
    found = mended(hu, labels)
    assert np.array_equal(found, labels) and found is not labels and np.array_equal(labels, before)
    assert found.dtype == np.uint8 and not mended(hu, np.zeros_like(labels)).any()


def test_air_of_the_trachea_that_was_given_to_a_lung_and_the_reverse() -> None:
    hu, labels = chest()
    wrong = labels.copy()
    wrong[42:45, 20:30] = 2  # the part of the airway that lies beside the lung
    wrong[46:48, 22:26, 1] = 3  # and in one slice a corner of the lung, beyond the wall
    assert np.array_equal(mended(hu, wrong), labels)


def test_where_the_wall_cannot_be_seen_the_network_decides() -> None:
    hu, labels = chest()
    hu[45] = -900
    assert np.array_equal(mended(hu, labels), labels)


def test_what_is_labelled_trachea_and_is_tissue_stays() -> None:
    hu, labels = chest()
    labels[34:46, 19:31][labels[34:46, 19:31] == 0] = 3  # the wall
    assert np.array_equal(mended(hu, labels), labels)


def test_a_hole_in_a_lung_is_filled_up_to_its_vessels() -> None:
    hu, labels = chest()
    hu[60:63, 20:23] = 30
    wrong = labels.copy()
    wrong[55:66, 15:28], labels[60:63, 20:23] = 0, 0
    assert np.array_equal(mended(hu, wrong), labels)


def test_a_lung_of_which_little_is_labelled_and_air_around_the_body_stay() -> None:
    hu, labels = chest()
    labels[50:75, 10:40] = 0  # a seventh of the right lung is left
    # A little "lung" in the air before the chest, which the slice's border cuts.
    labels[10, 1:3], hu[:, :4] = (1, -1000)
    assert np.array_equal(mended(hu, labels), labels)


def test_left_and_right_are_not_exchanged() -> None:
    hu, labels = chest()
    labels[50:55, 20:25] = 1
    hu[29:46, 12:14], labels[30:46, 12:14] = -900, 0  # the lungs touch in front of the trachea
    found = mended(hu, labels)
    assert np.array_equal(found == 1, labels == 1) and np.array_equal(
        found[labels == 2], labels[labels == 2]
    )


@pytest.mark.parametrize("codes", ["LPS", "SAR", "AIL"])
def test_axial_slices_are_found_in_any_orientation(codes) -> None:
    hu, labels = chest()
    wrong = labels.copy()
    wrong[42:45, 20:30], wrong[55:66, 15:28] = 2, 0
    affine = np.diag([*SPACING_MM, 1.0])
    image, mask = Orientation(codes)(Volume(hu, affine), Volume(wrong, affine))
    found = whole_air(mask.array, image)
    assert np.array_equal(Orientation("RAS")(Volume(found, image.affine), None)[0].array, labels)


def test_distance_is_in_millimetres() -> None:
    """Within 6 mm: in voxels of 3 mm the strip of the lung that is seen has two columns."""
    hu, labels = chest()
    hu[45] = -900  # no wall: the strip and the trachea are one piece
    coarse = np.diag([3.0, 3.0, 5.0, 1.0])
    labels[42:45, 20:30] = 2
    assert not np.array_equal(whole_air(labels, Volume(hu, coarse)), mended(hu, labels))


def test_it_is_a_setting_and_for_the_four_classes_only() -> None:
    hu, labels = chest()
    image, wrong = Volume(hu, np.diag([*SPACING_MM, 1.0])), labels.copy()
    wrong[55:66, 15:28] = 0
    assert np.array_equal(clean(wrong, image, Config()), labels)
    assert np.array_equal(
        clean(wrong, image, Config().override(["inference.whole_air=false"])), wrong
    )
    lungs = Config().override(
        ["data.upper_limit=4", "model.num_classes=3", "inference.hu_weight=0"]
    )
    wrong[wrong == 3] = 0
    assert np.array_equal(clean(wrong, image, lungs), wrong)


def test_scores_are_those_of_what_a_prediction_gives() -> None:
    hu, labels = chest()
    image = Volume(np.repeat(hu, 5, axis=2), np.eye(4))
    config = Config().override(["inference.roi_size=[32, 32, 32]", "data.spacing_mm=null"])

    def network(batch: np.ndarray) -> np.ndarray:
        return np.stack(
            [np.where(batch[:, 0] < 0.3, logit, -logit) for logit in (-5.0, 4.0, 3.0, 2.0)], axis=1
        )

    masks = segment_all(image, network, config)
    assert np.array_equal(masks["network, cleaned"].array, segment(image, network, config).array)
    assert not np.array_equal(masks["network, cleaned"].array, masks["network, raw"].array)
