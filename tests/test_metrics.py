"""Overlap and distances: values by hand, equality with MedPy, the contract for empty masks."""

import math

import medpy.metric.binary as medpy
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unet3d_tutorial import metrics
from unet3d_tutorial.book.contract import CONTRACT
from unet3d_tutorial.files.nifti import load_volume
from unet3d_tutorial.sample_ct import SampleUnavailable, fetch

OVERLAPS = (metrics.dice, metrics.jaccard, metrics.precision, metrics.sensitivity)
DISTANCES = (metrics.hd95, metrics.asd, metrics.assd)
NAMES = (
    "dice",
    "jaccard",
    "precision",
    "sensitivity",
    "specificity",
    "volume_difference",
    "relative_volume_difference",
    "surface_dice",
    "hd95",
    "asd",
    "assd",
)


def box(shape, *ranges):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def random_pair(rng):
    """Two masks: blobs, boxes at the border, single voxels or noise; sometimes equal."""
    shape = rng.integers(1, 14, 3)
    field = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0, 2))
    masks = [field > np.quantile(field, rng.uniform(0, 0.95)) for _ in range(2)]
    masks[1] = np.roll(masks[1], rng.integers(-2, 3, 3), (0, 1, 2))
    if rng.random() < 0.2:
        masks[0] = rng.random(shape) < rng.uniform(0.01, 0.99)
    for mask in masks:
        mask.flat[rng.integers(mask.size)] = True  # MedPy refuses empty masks
    return masks[0], masks[1], tuple(rng.uniform(0.3, 5, 3))


def test_by_hand():
    """A 4 x 4 x 4 cube and the same one voxel further along the first axis."""
    a, b = box((10, 8, 8), (1, 5), (2, 6), (2, 6)), box((10, 8, 8), (2, 6), (2, 6), (2, 6))
    assert metrics.dice(a, b) == 2 * 48 / 128
    assert metrics.jaccard(a, b) == 48 / 80
    assert metrics.precision(a, b) == metrics.sensitivity(a, b) == 48 / 64
    # of 56 border voxels each, the 16 of one face lie one step outside the other cube, and none
    # lies further
    assert metrics.hd95(a, b, spacing_mm=(2.5, 1, 1)) == 2.5
    assert metrics.hd95(a, b, spacing_mm=(0.7, 1, 1)) == pytest.approx(0.7)
    far = box((10, 8, 8), (7, 8), (2, 6), (2, 6))
    near = box((10, 8, 8), (3, 4), (2, 6), (2, 6))
    for distance in DISTANCES:  # two parallel plates, 4 voxels apart along the first axis
        assert distance(near, far, spacing_mm=(2.5, 9, 9)) == pytest.approx(10.0)


def test_direction_matters_where_it_should():
    whole, part = box((9, 9, 9), (1, 8), (1, 8), (1, 8)), box((9, 9, 9), (1, 4), (1, 8), (1, 8))
    assert metrics.precision(part, whole) == 1.0
    assert metrics.sensitivity(part, whole) == pytest.approx(3 / 7)
    assert metrics.asd(part, whole, spacing_mm=(1, 1, 1)) < metrics.asd(
        whole, part, spacing_mm=(1, 1, 1)
    )
    for symmetric in (metrics.hd95, metrics.assd):
        assert symmetric(part, whole, spacing_mm=(1, 2, 3)) == symmetric(
            whole, part, spacing_mm=(1, 2, 3)
        )


def same_as_medpy(a, b, spacing_mm):
    for ours, theirs in (
        (metrics.hd95, medpy.hd95),
        (metrics.asd, medpy.asd),
        (metrics.assd, medpy.assd),
    ):
        assert ours(a, b, spacing_mm=spacing_mm) == pytest.approx(
            theirs(a, b, spacing_mm), rel=1e-9, abs=1e-12
        )
    overlaps = (medpy.dc, medpy.jc, medpy.precision, medpy.sensitivity)
    for ours, theirs in zip(OVERLAPS, overlaps, strict=True):
        assert ours(a, b) == pytest.approx(theirs(a, b), rel=1e-9)
    if not b.all():  # MedPy calls it 0 where there is no background
        assert metrics.specificity(a, b) == pytest.approx(medpy.specificity(a, b), rel=1e-9)
    assert metrics.relative_volume_difference(a, b) == pytest.approx(medpy.ravd(a, b), rel=1e-9)


def test_same_as_medpy_on_two_thousand_random_pairs():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        same_as_medpy(*random_pair(rng))


def test_same_as_medpy_on_the_real_ct():
    """The trachea, as it is and grown unevenly, in the box around it (MedPy takes half a minute for
    the whole grid).
    """
    try:
        labels = load_volume(fetch().label)
    except SampleUnavailable as error:
        pytest.skip(str(error))
    reference = labels.array == 3
    box = tuple(
        slice(s.start - 8, s.stop + 8) for s in ndimage.find_objects(reference.view(np.uint8))[0]
    )
    prediction = np.roll(ndimage.binary_dilation(reference[box], iterations=2), 3, axis=1)
    whole = np.zeros_like(reference)
    whole[box] = prediction
    same_as_medpy(prediction, reference[box], labels.spacing_mm)
    for metric in DISTANCES:  # and the rest of the grid changes nothing
        assert metric(whole, reference, spacing_mm=labels.spacing_mm) == metric(
            prediction, reference[box], spacing_mm=labels.spacing_mm
        )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", CONTRACT, ids=lambda case: case.name)
def test_contract(case):
    prediction, reference = case.masks()
    assert tuple(case.expected) == NAMES
    for name, value in case.expected.items():
        found = getattr(metrics, name)(prediction, reference, spacing_mm=case.spacing_mm)
        assert found == pytest.approx(value, rel=1e-12), name
    assert metrics.score(prediction, reference, spacing_mm=case.spacing_mm) == pytest.approx(
        case.expected, rel=1e-12
    )


def test_score_is_each_metric_by_name():
    a, b, spacing_mm = random_pair(np.random.default_rng(5))
    together = metrics.score(a, b, spacing_mm=spacing_mm, tolerance_mm=0.5)
    apart = {name: getattr(metrics, name)(a, b, spacing_mm=spacing_mm) for name in NAMES}
    apart["surface_dice"] = metrics.surface_dice(a, b, spacing_mm=spacing_mm, tolerance_mm=0.5)
    assert set(together) == set(NAMES) and together == pytest.approx(apart, rel=1e-12)


def test_surface_dice_by_hand():
    """Two plates of 16 voxels, 2.5 mm apart but for one voxel that both share."""
    a, b = box((10, 8, 8), (3, 4), (2, 6), (2, 6)), box((10, 8, 8), (4, 5), (2, 6), (2, 6))
    a[4, 2, 2] = True
    assert metrics.surface_dice(a, b, spacing_mm=(2.5, 9, 9), tolerance_mm=2.4) == pytest.approx(
        2 / 33
    )
    assert metrics.surface_dice(a, b, spacing_mm=(2.5, 9, 9), tolerance_mm=2.5) == 1.0
    with pytest.raises(ValueError, match="tolerance_mm.*-1"):
        metrics.surface_dice(a, b, spacing_mm=(1, 1, 1), tolerance_mm=-1)


# ---------------------------------------------------------------------------- other implementations


def test_same_surface_dice_as_monai_and_another_hd95():
    """Same surface Dice. MONAI's HD95 is the larger of two percentiles, ours one percentile of all
    distances.
    """
    torch, monai = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    rng = np.random.default_rng(1)
    for _ in range(40):
        a, b, spacing_mm = random_pair(rng)
        tensors = [torch.from_numpy(mask)[None, None].float() for mask in (a, b)]
        theirs = monai.compute_surface_dice(
            *tensors, class_thresholds=[1.5], include_background=True, spacing=spacing_mm
        )
        assert metrics.surface_dice(a, b, spacing_mm=spacing_mm, tolerance_mm=1.5) == pytest.approx(
            float(theirs), rel=1e-6
        )
        there, back = metrics.surface_distances(a, b, spacing_mm=spacing_mm)
        larger = max(np.percentile(there, 95), np.percentile(back, 95))
        theirs = monai.compute_hausdorff_distance(
            *tensors, include_background=True, percentile=95, spacing=spacing_mm
        )
        assert float(theirs) == pytest.approx(larger, rel=1e-5, abs=1e-6)


def test_same_distances_as_simpleitk():
    """From one contour to the other by SimpleITK's distance map: the same numbers, sorted, in
    float32.
    """
    rng = np.random.default_rng(2)
    for _ in range(30):
        a, b, spacing_mm = random_pair(rng)
        contours = []
        for mask in (np.pad(a, 2), np.pad(b, 2)):
            image = sitk.GetImageFromArray(mask.astype(np.uint8).transpose(2, 1, 0))
            image.SetSpacing(spacing_mm)
            contours.append(sitk.LabelContour(image, fullyConnected=False))
        far = sitk.SignedMaurerDistanceMap(contours[1], squaredDistance=False, useImageSpacing=True)
        theirs = np.abs(sitk.GetArrayFromImage(far))[sitk.GetArrayFromImage(contours[0]) == 1]
        ours, _ = metrics.surface_distances(a, b, spacing_mm=spacing_mm)
        np.testing.assert_allclose(np.sort(ours), np.sort(theirs), rtol=1e-5, atol=1e-5)
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(*(sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (b, a)))
        assert metrics.dice(a, b) == pytest.approx(overlap.GetDiceCoefficient(), rel=1e-12)
        assert metrics.jaccard(a, b) == pytest.approx(overlap.GetJaccardCoefficient(), rel=1e-12)


def test_surface_distance_agrees_on_a_shifted_block_and_weighs_by_area():
    """Its surface lies between voxels and is weighed by area: the same farthest distance, another
    mean.
    """
    theirs = pytest.importorskip("surface_distance")
    a, b = box((20, 20, 20), (4, 9), (5, 15), (5, 15)), box((20, 20, 20), (7, 12), (5, 15), (5, 15))
    spacing_mm = (2.0, 1.0, 1.0)
    found = theirs.compute_surface_distances(b, a, spacing_mm)
    there, back = metrics.surface_distances(a, b, spacing_mm=spacing_mm)
    assert theirs.compute_robust_hausdorff(found, 100) == max(there.max(), back.max()) == 6.0
    assert theirs.compute_dice_coefficient(b, a) == pytest.approx(metrics.dice(a, b), rel=1e-12)
    area_weighted = np.mean(theirs.compute_average_surface_distance(found))
    assert abs(area_weighted - metrics.assd(a, b, spacing_mm=spacing_mm)) > 0.05


def test_border_counts_the_edge_of_the_array_as_outside():
    mask = np.ones((3, 4, 5), bool)
    expected = mask.copy()
    expected[1, 1:3, 1:4] = False
    assert np.array_equal(metrics.border(mask), expected)


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_empty_masks_overlap(overlap):
    some, none = box((4, 4, 4), (1, 3), (1, 3), (1, 3)), np.zeros((4, 4, 4), bool)
    assert overlap(none, none) == 1.0
    assert overlap(some, none) == overlap(none, some) == 0.0
    assert overlap(some, some, spacing_mm=(1, 1, 1)) == 1.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("distance", DISTANCES)
def test_empty_masks_distance(distance):
    some, none = box((4, 4, 4), (1, 3), (1, 3), (1, 3)), np.zeros((4, 4, 4), bool)
    assert distance(none, none, spacing_mm=(1, 1, 1)) == 0.0
    assert distance(some, none, spacing_mm=(1, 1, 1)) == math.inf
    assert distance(none, some, spacing_mm=(1, 1, 1)) == math.inf
    assert distance(some, some, spacing_mm=(1, 1, 1)) == 0.0


def test_surface_distances_lie_where_the_borders_are():
    a, b = box((20, 5, 5), (2, 3), (0, 5), (0, 5)), box((20, 5, 5), (9, 10), (0, 5), (0, 2))
    forth, back = metrics.surface_distances(a, b, spacing_mm=(1, 1, 2))
    assert (forth.size, back.size) == (25, 10)
    assert np.unique(back) == pytest.approx(7.0)
    assert np.unique(forth) == pytest.approx(
        [7.0, math.hypot(7, 2), math.hypot(7, 4), math.hypot(7, 6)]
    )


MASK = np.ones((3, 3, 3), bool)


@pytest.mark.parametrize(
    ("prediction", "reference", "spacing_mm", "message"),
    [
        (MASK.astype(np.uint8), MASK, (1, 1, 1), "prediction.*boolean.*uint8"),
        (MASK, MASK.astype(float), (1, 1, 1), "reference.*boolean.*float64"),
        (MASK.tolist(), MASK, (1, 1, 1), "prediction.*boolean.*list"),
        (MASK[0], MASK[0], (1, 1, 1), r"prediction.*3-D.*\(3, 3\)"),
        (MASK, MASK[:2], (1, 1, 1), r"\(2, 3, 3\).*found \(3, 3, 3\)"),
        (MASK, MASK, (1, 0, 1), r"spacing_mm.*positive.*\(1, 0, 1\)"),
        (MASK, MASK, (1, 1), "spacing_mm.*three"),
        (MASK, MASK, (1, 1, math.nan), "spacing_mm"),
        (MASK, MASK, 1.0, "spacing_mm"),
    ],
)
def test_bad_input_is_named(prediction, reference, spacing_mm, message):
    for metric in (getattr(metrics, name) for name in NAMES):
        with pytest.raises(ValueError, match=message):
            metric(prediction, reference, spacing_mm=spacing_mm)


def test_distances_need_a_spacing():
    with pytest.raises(ValueError, match="spacing_mm"):
        metrics.hd95(MASK, MASK, spacing_mm=None)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(0.1, 10))
def test_distances_scale_with_the_voxels_and_not_with_empty_space(seed, factor):
    a, b, spacing_mm = random_pair(np.random.default_rng(seed))
    value = metrics.hd95(a, b, spacing_mm=spacing_mm)
    scaled = metrics.hd95(a, b, spacing_mm=tuple(factor * s for s in spacing_mm))
    assert scaled == pytest.approx(factor * value, rel=1e-9)
    margin = [(2, 1), (0, 3), (1, 1)]
    assert metrics.hd95(
        np.pad(a, margin), np.pad(b, margin), spacing_mm=spacing_mm
    ) == pytest.approx(value)
    assert metrics.jaccard(a, b) == pytest.approx(metrics.dice(a, b) / (2 - metrics.dice(a, b)))
