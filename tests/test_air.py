"""Pieces of air go to the structure that nearly fills them, and to none if walls, shares or
distance speak against it.
"""

import numpy as np
import pytest

from unet3d_tutorial.config import Config
from unet3d_tutorial.inference import clean, segment
from unet3d_tutorial.postprocessing import whole_air
from unet3d_tutorial.predict.evaluate import segment_all
from unet3d_tutorial.transforms import Orientation
from unet3d_tutorial.volume import Volume

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
    """Nearer than 6 mm: in voxels of 3 mm the strip of the lung that is looked at has two columns."""
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
