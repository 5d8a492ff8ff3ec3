"""Overlap and distances: values worked out by hand, equality with MedPy, and the contract for empty masks."""

import math

import medpy.metric.binary as medpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unet3d_tutorial import metrics

OVERLAPS = (metrics.dice, metrics.jaccard, metrics.precision, metrics.sensitivity)
DISTANCES = (metrics.hd95, metrics.asd, metrics.assd)


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
    # of 56 border voxels each, the 16 of one face lie one step outside the other cube, and none lies further
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
    assert metrics.asd(part, whole, spacing_mm=(1, 1, 1)) < metrics.asd(whole, part, spacing_mm=(1, 1, 1))
    for symmetric in (metrics.hd95, metrics.assd):
        assert symmetric(part, whole, spacing_mm=(1, 2, 3)) == symmetric(whole, part, spacing_mm=(1, 2, 3))


def test_same_as_medpy():
    rng = np.random.default_rng(0)
    pairs = ((metrics.hd95, medpy.hd95), (metrics.asd, medpy.asd), (metrics.assd, medpy.assd))
    for _ in range(120):
        a, b, spacing_mm = random_pair(rng)
        for ours, theirs in pairs:
            assert ours(a, b, spacing_mm=spacing_mm) == pytest.approx(theirs(a, b, spacing_mm), rel=1e-9, abs=1e-12)
        for ours, theirs in zip(OVERLAPS, (medpy.dc, medpy.jc, medpy.precision, medpy.sensitivity), strict=True):
            assert ours(a, b) == pytest.approx(theirs(a, b), rel=1e-12)


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
    assert np.unique(forth) == pytest.approx([7.0, math.hypot(7, 2), math.hypot(7, 4), math.hypot(7, 6)])


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
    for metric in (metrics.dice, metrics.sensitivity, metrics.hd95, metrics.asd):
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
    assert metrics.hd95(np.pad(a, margin), np.pad(b, margin), spacing_mm=spacing_mm) == pytest.approx(value)
    assert metrics.jaccard(a, b) == pytest.approx(metrics.dice(a, b) / (2 - metrics.dice(a, b)))
