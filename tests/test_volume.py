"""A scan is an array and a place: geometry, comparison and printing of volumes."""

import time

import numpy as np
import pytest

from unet3d_tutorial import volume
from unet3d_tutorial.volume import BadScanError, Volume, check_finite, check_same_grid

OBLIQUE = np.array(
    [[0.0, -1.2, 0.3, 11.5], [0.8, 0.0, 0.0, -20.25], [0.0, 0.5, 2.9, 300.0], [0, 0, 0, 1]]
)


def array_of(kind: str, shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    return np.random.default_rng(0).integers(-100, 100, shape).astype(kind)


@pytest.mark.parametrize(
    "affine, codes",
    [
        (np.eye(4), "RAS"),
        (np.diag([-1.0, -1, 1, 1]), "LPS"),
        (np.diag([-1.0, 1, 1, 1]), "LAS"),
        (OBLIQUE, "ALS"),
    ],
)
def test_axis_codes_say_where_each_axis_points(affine: np.ndarray, codes: str):
    assert Volume(array_of("int16"), affine).axis_codes == codes


def test_spacing_is_the_length_of_each_column():
    assert Volume(array_of("int16"), np.diag([-0.7, 0.8, 2.5, 1])).spacing_mm == (0.7, 0.8, 2.5)
    np.testing.assert_allclose(
        Volume(array_of("int16"), OBLIQUE).spacing_mm, (0.8, 1.3, np.hypot(0.3, 2.9))
    )


def test_the_volume_of_a_voxel_heeds_a_tilted_gantry():
    tilted = np.diag([-0.7, -0.7, 5.0, 1.0])
    assert Volume(array_of("int16"), tilted).voxel_ml == pytest.approx(
        0.7 * 0.7 * 5 / 1000, rel=1e-12
    )
    # Each slice further back: a shear, which changes no volume.
    tilted[1, 2] = 5 * np.tan(np.radians(25))
    assert Volume(array_of("int16"), tilted).voxel_ml == pytest.approx(
        0.7 * 0.7 * 5 / 1000, rel=1e-12
    )


# ------------------------------------------------------------------------------------ comparison


def test_volumes_of_the_same_voxels_in_the_same_place_are_equal():
    a, b = (Volume(array_of("int16"), OBLIQUE.copy()) for _ in range(2))
    assert a == b and not a != b and a in [b]


@pytest.mark.parametrize(
    "other",
    [
        Volume(array_of("int16") + 1, OBLIQUE),
        Volume(array_of("int32"), OBLIQUE),
        Volume(array_of("int16")[:-1], OBLIQUE),
        Volume(array_of("int16")[None], OBLIQUE),
        Volume(array_of("int16"), OBLIQUE + 1e-9),
        "a volume",
        (array_of("int16"), OBLIQUE),
        None,
    ],
)
def test_what_differs_is_not_equal(other):
    assert Volume(array_of("int16"), OBLIQUE) != other


def test_not_a_number_is_equal_to_itself_and_to_nothing_else():
    a, b = (Volume(array_of("float32"), np.eye(4)) for _ in range(2))
    a.array[0, 0, 0] = np.nan
    assert a != b
    b.array[0, 0, 0] = np.nan
    assert a == b


def test_an_order_in_memory_makes_no_difference():
    a = Volume(array_of("int16"), np.eye(4))
    assert a == Volume(np.asfortranarray(a.array), a.affine)


def test_volumes_cannot_be_keys_because_their_arrays_can_change():
    with pytest.raises(TypeError, match="unhashable type: 'Volume'"):
        hash(Volume(array_of("int16"), np.eye(4)))


# --------------------------------------------------------------------------------------- printing


def test_a_printed_volume_is_one_line():
    scan = Volume(array_of("int16"), np.diag([-0.703125, -0.703125, 2.5, 1]))
    least, greatest = scan.array.min(), scan.array.max()
    assert (
        str(scan)
        == repr(scan)
        == (
            "Volume(shape (4, 5, 6), type int16, spacing 0.703 x 0.703 x 2.5 mm, axes LPS, "
            f"values {least} to {greatest})"
        )
    )


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (np.full((2, 2, 2), np.nan), "values nan to nan"),
        (np.ones((2, 2, 2), bool), "values 1 to 1"),
        (np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 2, 2), "values 0 to 1"),
        (np.zeros((0, 2, 2)), "axes RAS)"),
        (np.zeros((2, 2, 2), "u1,u1,u1"), "axes RAS)"),
        (np.zeros((2, 2, 2), complex), "axes RAS)"),
    ],
)
def test_every_kind_of_array_can_be_printed(array: np.ndarray, values: str):
    assert values in repr(Volume(array, np.eye(4)))


def test_the_range_of_a_very_large_array_is_left_out():
    large = Volume(np.broadcast_to(np.int16(1), (512, 512, 4096)), np.eye(4))
    start = time.perf_counter()
    text = repr(large)
    assert time.perf_counter() - start < 1
    assert "(512, 512, 4096)" in text and "values" not in text
    assert large.array.size > volume.LARGE_VOXELS > 512 * 512 * 500


def test_jupyter_shows_a_small_table():
    html = Volume(array_of("int16"), OBLIQUE)._repr_html_()
    assert html.startswith("<table>") and html.count("<tr>") == 5 and len(html) < 1000
    assert "<th>axes</th><td>ALS</td>" in html
    odd = Volume(np.zeros((2, 2, 2), "<i2,<i2"), np.eye(4))
    assert "&lt;i2" in odd._repr_html_()


# ------------------------------------------------------------------------------------------ grids


def test_grids_are_compared_by_shape_and_by_their_farthest_corner():
    scan = Volume(np.zeros((11, 11, 11)), np.eye(4))
    check_same_grid("mask", scan.grid, "the scan", scan.grid)
    with pytest.raises(
        BadScanError, match=r"^mask: expected the scan's shape \(11, 11, 11\), found \(4, 5, 6\)$"
    ):
        check_same_grid("mask", Volume(array_of("int16"), np.eye(4)).grid, "the scan", scan.grid)
    # A hundredth more between voxels: nothing at the first, a tenth of a millimetre at the last.
    stretched = np.diag([1.01, 1, 1, 1])
    with pytest.raises(BadScanError, match="^mask: expected the scan's affine .* 0.10 mm away$"):
        check_same_grid("mask", (scan.array.shape, stretched), "the scan", scan.grid)
    check_same_grid("mask", ((5, 5, 5), stretched), "the scan", ((5, 5, 5), np.eye(4)))


def test_channels_do_not_count_for_the_place():
    assert volume.grid_distance_mm((3, 9, 9, 9), np.eye(4), np.diag([1, 1, 2, 1])) == 8


def test_infinite_values_are_counted():
    array = array_of("float32")
    check_finite(array, "a.nii")
    check_finite(array_of("int16"), "a.nii")
    array[0, 0, :3] = np.inf, -np.inf, np.nan
    with pytest.raises(BadScanError, match="^a.nii: expected finite values, found 3 voxels"):
        check_finite(array, "a.nii")
