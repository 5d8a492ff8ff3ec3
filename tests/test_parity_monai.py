"""Our transforms against MONAI's: arrays and affines agree.

Needs MONAI (``pip install -e .[parity]``). Where we differ on purpose, a test says so and holds the
difference down.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from unet3d_tutorial.augment import (
    RandomAffine,
    RandomBlur,
    RandomElastic,
    RandomFlip,
    RandomGamma,
    RandomLowResolution,
    RandomNoise,
    RandomShift,
)
from unet3d_tutorial.files.nifti import save_volume
from unet3d_tutorial.transforms import (
    CenterCrop,
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
)
from unet3d_tutorial.volume import Volume

monai = pytest.importorskip("monai.transforms")
MetaTensor = pytest.importorskip("monai.data").MetaTensor
torch = pytest.importorskip("torch")


def random_volume(seed: int, low: int, high: int) -> Volume:
    """Random voxels ``(1, I, J, K)`` on an oblique, flipped, permuted, anisotropic grid."""
    rng = np.random.default_rng(seed)
    turn = Rotation.from_euler("xyz", rng.uniform(-25, 25, 3), degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = (turn * rng.uniform(0.5, 4, 3) * rng.choice([-1, 1], 3))[:, rng.permutation(3)]
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    shape = rng.integers(low, high + 1, 3)
    return Volume(rng.uniform(-1000, 1000, (1, *shape)).astype(np.float32), affine)


def volumes(low: int = 6, high: int = 16) -> st.SearchStrategy[Volume]:
    return st.integers(0, 10**6).map(lambda seed: random_volume(seed, low, high))


def meta(volume: Volume) -> MetaTensor:
    return MetaTensor(
        torch.from_numpy(np.ascontiguousarray(volume.array)), affine=torch.from_numpy(volume.affine)
    )


def labels_of(volume: Volume) -> Volume:
    return Volume((np.abs(volume.array) // 130).astype(np.uint8), volume.affine)  # 0 to 7


def assert_same(ours: Volume, theirs: MetaTensor, atol: float = 1e-3, inner: int = 0) -> None:
    """Arrays agree ``inner`` voxels away from the border, and affines agree."""
    box = (..., *[slice(inner, -inner or None)] * 3)
    assert ours.array.shape == tuple(theirs.shape)
    assert np.allclose(ours.array[box], theirs.numpy()[box], atol=atol)
    assert np.allclose(ours.affine, theirs.affine.numpy(), atol=1e-3)


many = settings(max_examples=15, deadline=None)


@many
@given(volume=volumes(), axcodes=st.sampled_from(["RAS", "LPS", "SAR", "AIL"]))
def test_orientation(volume, axcodes):
    assert_same(Orientation(axcodes)(volume)[0], monai.Orientation(axcodes=axcodes)(meta(volume)))


@many
@given(volume=volumes(), factors=st.tuples(*[st.integers(1, 3)] * 3))
def test_spacing_to_a_finer_grid(volume, factors):
    """MONAI's default keeps the first voxel's centre in place; with ``scale_extent`` it keeps the
    edges, as we do.
    """
    spacing = tuple(np.divide(volume.spacing_mm, factors))
    label = labels_of(volume)
    new, new_label = Spacing(spacing)(volume, label)
    assert_same(
        new,
        monai.Spacing(spacing, scale_extent=True, padding_mode="border")(meta(volume)),
        atol=0.02,
    )
    # No new voxel half way between two old ones: no ties.
    odd = tuple(2 * (factor // 2) + 1 for factor in factors)
    spacing = tuple(np.divide(volume.spacing_mm, odd))
    _, new_label = Spacing(spacing)(volume, label)
    theirs = monai.Spacing(spacing, mode="nearest", scale_extent=True, padding_mode="border")(
        meta(label)
    )
    assert_same(new_label, theirs, atol=0)


def test_spacing_to_a_coarser_grid_smooths_first_on_purpose():
    """MONAI samples single points, so a fine pattern comes out at full strength; ours fades to the
    mean.
    """
    stripes = np.broadcast_to(np.tile(np.array([-500, 500], np.float32), 30), (1, 6, 6, 60)).copy()
    volume = Volume(stripes, np.eye(4))
    ours, _ = Spacing((1, 1, 3))(volume)
    theirs = monai.Spacing((1, 1, 3), scale_extent=True, padding_mode="border")(
        meta(volume)
    ).numpy()
    assert np.abs(ours.array[..., 1:-1]).max() < 50 and np.abs(theirs[..., 1:-1]).max() > 450


@many
@given(volume=volumes(), clip=st.booleans())
def test_scale_intensity_range(volume, clip):
    ours, _ = ScaleIntensityRange(-500, 400, -1, 2, is_clip=clip)(volume)
    assert_same(ours, monai.ScaleIntensityRange(-500, 400, -1, 2, clip=clip)(meta(volume)))


@many
@given(volume=volumes(), roi=st.tuples(*[st.integers(4, 20)] * 3))
def test_pad_and_centre_crop(volume, roi):
    fill = float(volume.array.min())
    assert_same(Pad(roi)(volume)[0], monai.SpatialPad(roi, value=fill)(meta(volume)))
    assert_same(CenterCrop(roi)(volume)[0], monai.CenterSpatialCrop(roi)(meta(volume)))


@many
@given(volume=volumes(), threshold=st.floats(900, 999), margin=st.integers(0, 3))
def test_crop_foreground(volume, threshold, margin):
    if volume.array.max() <= threshold:
        # On purpose; MONAI gives an empty array.
        assert CropForeground(threshold, margin)(volume)[0] is volume
        return
    theirs = monai.CropForeground(
        select_fn=lambda x: x > threshold, margin=margin, allow_smaller=True
    )(meta(volume))
    assert_same(CropForeground(threshold, margin)(volume)[0], theirs)


@many
@given(volume=volumes(low=8), roi=st.tuples(*[st.integers(2, 8)] * 3), seed=st.integers(0, 99))
def test_crops_at_the_same_corners(volume, roi, seed):
    step = RandomCropSamples(roi, 3, seed)
    corners = step.draw(volume.array.shape)
    crops, _ = step.apply(volume, None, corners)
    theirs = [
        monai.SpatialCrop(roi_start=corner, roi_end=corner + roi)(meta(volume))
        for corner in corners
    ]
    assert np.array_equal(crops.array, np.stack([crop.numpy() for crop in theirs]))
    assert np.allclose(crops.affine, theirs[0].affine.numpy(), atol=1e-6)


@many
@given(volume=volumes(low=8), seed=st.integers(0, 99))
def test_foreground_crops_lie_around_a_voxel_as_monai_places_them(volume, seed):
    label = np.zeros(volume.array.shape, np.uint8)
    place = np.random.default_rng(seed).integers(2, np.array(label.shape[1:]) - 2)
    label[(0, *place)] = 1
    crops, _ = RandomCropSamples((4, 4, 4), 1, seed, foreground=1)(
        volume, Volume(label, volume.affine)
    )
    theirs = monai.RandCropByPosNegLabel((4, 4, 4), torch.from_numpy(label), pos=1, neg=0)(
        meta(volume)
    )[0]
    assert np.array_equal(crops.array[0], theirs.numpy())


@many
@given(volume=volumes())
def test_labels(volume):
    label = labels_of(volume)
    _, classes = ConvertLabel(3, 5)(volume, label)
    theirs = monai.MapLabelValue(list(range(8)), [0, 0, 0, 1, 2, 3, 0, 0])(meta(label))
    assert np.array_equal(classes.array, theirs.numpy())
    _, hot = OneHot(4)(volume, classes)
    assert np.array_equal(hot.array, monai.AsDiscrete(to_onehot=4)(meta(classes)).numpy())


@many
@given(volume=volumes())
def test_flip_mirrors_the_patient_on_purpose(volume):
    """The arrays agree. MONAI's affine says that nobody moved; ours says that the patient is now
    his mirror image.
    """
    codes = Orientation("RAS")(volume)[0]
    ours, _ = RandomFlip(chance=1)(codes)
    theirs = monai.Flip(spatial_axis=0)(meta(codes))
    assert np.array_equal(ours.array, theirs.numpy())
    assert np.allclose(ours.affine, np.diag([-1, 1, 1, 1]) @ theirs.affine.numpy(), atol=1e-6)


@many
@given(
    volume=volumes(10, 16),
    angles=st.tuples(*[st.integers(-20, 20)] * 3),
    scale=st.sampled_from([0.8, 1.0, 1.25]),
)
def test_affine(volume, angles, scale):
    """On cubic voxels. MONAI turns voxels, we turn millimetres; and its affine follows, because
    only the grid moves.
    """
    volume = Volume(volume.array / 1000, np.eye(4))
    ours, _ = RandomAffine().apply(volume, None, (np.array(angles), scale))
    options = {
        "rotate_params": tuple(-np.radians(angles)),
        "scale_params": (1 / scale,) * 3,
        "padding_mode": "zeros",
    }
    theirs = monai.Affine(**options, image_only=True)(meta(volume))
    air = float(volume.array.min())
    inner = torch.zeros(volume.array.shape)
    inner[:, 1:-1, 1:-1, 1:-1] = 1
    # Away from the border.
    inside = monai.Affine(**options, image_only=True)(MetaTensor(inner)).numpy() > 0.99
    assert np.allclose(ours.array[inside], theirs.numpy()[inside], atol=1e-4)
    assert np.array_equal(ours.affine, volume.affine) and ours.array.min() >= air - 1e-6


@many
@given(volume=volumes(10, 16), seed=st.integers(0, 99))
def test_elastic_deformation_at_the_same_places(volume, seed):
    """The fields differ on purpose (B-splines that cannot fold;

    MONAI smooths noise). What is sampled there does not.
    """
    volume = Volume(volume.array / 1000, volume.affine)
    step = RandomElastic(seed=seed)
    drawn = step.draw_parameters(volume.array.shape)
    ours, _ = step.apply(volume, None, drawn)
    places = step.places(drawn, volume)
    last = np.reshape(volume.array.shape[1:], (3, 1, 1, 1)) - 1
    grid = np.concatenate([places - last / 2, np.ones((1, *places.shape[1:]))]).astype(np.float32)
    theirs = monai.Resample(padding_mode="zeros")(meta(volume), torch.from_numpy(grid)).numpy()
    inside = ((places > 0) & (places < last)).all(axis=0)
    assert np.allclose(ours.array[0][inside], theirs[0][inside], atol=1e-4)


@many
@given(volume=volumes(low=14, high=18), gamma=st.floats(0.6, 1.6), sigma=st.floats(0.7, 0.9))
def test_intensities(volume, gamma, sigma):
    scaled = (volume.array - volume.array.min()) / np.ptp(volume.array)
    volume = Volume(scaled, volume.affine)
    assert_same(
        RandomGamma().apply(volume, None, np.float32(gamma))[0],
        monai.AdjustContrast(gamma)(meta(volume)),
    )
    # at the border MONAI mixes in zeros, we mirror the image; for a smaller sigma its kernel does
    # not add up to one
    assert_same(
        RandomBlur().apply(volume, None, sigma)[0],
        monai.GaussianSmooth(sigma, approx="sampled")(meta(volume)),
        atol=0.01,
        inner=4,
    )


@many
@given(volume=volumes(), hu=st.floats(-80, 80), std=st.floats(1, 100), seed=st.integers(0, 99))
def test_shift_and_noise(volume, hu, std, seed):
    """A shift is the same to the bit of a float.

    Noise cannot be drawn alike, but it is added alike, and as strong.
    """
    assert_same(
        RandomShift().apply(volume, None, np.float32(hu))[0], monai.ShiftIntensity(hu)(meta(volume))
    )
    theirs = monai.RandGaussianNoise(prob=1, std=std, sample_std=False)
    theirs.set_random_state(seed=seed)
    noisy = theirs(meta(volume))
    assert_same(RandomNoise().apply(volume, None, theirs.noise)[0], noisy)
    ours = RandomNoise(std, chance=1, seed=seed).draw((1, 30, 30, 30))
    # Up to std, on purpose.
    assert 0 <= ours.std() <= 1.05 * std and abs(ours.mean()) < 5 * std / np.sqrt(ours.size)


def test_low_resolution_averages_on_purpose():
    """MONAI picks single voxels, so noise stays as strong as it was; ours averages it away, as
    thicker slices do.
    """
    noise = np.random.default_rng(0).normal(0, 1, (1, 24, 24, 24)).astype(np.float32)
    volume = Volume(noise, np.eye(4))
    ours, _ = RandomLowResolution().apply(volume, None, 2.0)
    theirs = monai.RandSimulateLowResolution(prob=1, zoom_range=(0.5, 0.5))(meta(volume)).numpy()
    assert ours.array.shape == theirs.shape and ours.array.std() < 0.6 * theirs.std()
    smooth = Volume(
        np.broadcast_to(np.linspace(0, 1, 24, dtype=np.float32), (1, 24, 24, 24)).copy(), np.eye(4)
    )
    ours, _ = RandomLowResolution().apply(smooth, None, 2.0)
    theirs = monai.RandSimulateLowResolution(prob=1, zoom_range=(0.5, 0.5))(meta(smooth)).numpy()
    # Nearest is off by up to one of 24 voxels, on each side.
    assert np.abs(ours.array - theirs).max() < 2 / 24


@settings(max_examples=5, deadline=None)
@given(volume=volumes())
def test_from_file_to_input(volume, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    path = save_volume(
        Volume(volume.array[0].astype(np.int16), volume.affine), folder / "scan.nii.gz"
    )
    ours, _ = Compose(
        [LoadData(), ExpandChannel(), Orientation(), ScaleIntensityRange(-500, 1000)]
    )(path)
    theirs = monai.Compose(
        [
            monai.LoadImage(image_only=True),
            monai.EnsureChannelFirst(),
            monai.Orientation(axcodes="RAS"),
            monai.ScaleIntensityRange(-500, 1000, 0, 1, clip=True),
        ]
    )(path)
    assert_same(ours, theirs, atol=1e-5)
