"""Random variation: repeatable, pure, and drawn before it is applied.

Image, label and affine stay in step.
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
from unet3d_tutorial.volume import Volume

INTENSITY = [
    RandomShift(),
    RandomNoise(chance=1),
    RandomBlur(chance=1),
    RandomGamma(chance=1),
    RandomLowResolution(chance=1),
]
SPATIAL = [RandomFlip(chance=1), RandomAffine(chance=1), RandomElastic(chance=1)]
seeds = st.integers(0, 10_000)


def name(step) -> str:
    return type(step).__name__


def pair(shape=(14, 12, 10), affine=None) -> tuple[Volume, Volume]:
    rng = np.random.default_rng(0)
    affine = np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine
    image = rng.uniform(0, 1, (1, *shape)).astype(np.float32)
    return Volume(image, affine), Volume(rng.integers(0, 4, (1, *shape)).astype(np.uint8), affine)


@pytest.mark.parametrize("step", [*INTENSITY, *SPATIAL], ids=name)
def test_steps_are_pure_and_repeat_with_their_seed(step):
    image, label = pair()
    kept = image.array.copy(), label.array.copy(), image.affine.copy()
    (first, first_label), (again, again_label) = (
        step.set_random_state([1, 2])(image, label) for _ in range(2)
    )
    assert np.array_equal(first.array, again.array) and np.array_equal(
        first_label.array, again_label.array
    )
    assert all(
        np.array_equal(now, then)
        for now, then in zip((image.array, label.array, image.affine), kept, strict=True)
    )
    assert not np.array_equal(first.array, image.array)
    assert first.array.shape == image.array.shape and first.array.dtype == np.float32
    assert step(image, None)[1] is None


@pytest.mark.parametrize(
    "step", [step for step in [*INTENSITY, *SPATIAL] if not isinstance(step, RandomFlip)], ids=name
)
def test_another_seed_gives_another_result(step):
    image, label = pair()
    first, other = (step.set_random_state([1, seed])(image, label)[0].array for seed in (2, 3))
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("step", [*INTENSITY, *SPATIAL], ids=name)
def test_what_is_drawn_decides_what_is_applied(step):
    """Drawing moves the stream, applying does not: the same parameters give the same result any
    number of times.
    """
    image, label = pair()
    parameters = step.set_random_state(5).draw(image.array.shape)
    state = step.rng.bit_generator.state
    first, second = (step.apply(image, label, parameters)[0].array for _ in range(2))
    assert np.array_equal(first, second) and step.rng.bit_generator.state == state
    assert np.array_equal(first, step.set_random_state(5)(image, label)[0].array)


@pytest.mark.parametrize(
    "step", [type(step)(chance=0) for step in [*INTENSITY[1:], *SPATIAL]], ids=name
)
def test_a_step_with_no_chance_does_nothing(step):
    image, label = pair()
    assert step(image, label) == (image, label)


@pytest.mark.parametrize("step", INTENSITY, ids=name)
def test_intensity_steps_leave_label_and_affine(step):
    image, label = pair()
    varied, varied_label = step.set_random_state(1)(image, label)
    assert varied_label is label and np.array_equal(varied.affine, image.affine)


@settings(max_examples=25, deadline=None)
@given(
    seed=seeds,
    which=st.sampled_from(SPATIAL),
    shape=st.tuples(*[st.integers(5, 16)] * 3),
    spacing=st.tuples(*[st.floats(0.5, 5)] * 3),
)
def test_spatial_steps_move_image_and_label_alike(seed, which, shape, spacing):
    """The image holds each voxel's own index and the label its number: they must agree to half a
    voxel afterwards.
    """
    affine = np.diag([*spacing, 1.0])
    index = np.indices(shape).astype(np.float32) + 1  # 0 is what comes in from outside
    number = np.arange(1, np.prod(shape) + 1, dtype=np.int32).reshape(1, *shape)
    step = (
        type(which)(chance=1, seed=seed)
        if not isinstance(which, RandomFlip)
        else RandomFlip((-1, -1), 1, seed)
    )
    moved, moved_number = step(Volume(index, affine), Volume(number, affine))
    inside = moved_number.array[0] > 0
    claimed = np.array(np.unravel_index(moved_number.array[0][inside] - 1, shape)) + 1
    assert inside.any() and np.abs(moved.array[:, inside] - claimed).max() <= 0.5 + 1e-3
    assert np.allclose(moved.affine, moved_number.affine)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, which=st.sampled_from(SPATIAL), values=st.sets(st.integers(0, 3), min_size=1))
def test_labels_never_gain_a_value(seed, which, values):
    image, label = pair()
    label = Volume(
        np.random.default_rng(seed).choice(list(values), label.array.shape).astype(np.uint8),
        label.affine,
    )
    _, moved = type(which)(chance=1, seed=seed)(image, label)
    allowed = values | {0}
    if isinstance(which, RandomFlip):
        allowed = {{1: 2, 2: 1}.get(value, value) for value in allowed}
    assert set(np.unique(moved.array).tolist()) <= allowed and moved.array.dtype == np.uint8


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_flip_mirrors_the_patient_at_0_mm_and_swaps_the_lungs(order, sign):
    image, label = pair()
    matrix = Rotation.from_euler("z", 10, degrees=True).as_matrix() @ np.diag(
        [2.0 * sign, 2.0, 3.0]
    )
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix[:, order], [7.0, -5.0, 3.0]
    image, label = Volume(image.array, affine), Volume(label.array, affine)
    flipped, flipped_label = RandomFlip(chance=1)(image, label)
    axis = order.index(0)
    index = np.array([3, 4, 5])
    there = index.copy()
    there[axis] = image.array.shape[1 + axis] - 1 - index[axis]
    assert flipped.array[0][tuple(there)] == image.array[0][tuple(index)]
    assert flipped_label.array[0][tuple(there)] == [0, 2, 1, 3][label.array[0][tuple(index)]]
    place, mirrored = affine @ [*index, 1], flipped.affine @ [*there, 1]
    assert np.allclose(mirrored, place * [-1, 1, 1, 1])
    assert flipped.axis_codes == image.axis_codes
    back, back_label = RandomFlip(chance=1)(flipped, flipped_label)
    assert np.array_equal(back.array, image.array) and np.array_equal(back_label.array, label.array)
    assert np.allclose(back.affine, affine)


def test_affine_turns_millimetres_not_voxels():
    """A ball stays a ball on a grid whose voxels are three times as long as wide, and grows as it
    should.
    """
    spacing = np.array([1.0, 1.0, 3.0])
    shape = (61, 61, 21)
    mm = (np.indices(shape) - (np.reshape(shape, (3, 1, 1, 1)) - 1) / 2) * spacing.reshape(
        3, 1, 1, 1
    )
    distance = np.linalg.norm(mm, axis=0)
    ball = Volume((distance < 18).astype(np.uint8)[None], np.diag([*spacing, 1.0]))
    image = Volume(mm[:1].astype(np.float32), ball.affine)  # the first coordinate
    step = RandomAffine(chance=1)
    turned, turned_ball = step.apply(image, ball, (np.array([0.0, 90.0, 0.0]), 1.0))
    overlap = (
        2 * (turned_ball.array & ball.array).sum() / (turned_ball.array.sum() + ball.array.sum())
    )
    assert overlap > 0.95
    # A quarter turn about the second axis brings the third coordinate in place of the first.
    inner = distance < 15
    assert np.allclose(np.abs(turned.array[0][inner]), np.abs(mm[2][inner]), atol=1e-2)
    _, grown = step.apply(image, ball, (np.zeros(3), 1.2))
    assert grown.array.sum() / ball.array.sum() == pytest.approx(1.2**3, rel=0.05)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, std_mm=st.floats(1, 1000), spacing=st.tuples(*[st.floats(0.5, 5)] * 3))
def test_elastic_deformation_never_folds(seed, std_mm, spacing):
    image = Volume(np.zeros((1, 24, 20, 28), np.float32), np.diag([*spacing, 1.0]))
    step = RandomElastic(std_mm, chance=1, seed=seed)
    places = step.places(step.draw(image.array.shape), image)
    jacobian = np.stack([np.stack(np.gradient(axis), axis=-1) for axis in places], axis=-2)
    assert np.linalg.det(jacobian).min() > 0


def test_elastic_displacements_are_millimetres():
    image, _ = pair((30, 30, 30), np.diag([1.0, 2.0, 4.0, 1.0]))
    places = RandomElastic().places(np.full((3, 7, 7, 7), 2.0), image)
    moved = places - np.indices(places.shape[1:])
    assert np.allclose(moved.mean(axis=(1, 2, 3)), [2.0, 1.0, 0.5], atol=1e-3)


def test_low_resolution_keeps_slow_changes_and_loses_fast_ones():
    slow = np.linspace(0, 1, 40, dtype=np.float32).reshape(1, 40, 1, 1) * np.ones(
        (1, 1, 8, 8), np.float32
    )
    fast = np.tile(np.array([0, 1], np.float32), 20).reshape(1, 40, 1, 1) * np.ones(
        (1, 1, 8, 8), np.float32
    )
    step = RandomLowResolution(chance=1)
    for array, limit in ((slow, (0, 0.03)), (fast, (0.3, 0.6))):
        coarse, _ = step.apply(Volume(array, np.eye(4)), None, 2.0)
        change = np.abs(coarse.array - array)[:, 4:-4].mean()
        assert coarse.array.shape == array.shape and limit[0] <= change <= limit[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomAffine(max_scale=0.9), "max_scale: expected at least 1, found 0.9"),
        (lambda: RandomElastic(points=3), "points: expected at least 4 along each axis, found 3"),
        (lambda: RandomLowResolution(max_factor=0.5), "max_factor: expected at least 1, found 0.5"),
    ],
)
def test_settings_that_cannot_work(make, message):
    with pytest.raises(ValueError, match=message):
        make()
