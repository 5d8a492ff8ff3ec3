"""Where windows lie, what their voxels count, how they are averaged, and mirrored windows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet3d_tutorial.sliding_window import (
    SlidingWindow,
    sliding_window_inference,
    sliding_window_slabs,
    window_slices,
    window_weight,
    with_flips,
)

ROI = (16, 16, 16)


def identity(batch):
    return batch


# ------------------------------------------------------------------------------------------ windows


def test_windows_of_a_known_case():
    """40 voxels, windows of 16, overlap 0.25: every 12 voxels, the last window flush with the
    border.
    """
    starts = [window[0].start for window in window_slices((40, 16, 16), ROI, 0.25)]
    assert starts == [0, 12, 24]
    assert [window[2].start for window in window_slices((16, 16, 37), ROI, 0.25)] == [0, 12, 21]
    assert len(window_slices((40, 37, 16), ROI, 0.25)) == 9


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.99])
def test_windows_cover_every_voxel_and_stay_inside(overlap):
    for shape in ((4, 5, 6), (7, 9, 6), (13, 5, 8)):
        seen = np.zeros(shape, int)
        for window in window_slices(shape, (4, 5, 6), overlap):
            assert seen[window].shape == (4, 5, 6)
            seen[window] += 1
        assert seen.min() >= 1


def test_gaussian_weight():
    weight = window_weight((16, 8, 32), "gaussian")
    assert weight.dtype == np.float32
    assert weight.min() == np.float32(1e-3)
    assert np.array_equal(weight, weight[::-1, ::-1, ::-1])
    # along the first axis sigma is 2 voxels: from 0.5 to 2.5 voxels off the centre
    assert weight[10, 4, 16] / weight[8, 4, 16] == pytest.approx(
        np.exp(-(2.5**2 - 0.5**2) / 8), rel=1e-5
    )
    assert (window_weight((3, 4, 5), "constant") == 1).all()


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("shape", [(2, 20, 17, 30), (1, 5, 40, 16), (3, 1, 2, 3)])
def test_a_predictor_that_changes_nothing_gives_the_image_back(mode, batch_size, shape):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    before = image.copy()
    out = sliding_window_inference(
        image, ROI, identity, overlap=0.4, mode=mode, batch_size=batch_size
    )
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, image, rtol=1e-5, atol=1e-6)
    assert np.array_equal(image, before)


def test_windows_are_averaged_with_their_weights():
    """A predictor that answers with the number of its call: every voxel is the weighted mean of the
    calls over it.
    """
    for mode in ("constant", "gaussian"):
        calls = iter(range(100))
        image = np.zeros((1, 24, 16, 16), np.float32)
        out = sliding_window_inference(
            image,
            ROI,
            lambda batch, calls=calls: np.full_like(batch, next(calls)),
            overlap=0.5,
            mode=mode,
        )
        weight = window_weight(ROI, mode)
        assert (out[0, :8] == 0).all() and (out[0, 16:] == 1).all()
        np.testing.assert_allclose(out[0, 8:16], weight[:8] / (weight[:8] + weight[8:]), rtol=1e-5)


def test_what_the_predictor_is_given():
    shapes, edges = [], []

    def predictor(batch):
        assert batch.dtype == np.float32
        shapes.append(batch.shape)
        edges.append((batch[0, 0, 0, 0, 0], batch[0, 0, 8, 8, 8]))
        return np.stack([batch[:, 0], -batch[:, 0]], axis=1).astype(np.float64)

    out = sliding_window_inference(np.full((1, 40, 10, 10), 5.0), ROI, predictor, batch_size=2)
    assert shapes == [(2, 1, *ROI), (1, 1, *ROI)]
    assert edges[0] == (0.0, 5.0), (
        "an axis shorter than the window is padded with 0, the scaled value of air"
    )
    assert out.shape == (2, 40, 10, 10)
    assert (out[0] == 5).all() and (out[1] == -5).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((20, 20, 20))}, r"image.*\(C, I, J, K\).*\(20, 20, 20\)"),
        ({"image": np.zeros((1, 0, 20, 20))}, "image"),
        ({"roi_size": (16, 16)}, "roi_size"),
        ({"overlap": 1.0}, "overlap.*1.0"),
        ({"overlap": -0.1}, "overlap"),
        ({"mode": "median"}, "mode.*constant.*gaussian.*median"),
        ({"batch_size": 0}, "batch_size"),
        ({"placement": "random"}, "placement.*fixed.*even.*random"),
        ({"predictor": lambda batch: batch[0]}, "predictor.*found"),
        ({"predictor": lambda batch: batch[..., ::2]}, "predictor.*found"),
    ],
)
def test_bad_settings_are_named(change, message):
    arguments = {
        "image": np.zeros((1, 20, 20, 20)),
        "roi_size": ROI,
        "predictor": identity,
    } | change
    with pytest.raises(ValueError, match=message):
        sliding_window_inference(**arguments)


@pytest.mark.parametrize(
    ("length", "roi", "overlap", "starts"),
    [
        (40, 16, 0.25, [0, 12, 24]),
        (37, 16, 0.25, [0, 10, 21]),
        (16, 16, 0.5, [0]),
        (17, 16, 0.5, [0, 1]),
        (110, 64, 0.5, [0, 23, 46]),  # the example in nnU-Net's own source
    ],
)
def test_even_windows_of_known_cases(length, roi, overlap, starts):
    windows = window_slices((length, 1, 1), (roi, 1, 1), overlap, "even")
    assert [window[0].start for window in windows] == starts


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 300), roi=st.integers(1, 100), overlap=st.floats(0, 0.95))
def test_even_windows_are_as_many_as_fixed_ones_and_evenly_spaced(length, roi, overlap):
    shape = (max(length, roi), 1, 1)
    even, fixed = (
        [w[0].start for w in window_slices(shape, (roi, 1, 1), overlap, p)]
        for p in ("even", "fixed")
    )
    assert len(even) == len(fixed) and (even[0], even[-1]) == (0, shape[0] - roi)
    gaps = np.diff(even)
    assert gaps.size == 0 or (
        gaps.max() - gaps.min() <= 1 and gaps.max() <= max(int(roi * (1 - overlap)), 1)
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    mode=st.sampled_from(["constant", "gaussian"]),
    batch_size=st.integers(1, 5),
)
def test_same_as_monai(seed, mode, batch_size):
    """Random sizes, windows, overlaps; a predictor that depends on the place in the window, with
    more classes out.
    """
    torch, monai = pytest.importorskip("torch"), pytest.importorskip("monai.inferers")
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(rng.integers(1, 4), *rng.integers(3, 40, 3))).astype(np.float32)
    roi, overlap = tuple(int(n) for n in rng.integers(6, 24, 3)), float(rng.uniform(0, 0.7))
    ramp = rng.normal(size=(5, image.shape[0], *roi)).astype(np.float32)

    def network(batch):
        return np.stack([(batch * part).sum(axis=1) for part in ramp], axis=1)

    ours = sliding_window_inference(
        image, roi, network, overlap=overlap, mode=mode, batch_size=batch_size
    )
    theirs = monai.sliding_window_inference(
        torch.from_numpy(image)[None],
        roi,
        batch_size,
        lambda batch: torch.from_numpy(network(batch.numpy())),
        overlap,
        mode,
    )
    np.testing.assert_allclose(ours, theirs[0].numpy(), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("placement", ["fixed", "even"])
def test_slabs_come_in_order_and_are_small(placement):
    image = np.random.default_rng(0).normal(size=(2, 90, 20, 17)).astype(np.float32)
    window = SlidingWindow(ROI, overlap=0.25, placement=placement)
    slabs = list(sliding_window_slabs(image, window, identity))
    assert len(slabs) == len(
        {w[0].start for w in window_slices(image.shape[1:], ROI, 0.25, placement)}
    )
    assert max(slab.shape[1] for slab in slabs) == 16
    np.testing.assert_allclose(np.concatenate(slabs, axis=1), image, rtol=1e-5, atol=1e-6)


def test_slabs_are_handed_out_before_the_next_windows_are_predicted():
    """So that memory holds one slab: after the first slab no window beyond the second row of
    windows was seen.
    """
    calls = []
    image = np.zeros((1, 100, 16, 16), np.float32)
    window = SlidingWindow(ROI, overlap=0.0)
    next(sliding_window_slabs(image, window, lambda batch: calls.append(1) or batch))
    assert len(calls) == 2


def test_a_bar_on_request(capsys):
    sliding_window_inference(np.zeros((1, 40, 16, 16)), ROI, identity, progress=True)
    assert "3/3" in capsys.readouterr().err
    sliding_window_inference(np.zeros((1, 40, 16, 16)), ROI, identity)
    assert capsys.readouterr().err == ""


# --------------------------------------------------------------------------------- mirrored windows


def sided(batch):
    """A network that knows its sides by the position channel and leans on what lies at lower
    indices of axis 1.
    """
    hu, position = batch[:, 0], batch[:, 1]
    leaning = hu + 0.5 * np.roll(hu, 1, axis=2)
    return np.stack([1 - hu, leaning - position, leaning + position, 0 * hu], axis=1)


def test_flips_average_what_the_network_says_of_the_mirror_images():
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(2, 2, 6, 5, 4)).astype(np.float32)
    mirrored = batch[:, :, ::-1].copy()
    mirrored[:, 1] *= -1
    expected = (sided(batch) + sided(mirrored)[:, [0, 2, 1, 3], ::-1]) / 2
    np.testing.assert_allclose(with_flips(sided, (0,), position=True)(batch), expected, rtol=1e-6)
    front_back = (sided(batch) + sided(batch[:, :, :, ::-1])[:, :, :, ::-1]) / 2
    np.testing.assert_allclose(with_flips(sided, (1,), position=True)(batch), front_back, rtol=1e-6)
    assert not np.allclose(front_back, sided(batch))


def test_a_network_without_a_side_is_not_changed_by_flips():
    """It gives the same to left and right, and the mirror changes nothing: neither do all eight
    combinations.
    """

    def even(batch):
        return np.stack([batch[:, 0], *[2 * batch[:, 0]] * 2, -batch[:, 0]], axis=1)

    batch = np.random.default_rng(1).normal(size=(1, 1, 4, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(with_flips(even, (0, 1, 2))(batch), even(batch), rtol=1e-6)
