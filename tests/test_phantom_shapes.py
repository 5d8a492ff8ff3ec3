"""The shapes that phantoms are painted with: distances in mm, negative inside."""

import numpy as np
import pytest

from unet3d_tutorial.phantom.canvas import Canvas
from unet3d_tutorial.phantom.field_of_view import FieldOfView
from unet3d_tutorial.phantom.patient import FAMILIES, Patient
from unet3d_tutorial.phantom.shapes import ellipsoid, ramp, superellipse, tube


def points(*rows: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y, z = np.array(rows, float).T
    return x, y, z


def test_a_ball_is_right_everywhere_and_an_ellipsoid_on_its_surface() -> None:
    origin = np.zeros(3)
    places = points((0, 0, 0), (3, 4, 0), (0, 0, 20))
    assert ellipsoid(places, origin, np.full(3, 10.0)) == pytest.approx([-10, -5, 10])
    surface = points((10, 0, 0), (0, 20, 0), (0, 0, 30))
    assert ellipsoid(surface, origin, np.array([10.0, 20, 30])) == pytest.approx([0, 0, 0])


def test_a_tube_follows_its_path_and_ends_round() -> None:
    path = np.array([[0.0, 0, 0], [10, 0, 0], [10, 10, 0]])
    places = points((5, 0, 0), (5, 0, 3), (10, 13, 4), (-3, 4, 0))
    assert tube(places, path, 2.0) == pytest.approx([-2, 1, 3, 3])


def test_a_superellipse_with_exponent_2_is_an_ellipse_and_a_larger_one_is_squarer() -> None:
    x, y = np.array([10.0, 0, 8.5]), np.array([0.0, 10, 8.5])
    assert superellipse(x, y, 10, 10, 2.0)[:2] == pytest.approx([0, 0])
    corner = [superellipse(x, y, 10, 10, exponent)[2] for exponent in (2.0, 8.0)]
    assert corner[0] > 0 > corner[1]


def test_a_ramp_is_level_at_both_ends() -> None:
    values = ramp(np.array([-5.0, 0, 1, 2, 9]), 0, 2)
    assert values == pytest.approx([0, 0, 0.5, 1, 1])


def test_painting_blends_by_the_share_of_a_voxel_and_labels_from_one_half() -> None:
    canvas = Canvas(FieldOfView((4, 1, 1), 2.0, np.zeros(3)))
    canvas.paint(canvas.x - 0.5, 0.0, label=1)  # the surface is at x = 0.5 mm
    assert canvas.x.ravel().tolist() == [-3, -1, 1, 3]
    assert canvas.hu.ravel().tolist() == [0, 0, -750, -1000]
    assert canvas.label.ravel().tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_of_view_holds_both_lungs_from_tops_to_domes(family: str) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        patient = Patient.draw(rng, family)
        view = FieldOfView.draw(patient, rng, spacing_mm=4.0)
        width, depth, height = np.array(view.shape) * 4.0
        assert width == depth and 238 <= width <= 502
        assert view.centre[2] - height / 2 < patient.domes.min()
        assert view.centre[2] + height / 2 > patient.apex - 15
