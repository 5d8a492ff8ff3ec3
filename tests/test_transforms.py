"""Transforms: image, label and affine stay in step, and no input is changed.

Bad input is refused by name.
"""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from unet3d_tutorial.config import Config
from unet3d_tutorial.files.nifti import save_volume
from unet3d_tutorial.transforms import (
    AddPosition,
    CenterCrop,
    CenterOnBody,
    ClipHU,
    Compose,
    ConvertLabel,
    CropForeground,
    ExpandChannel,
    LoadData,
    OneHot,
    Orientation,
    Pad,
    RandomCropSamples,
    ScaleIntensityRange,
    Spacing,
    grid_steps,
    input_steps,
    linear_weights,
)
from unet3d_tutorial.volume import Volume


def pair(shape=(12, 10, 8), affine=None, seed=0) -> tuple[Volume, Volume]:
    rng = np.random.default_rng(seed)
    affine = np.diag([-2.0, -2.0, 3.0, 1.0]) if affine is None else affine
    image = rng.integers(-1000, 1000, shape).astype(np.int16)
    return Volume(image, affine), Volume(rng.integers(0, 7, shape).astype(np.uint8), affine)


def positions(volume: Volume) -> np.ndarray:
    """World position in mm of every voxel, ``(I, J, K, 3)``."""
    index = np.stack(
        np.meshgrid(*(np.arange(n) for n in volume.array.shape[-3:]), indexing="ij"), axis=-1
    )
    return index @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def oblique_affine(angles, spacing, flips, order) -> np.ndarray:
    """Axes turned by some degrees, of some spacing, in some order, that point either way."""
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    columns = rotation * spacing * flips
    return nib.affines.from_matvec(columns[:, order], [1.0, -2.0, 3.0])


affines = st.builds(
    oblique_affine,
    st.tuples(*[st.floats(-20, 20)] * 3),
    st.tuples(*[st.floats(0.5, 4)] * 3),
    st.tuples(*[st.sampled_from([-1, 1])] * 3),
    st.permutations([0, 1, 2]),
)


@settings(max_examples=60, deadline=None)
@given(affine=affines, axcodes=st.sampled_from(["RAS", "LPS", "SAR", "AIL"]))
def test_orientation_moves_no_voxel_in_the_patient(affine, axcodes):
    image, label = pair((5, 4, 3), affine)
    turned, turned_label = Orientation(axcodes)(*ExpandChannel()(image, label))
    assert turned.axis_codes == axcodes
    for before, after in ((image, turned), (label, turned_label)):
        assert _same_places(before, after)


def _same_places(before: Volume, after: Volume) -> bool:
    """Whether two volumes hold the same values at the same positions in the patient."""
    rows = []
    for volume in (before, after):
        table = np.column_stack(
            [positions(volume).reshape(-1, 3).round(3) + 0.0, volume.array.ravel()]
        )
        rows.append(table[np.lexsort(table.T[::-1])])
    return np.allclose(*rows, atol=2e-3)


@settings(max_examples=30, deadline=None)
@given(affine=affines)
def test_orientation_is_undone_by_its_inverse(affine):
    image, label = pair((5, 4, 3), affine)
    back, back_label = Orientation(image.axis_codes)(*Orientation("RAS")(image, label))
    assert np.array_equal(back.array, image.array) and np.array_equal(back_label.array, label.array)
    assert np.allclose(back.affine, affine, atol=1e-9)


def test_spacing_keeps_a_linear_field_where_it_is():
    """A field that is linear in world coordinates must have the same value at the same place on the
    new grid.
    """
    affine = nib.affines.from_matvec(np.diag([-1.0, 2.0, 2.5]), [30, -20, 5])
    image = Volume(np.zeros((40, 30, 24), np.float32), affine)
    world = positions(image)
    image = Volume((world @ [1.0, -2.0, 0.5]).astype(np.float32), affine)
    new, _ = Spacing((3.0, 1.5, 4.0))(image)
    assert new.spacing_mm == pytest.approx((3.0, 1.5, 4.0)) and new.array.shape == (13, 40, 15)
    inner = (slice(3, -3),) * 3
    assert np.allclose(new.array[inner], (positions(new) @ [1.0, -2.0, 0.5])[inner], atol=1e-3)


def test_spacing_agrees_with_scipy_where_no_smoothing_is_needed():
    image, _ = pair((9, 8, 7), np.eye(4))
    new, _ = Spacing((0.5, 0.8, 1.0))(image)
    place = [
        (np.arange(n) + 0.5) * r - 0.5
        for n, r in zip(new.array.shape, (0.5, 0.8, 1.0), strict=True)
    ]
    expected = ndimage.map_coordinates(
        image.array.astype(float), np.meshgrid(*place, indexing="ij"), order=1, mode="nearest"
    )
    assert np.allclose(new.array, expected, atol=1e-2)


def test_spacing_gives_labels_no_new_value_and_keeps_equal_grids():
    image, label = pair()
    _, coarse = Spacing((4, 4, 4))(image, label)
    assert set(np.unique(coarse.array)) <= set(np.unique(label.array))
    same, same_label = Spacing(image.spacing_mm)(image, label)
    assert same is image and same_label is label


def test_linear_weights_hit_samples_and_stay_within_ends():
    values = np.array([1.0, 3.0, 7.0], np.float32)
    assert (linear_weights(np.array([-1.0, 0.0, 0.5, 2.0, 9.0]), 3) @ values).tolist() == [
        1,
        1,
        2,
        7,
        7,
    ]
    assert (linear_weights(np.array([0.0, 2.0]), 1) @ values[:1]).tolist() == [1, 1]


def test_spacing_smooths_before_it_thins_out():
    """A pattern finer than the new grid must fade to its mean, wherever the grid points fall."""
    stripes = np.tile(np.array([-1000.0, 1000.0], np.float32), 30)
    image = Volume(np.broadcast_to(stripes, (4, 4, 60)).copy(), np.eye(4))
    coarse, _ = Spacing((1, 1, 3))(image)
    assert np.abs(coarse.array[..., 2:-2]).max() < 60
    flat, _ = Spacing((2.5, 3, 3))(Volume(np.full((9, 9, 9), 40, np.int16), np.eye(4)))
    assert np.allclose(flat.array, 40, atol=1e-3)


def test_scaling_by_hand():
    image = Volume(np.array([-2000, -1000, -300, 400, 3000], np.int16).reshape(5, 1, 1), np.eye(4))
    clipped, _ = ScaleIntensityRange(-1000, 400)(image)
    assert clipped.array.dtype == np.float32 and clipped.array.ravel().tolist() == [0, 0, 0.5, 1, 1]
    free, _ = ScaleIntensityRange(-1000, 400, -1, 1, is_clip=False)(image)
    assert free.array.ravel()[[1, 2, 3]].tolist() == [-1, 0, 1] and free.array[0] < -1
    with pytest.raises(ValueError, match="src_min: expected a value below src_max = 0, found 0"):
        ScaleIntensityRange(0, 0)


def test_convert_label_and_one_hot():
    _, label = pair()
    _, classes = ConvertLabel(3, 5)(None, label)
    expected = np.select([label.array == 3, label.array == 4, label.array == 5], [1, 2, 3], 0)
    assert np.array_equal(classes.array, expected)
    image, classes = ExpandChannel()(classes, classes)
    _, hot = OneHot(4)(image, classes)
    assert hot.array.shape == (4, 12, 10, 8) and hot.array.dtype == np.float32
    assert np.array_equal(hot.array.argmax(axis=0), expected) and (hot.array.sum(axis=0) == 1).all()
    with pytest.raises(ValueError, match="expected values below 3, found 3"):
        OneHot(3)(image, classes)
    with pytest.raises(ValueError, match="add ExpandChannel"):
        OneHot(4)(image, label)


@pytest.mark.parametrize(
    ("values", "limits", "refused"),
    [
        ([0, 1, 2, 3], (3, 5), True),
        ([0, 1], (3, 5), True),
        ([1, 3], (3, 5), True),  # the package's own masks
        ([0, 1, 2, 3], (3, 4), True),
        ([0, 1, 2, 3], (5, 5), True),
        ([0, 3, 4, 5], (3, 5), False),
        ([0], (3, 5), False),
        ([0, 3], (3, 5), False),
        ([0, 1, 2, 4], (3, 5), False),  # LUNA16's
        ([3, 4, 5], (5, 5), False),
        ([3], (5, 5), False),
        ([0, 1, 2, 3], (1, 3), False),
        ([0, 1, 2, 3], (2, 3), False),
    ],
)
def test_masks_of_classes_are_not_taken_for_those_of_luna16(values, limits, refused):
    label = Volume(np.array(values, np.uint8).reshape(-1, 1, 1), np.eye(4))
    if refused:
        with pytest.raises(
            ValueError,
            match="found the classes 1, 2 and 3; .* set data.lower_limit=1 data.upper_limit=3",
        ):
            ConvertLabel(*limits)(None, label)
    else:
        _, found = ConvertLabel(*limits)(None, label)
        low, high = limits
        assert found.array.ravel().tolist() == [
            value - low + 1 if low <= value <= high else 0 for value in values
        ]


def test_clip_hu_replaces_padding_and_nan():
    image = Volume(
        np.array([-3024.0, np.nan, -1024.0, 50.0], np.float32).reshape(4, 1, 1), np.eye(4)
    )
    assert ClipHU()(image)[0].array.ravel().tolist() == [-1024, -1024, -1024, 50]
    whole = Volume(np.array([-3024, 7], np.int16).reshape(2, 1, 1), np.eye(4))
    assert ClipHU()(whole)[0].array.dtype == np.int16


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.int8])
def test_clip_hu_leaves_types_without_such_values_alone(kind):
    image = Volume(np.array([0, 7, 100], kind).reshape(3, 1, 1), np.eye(4))
    assert ClipHU()(image)[0].array.ravel().tolist() == [0, 7, 100]


def test_padding_keeps_places_and_values():
    image, label = ExpandChannel()(*pair((5, 20, 6)))
    padded, padded_label = Pad((8, 16, 16))(image, label)
    assert padded.array.shape == padded_label.array.shape == (1, 8, 20, 16)
    assert np.array_equal(padded.array[0, 1:6, :, 5:11], image.array[0])
    assert padded.array[0, 0].max() == image.array.min() and padded_label.array[0, 0].max() == 0
    assert np.allclose(positions(padded)[1, 0, 5], positions(image)[0, 0, 0])


@settings(max_examples=40, deadline=None)
@given(
    affine=affines,
    body=st.tuples(*[st.tuples(st.integers(0, 6), st.integers(1, 6))] * 3),
    margin=st.integers(0, 4),
)
def test_cropping_the_foreground_keeps_all_of_it_in_its_place(affine, body, margin):
    image, label = ExpandChannel()(*pair((12, 12, 12), affine))
    box = tuple(slice(first, first + size) for first, size in body)
    hu = np.full(image.array.shape, -1000, np.int16)
    hu[0][box] = 1 + image.array[0][box] % 50
    cropped, cropped_label = CropForeground(-500, margin)(Volume(hu, affine), label)
    first = [max(place.start - margin, 0) for place in box]
    size = [min(place.stop + margin, 12) - f for place, f in zip(box, first, strict=True)]
    assert cropped.array.shape == cropped_label.array.shape == (1, *size)
    assert (cropped.array > 0).sum() == (hu > 0).sum()
    assert np.allclose(cropped.affine @ [0, 0, 0, 1], affine @ [*first, 1])
    inside = (0, *(slice(f, f + n) for f, n in zip(first, size, strict=True)))
    assert np.array_equal(cropped_label.array[0], label.array[inside])


def test_nothing_to_crop():
    image, label = pair()
    assert CropForeground(above_hu=5000)(image, label) == (image, label)
    assert CenterCrop((99, 99, 99))(image)[0].array.shape == image.array.shape
    middle, _ = CenterCrop((4, 4, 4))(image)
    assert np.array_equal(middle.array, image.array[4:8, 3:7, 2:6])
    assert np.allclose(middle.affine @ [0, 0, 0, 1], image.affine @ [4, 3, 2, 1])


def test_a_share_of_the_crops_is_centred_on_structures_each_equally_often():
    label = np.zeros((1, 60, 60, 60), np.uint8)
    # A large one, a small one, and no 2.
    label[0, 5:25, 20:40, 20:40], label[0, 50:52, 30:32, 30:32] = (1, 3)
    image = Volume(np.zeros(label.shape, np.int16), np.eye(4))
    crop = RandomCropSamples((6, 6, 6), 400, seed=1, foreground=0.5)
    _, labels = crop(image, Volume(label, np.eye(4)))
    centres = labels.array[:, 0, 3, 3, 3]
    by_chance = 0.5 * (label > 0).mean()
    assert (centres == 1).mean() == pytest.approx(0.25 + by_chance, abs=0.08)
    assert (centres == 3).mean() == pytest.approx(0.25, abs=0.08)
    _, empty = crop(image, Volume(np.zeros_like(label), np.eye(4)))
    assert empty.array.max() == 0


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(3, 30)] * 3),
    roi=st.tuples(*[st.integers(4, 24)] * 3),
    seed=st.integers(0, 99),
    foreground=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_crops_lie_inside_and_image_and_label_stay_together(shape, roi, seed, foreground):
    index = np.arange(np.prod(shape), dtype=np.int32).reshape(1, *shape) + 1
    image, label = Volume(index, np.eye(4)), Volume(index, np.eye(4))
    crop, crop_label = RandomCropSamples(roi, 2, seed, foreground)(image, label)
    assert crop.array.shape == (2, 1, *roi)
    inside = crop_label.array > 0
    assert np.array_equal(crop.array[inside], crop_label.array[inside])
    # The minimum fills the padding.
    assert (crop.array[~inside] == 1).all() if (~inside).any() else True
    corner = (
        crop.array[0, 0][tuple(max(r - n, 0) // 2 for n, r in zip(shape, roi, strict=True))] - 1
    )
    place = np.array(np.unravel_index(corner, shape))
    first = np.array([max(r - n, 0) // 2 for n, r in zip(shape, roi, strict=True)])
    assert np.allclose(crop.affine[:3, :3] @ first + crop.affine[:3, 3], place)


RANDOM = [
    RandomCropSamples((4, 4, 4), 2),
    RandomCropSamples((4, 4, 4), 2, foreground=1),
    AddPosition(jitter=True),
]


@pytest.mark.parametrize("step", RANDOM, ids=lambda step: type(step).__name__)
def test_random_steps_repeat_with_their_seed_and_differ_without(step):
    image, label = ExpandChannel()(*pair())
    first, again = (step.set_random_state([1, 2])(image, label)[0].array for _ in range(2))
    other = step.set_random_state([1, 3])(image, label)[0].array
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize(
    "step",
    [
        *RANDOM,
        Orientation(),
        Spacing((3, 3, 3)),
        ScaleIntensityRange(-1000, 400),
        ClipHU(),
        Pad((16, 16, 16)),
        CenterCrop((5, 5, 5)),
        CropForeground(),
        CenterOnBody(),
        ConvertLabel(),
        OneHot(7),
    ],
    ids=lambda step: type(step).__name__,
)
def test_no_step_changes_its_input(step):
    image, label = ExpandChannel()(*pair())
    kept = image.array.copy(), label.array.copy(), image.affine.copy()
    step(image, label)
    assert np.array_equal(image.array, kept[0]) and np.array_equal(label.array, kept[1])
    assert np.array_equal(image.affine, kept[2])
    assert step(image, None)[1] is None


def test_position_is_the_distance_from_the_middle_of_the_body():
    hu = np.full((21, 5, 5), -1000, np.int16)
    hu[6:11] = 40  # tissue centred on index 8
    image = Volume(hu[None], np.diag([2.0, 2.0, 2.0, 1.0]))
    centred, _ = CenterOnBody()(image)
    both, _ = AddPosition()(centred)
    assert both.array.shape == (2, 21, 5, 5)
    assert both.array[1, :, 2, 2] == pytest.approx((np.arange(21) - 8) * 0.02, abs=1e-6)
    assert np.array_equal(both.array[0], hu)


def test_compose_seeds_every_step_differently():
    image, _ = ExpandChannel()(*pair())
    steps = Compose([AddPosition(jitter=True), AddPosition(jitter=True)]).set_random_state(5)
    steps(image)
    assert steps.steps[0].rng.normal() != steps.steps[1].rng.normal()


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SAR"])
def test_the_whole_way_gives_the_same_network_input_for_every_array_order(axcodes):
    config = Config.preset("quick").override(["data.roi_size=[16, 16, 16]"])
    image, _ = pair((30, 24, 20), np.diag([4.0, 4.0, 4.0, 1.0]))
    turned, _ = Orientation(axcodes)(image)
    results = [
        Compose([*grid_steps(config.data), CenterOnBody(), *input_steps(config.data)])(volume)[0]
        for volume in (image, turned)
    ]
    assert np.allclose(results[0].array, results[1].array, atol=1e-5)
    assert np.allclose(results[0].affine, results[1].affine, atol=1e-4)


def test_loading_names_the_file_that_is_wrong(tmp_path):
    image, label = pair()
    save_volume(image, tmp_path / "a.nii.gz")
    save_volume(label, tmp_path / "b.nii.gz")
    loaded, loaded_label = LoadData()(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    assert np.array_equal(loaded.array, image.array) and loaded_label.array.dtype == np.uint8
    save_volume(Volume(label.array[1:], label.affine), tmp_path / "short.nii.gz")
    save_volume(Volume(label.array, label.affine + np.eye(4)), tmp_path / "moved.nii.gz")
    with pytest.raises(
        ValueError,
        match=r"short.nii.gz: expected .*a.nii.gz's shape \(12, 10, 8\), found \(11, 10, 8\)",
    ):
        LoadData()(tmp_path / "a.nii.gz", tmp_path / "short.nii.gz")
    with pytest.raises(
        ValueError,
        match="moved.nii.gz: expected .*a.nii.gz's affine .*, found a grid [0-9.]+ mm away",
    ):
        LoadData()(tmp_path / "a.nii.gz", tmp_path / "moved.nii.gz")
    with pytest.raises(FileNotFoundError, match="none.nii.gz"):
        LoadData()(tmp_path / "none.nii.gz")


def test_a_label_that_lies_beside_its_image_by_rounding_takes_the_images_grid(tmp_path):
    image, label = pair()
    save_volume(image, tmp_path / "a.nii.gz")
    shifted = label.affine.copy()
    shifted[0, 3] += 0.02
    save_volume(Volume(label.array, shifted), tmp_path / "b.nii.gz")
    loaded, loaded_label = LoadData()(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    assert np.array_equal(loaded_label.affine, loaded.affine) and np.array_equal(
        loaded_label.array, label.array
    )


@pytest.mark.parametrize("axcodes", ["RAR", "RA", "XYZ"])
def test_axis_codes_must_name_each_direction_once(axcodes):
    with pytest.raises(ValueError, match="axcodes: expected"):
        Orientation(axcodes)
