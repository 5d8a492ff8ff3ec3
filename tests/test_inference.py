"""Windows, their weights, the largest piece, and above all the way back to the scan's own grid."""

import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unet3d_tutorial import inference
from unet3d_tutorial.config import Config
from unet3d_tutorial.inference import (
    fill_holes,
    keep_largest_component,
    labels_from_slabs,
    labels_on_grid,
    segment,
    sliding_window_inference,
    sliding_window_slabs,
    window_slices,
    window_weight,
    with_flips,
)
from unet3d_tutorial.volume import Volume

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
        ({"mode": "median"}, "mode.*constant or gaussian.*median"),
        ({"batch_size": 0}, "batch_size"),
        ({"placement": "random"}, "placement.*fixed or even.*random"),
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
    slabs = list(sliding_window_slabs(image, ROI, identity, overlap=0.25, placement=placement))
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
    next(sliding_window_slabs(image, ROI, lambda batch: calls.append(1) or batch, overlap=0.0))
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


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_classes_of_another_number_are_not_exchanged(classes):
    def other(batch):
        return np.zeros((len(batch), classes, *batch.shape[2:]), np.float32)

    settings_ = config().updated(
        {
            "data": {"upper_limit": 1 + classes},
            "model": {"num_classes": classes},
            "inference": {"hu_weight": 0, "flip_axes": (1, 0)},
        }
    )
    image = Volume(np.zeros((20, 20, 20), np.int16), np.eye(4))
    with pytest.raises(
        ValueError,
        match=f"inference.flip_axes: expected no 0 for a network of {classes} classes, found",
    ):
        segment(image, other, settings_)
    assert not segment(
        image, other, settings_.updated({"inference": {"flip_axes": (1, 2)}})
    ).array.any()


@pytest.mark.parametrize("position", [False, True])
def test_left_stays_left_with_flips(position):
    """A network that finds its sides by the position channel, or by the darker lung, must find them
    in the mirror too.
    """
    hu = np.full((32, 20, 20), 40, np.int16)
    hu[4:12, 4:16, 4:16], hu[20:28, 4:16, 4:16] = -900, -800
    image = Volume(hu, np.diag([2.0, 2.0, 2.0, 1.0]))

    def network(batch):
        air = batch[:, 0] < 0.4
        left = (batch[:, 1] < 0) if position else (batch[:, 0] < 0.1)
        # without a position the mirrored window shows the same darker lung: a mirror would exchange
        # it
        scores = [~air, air & left, air & ~left, np.zeros_like(air)]
        return np.stack(scores, axis=1).astype(np.float32)

    settings_ = config().updated(
        {
            "data": {"position": position},
            "model": {"in_channels": 1 + position},
            "inference": {"flip_axes": (0,)},
        }
    )
    result = segment(image, network, settings_).array
    if position:
        assert (result[hu == -900] == 1).all() and (result[hu == -800] == 2).all()
    else:  # half the votes each: the mirror was really asked, and answered for the other side
        assert (result[hu == -900] == 1).all() and (result[hu == -800] == 1).all()


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


def test_filling_holes_is_a_setting():
    hu = np.full((20, 20, 20), 300, np.int16)
    hu[2:9, 2:9, 2:9] = -900
    hu[5, 5, 5] = 300
    image = Volume(hu, scan_affine("LPS", (1, 1, 1), hu.shape))
    assert segment(image, threshold, config()).array[5, 5, 5] == 0
    assert segment(image, threshold, config(fill_holes=True)).array[5, 5, 5] == 1


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


# ---------------------------------------------------------------------- back to the scan's own grid


def scan_affine(codes, spacing_mm, shape, oblique=False):
    """An affine whose axes point to ``codes``, with an odd origin;

    ``oblique`` tilts it by 12 degrees.
    """
    turn = nib.orientations.axcodes2ornt(codes)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(turn):
        affine[int(world), axis] = sign * spacing_mm[axis]
    if oblique:
        c, s = np.cos(np.radians(12)), np.sin(np.radians(12))
        affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ affine[:3, :3]
    affine[:3, 3] = (-37.5, 12.25, 301.0)
    return affine


def config(spacing_mm=None, **inference_settings):
    sections = {
        "data": {"roi_size": ROI, "spacing_mm": spacing_mm, "min_val": -1000, "max_val": 400},
        "inference": {
            "roi_size": ROI,
            "largest_component": False,
            "hu_weight": 0.0,
            **inference_settings,
        },
    }
    return Config().updated(sections)


def threshold(batch):
    """Logits whose winner is class 1 below a scaled 0.25 (-650 HU), 2 below 0.5, 3 below 0.75, else
    0.
    """
    levels = np.array([0.875, 0.125, 0.375, 0.625], np.float32).reshape(1, 4, 1, 1, 1)
    return -((batch[:, :1] - levels) ** 2)


def expected_classes(hu):
    return np.select([hu < -650, hu < -300, hu < 50], [1, 2, 3], 0)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "SPL", "ARI"])
@pytest.mark.parametrize("oblique", [False, True])
def test_mask_follows_the_header_to_the_voxel(codes, oblique):
    hu = np.random.default_rng(1).integers(-2000, 600, (11, 19, 23)).astype(np.int16)
    hu[np.isin(hu, (-650, -300, 50))] += 1  # the thresholds themselves are ties
    image = Volume(hu, scan_affine(codes, (0.7, 0.9, 2.5), hu.shape, oblique))
    result = segment(image, threshold, config())
    assert result.array.dtype == np.uint8
    assert np.array_equal(result.affine, image.affine)
    assert np.array_equal(result.array, expected_classes(hu))


def blocks(shape, codes, spacing_mm):
    """A scan of ``shape`` with air left, lung right, fat above: by position in the patient, not by
    index.
    """
    affine = scan_affine(codes, spacing_mm, shape)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    centre = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    offset = world - centre
    hu = np.where(offset[..., 0] < 0, -950, -450)
    hu[offset[..., 2] > 0] = -120
    return Volume(hu.astype(np.int16), affine), offset


def test_padding_of_a_small_scan_stays_out_of_its_edge():
    """Scores of the padding are background; the outermost slices must not mix with them."""
    hu = np.full((30, 30, 30), -450, np.int16)  # 45 mm high, the window is 64 mm
    hu[:8] = -900

    def predictor(batch):
        scores = threshold(batch)
        scores[:, 0, ..., :2] = 100.0
        scores[:, 0, ..., -2:] = 100.0  # two slices of padding at least on either side
        return scores

    result = segment(
        Volume(hu, scan_affine("LPS", (2, 2, 1.5), hu.shape)), predictor, config((4.0, 4.0, 4.0))
    )
    assert (result.array[:6] == 1).all() and (result.array[-6:] == 2).all()


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR"])
def test_resampled_mask_lies_where_the_tissue_lies(codes):
    """Through a coarser grid: classes are exact but for a voxel of that grid on either side of a
    boundary.
    """
    sizes = {"RAS": (40, 36, 20), "LPS": (40, 36, 20), "SAR": (20, 36, 40)}
    spacings = {"RAS": (1.5, 1.5, 3.0), "LPS": (1.5, 1.5, 3.0), "SAR": (3.0, 1.5, 1.5)}
    image, offset = blocks(sizes[codes], codes, spacings[codes])
    result = segment(image, threshold, config((4.0, 4.0, 4.0), mode="gaussian"))
    sure = (np.abs(offset[..., 0]) > 4) & (np.abs(offset[..., 2]) > 4)
    assert sure.sum() > 10000
    assert np.array_equal(result.array[sure], expected_classes(image.array)[sure])
    assert set(np.unique(result.array)) >= {1, 2, 3}


def test_orientation_of_the_file_does_not_change_the_answer():
    """The same patient stored in two ways gives the same mask, voxel for voxel, after resampling
    too.
    """
    hu = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(30, 26, 20)), 3) * 9000 - 400
    affine = scan_affine("RAS", (1.2, 1.4, 2.0), hu.shape)
    first = Volume(hu.astype(np.int16), affine)
    turned = nib.Nifti1Image(first.array, affine).as_reoriented(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt("PIL")
        )
    )
    second = Volume(np.asarray(turned.dataobj), turned.affine)
    chosen = config((3.0, 3.0, 3.0))
    mine, theirs = segment(first, threshold, chosen), segment(second, threshold, chosen)
    assert second.axis_codes == "PIL" and theirs.array.shape == second.array.shape
    back = theirs.array.transpose(2, 0, 1)[::-1, ::-1, ::-1]  # (P, I, L) to (R, A, S)
    assert np.array_equal(mine.array, back)
    assert len(np.unique(mine.array)) == 4


def test_padding_does_not_smear_into_the_patient():
    """Circular fields of view are filled with -3024: the answer must be that for -1024, and for
    not-a-number.
    """
    results = []
    for filling in (-1024, -3024, np.nan):
        hu = np.full((32, 32, 16), 40, np.float32)
        hu[:7] = filling
        image = Volume(hu, scan_affine("LPS", (1, 1, 1), hu.shape))
        results.append(segment(image, threshold, config((3.0, 3.0, 3.0))).array)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    assert (results[0][0] == 1).all() and (results[0][-1] == 3).all()


def test_labels_on_grid_equals_scipy():
    """Against scipy's general, slower affine transform of each class score, on a flipped, swapped,
    finer grid.
    """
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(4, 9, 8, 7)).astype(np.float32)
    source = scan_affine("RAS", (4, 4, 4), None)
    target = scan_affine("PIR", (1.1, 2.3, 0.9), None)
    shape = (34, 15, 40)
    # Partly outside the scores: the nearest counts.
    target[:3, 3] = source[:3, 3] + (-2.0, 30.0, 27.0)
    to_source = np.linalg.inv(source) @ target
    expected = np.stack(
        [
            ndimage.affine_transform(
                c, to_source[:3, :3], to_source[:3, 3], output_shape=shape, order=1, mode="nearest"
            )
            for c in scores
        ]
    ).argmax(axis=0)
    labels = labels_on_grid(Volume(scores, source), shape, target)
    assert (labels != expected).mean() < 1e-4, "but for ties within rounding"


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
def test_labels_from_slabs_of_any_size_are_those_of_the_whole(codes):
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(4, 30, 8, 7)).astype(np.float32)
    source, target, shape = (
        scan_affine("RAS", (2, 2, 2), None),
        scan_affine(codes, (1.1, 0.7, 0.9), None),
        (22, 34, 40),
    )
    target[:3, 3] = (
        source[:3, 3] + np.array([30.0, 7.0, 6.0]) - target[:3, :3] @ (np.array(shape) / 2)
    )
    grid = Volume(scores[0], source)
    whole = labels_on_grid(Volume(scores, source), shape, target)
    for cuts in ([1, 2, 29], [7, 8, 20], [15]):
        slabs = np.split(scores, cuts, axis=1)
        assert np.array_equal(labels_from_slabs(slabs, grid, shape, target), whole)
    assert len(np.unique(whole)) == 4


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
def test_what_is_decided_beforehand_changes_no_label(codes):
    """Blobs inside a background that leads by much: with the bound on what is added, and with all
    computed.
    """
    rng = np.random.default_rng(6)
    scores = 4 * ndimage.gaussian_filter(rng.normal(size=(4, 30, 20, 18)), (0, 2, 2, 2)) / 0.1
    scores[0] += 50
    scores[0, 4:22, 5:16, 6:11] -= 50
    source, target, shape = (
        scan_affine("RAS", (2, 2, 2), None),
        scan_affine(codes, (1.1, 0.7, 0.9), None),
        (40, 44, 46),
    )
    target[:3, 3] = (
        source[:3, 3] + np.array([30.0, 20.0, 18.0]) - target[:3, :3] @ (np.array(shape) / 2)
    )
    hu = rng.integers(-1000, 300, shape)
    calls = []

    def prior(index):
        calls.append(hu[index].size)
        return 2 * inference.hu_scores(hu[index])

    volume = Volume(scores.astype(np.float32), source)
    whole = labels_on_grid(volume, shape, target, prior)
    assert sum(calls) == hu.size
    calls.clear()
    assert np.array_equal(
        labels_on_grid(volume, shape, target, prior, 2 * inference.HU_GAIN), whole
    )
    assert 0 < sum(calls) < hu.size and 0.01 < (whole > 0).mean() < 0.5


def test_the_gain_of_hu_scores_is_its_largest():
    scores = inference.hu_scores(np.arange(-3100, 3000))
    assert (scores[1:] - scores[0]).max() == pytest.approx(inference.HU_GAIN)


def test_largest_is_argmax():
    # With many ties.
    scores = np.random.default_rng(7).integers(0, 4, (5, 6, 7, 8)).astype(np.float32)
    assert (
        np.array_equal(inference.largest(scores), scores.argmax(axis=0))
        and inference.largest(scores).dtype == np.uint8
    )


def test_a_large_scan_needs_scores_for_a_slab_only():
    """Traced memory of a scan of 300 x 64 x 64 voxels at its own resolution, four classes."""
    hu = np.random.default_rng(5).integers(-1000, 400, (300, 64, 64)).astype(np.int16)
    scores_mb = 4 * hu.size * 4 / 1e6
    tracemalloc.start()
    result = segment(Volume(hu, scan_affine("RAS", (1, 1, 1), hu.shape)), threshold, config())
    peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert result.array.shape == hu.shape
    inputs_mb = 4 * hu.size * 4 / 1e6  # the float32 input, and three temporaries while it is scaled
    assert peak_mb < inputs_mb + scores_mb / 3


def test_rotated_grids_are_refused():
    scores = Volume(np.zeros((2, 8, 8, 8), np.float32), np.eye(4))
    with pytest.raises(ValueError, match="affine.*parallel"):
        labels_on_grid(scores, (8, 8, 8), scan_affine("RAS", (1, 1, 1), None, oblique=True))


def test_largest_component_is_a_setting():
    hu = np.full((20, 20, 20), 300, np.int16)
    hu[2:9, 2:9, 2:9] = -900
    hu[15, 15, 15] = -900
    image = Volume(hu, scan_affine("LPS", (1, 1, 1), hu.shape))
    kept = segment(image, threshold, config(largest_component=True)).array
    assert segment(image, threshold, config()).array[15, 15, 15] == 1
    assert kept[15, 15, 15] == 0 and kept[2:9, 2:9, 2:9].all() and kept.sum() == 7**3


def test_what_segment_refuses():
    with pytest.raises(ValueError, match="image.*3-D"):
        segment(Volume(np.zeros((1, 8, 8, 8)), np.eye(4)), threshold, config())
    with pytest.raises(ValueError, match="predictor.*4 classes.*found 3"):
        segment(Volume(np.zeros((8, 8, 8)), np.eye(4)), lambda batch: batch[:, [0, 0, 0]], config())
    lungs_only = Config.from_dict({"data": {"upper_limit": 4}, "model": {"num_classes": 3}})
    with pytest.raises(
        ValueError, match="inference.hu_weight: expected 0 for a network of 3 classes, found 3"
    ):
        segment(Volume(np.zeros((8, 8, 8)), np.eye(4)), threshold, lungs_only)


def test_the_voxel_itself_decides_where_the_network_hesitates():
    """Left lung and background are level, trachea far below: air becomes left lung, tissue
    background, by weight.
    """
    hu = np.linspace(-1000, 400, 20 * 20 * 20).round().astype(np.int16).reshape(20, 20, 20)
    image = Volume(hu, scan_affine("LPS", (1, 1, 1), hu.shape))

    def undecided(batch):
        scores = np.full((len(batch), 4, *ROI), -9.0, np.float32)
        scores[:, 0], scores[:, 1] = 0.0, 0.2
        return scores

    assert (segment(image, undecided, config(hu_weight=0.0)).array == 1).all()
    strict = segment(
        image, undecided, config(hu_weight=2.0)
    ).array  # 2 * (-400 - HU) / 300 > -0.2 below -370 HU
    assert np.array_equal(strict[hu != -370], (hu < -370)[hu != -370])
    loose = segment(image, undecided, config(hu_weight=0.2)).array  # below -100 HU
    assert np.array_equal(loose[hu != -100], (hu < -100)[hu != -100])


def test_hu_scores_are_limited_and_half_as_strong_for_the_trachea():
    background, left, right, trachea = inference.hu_scores(
        np.array([[-3024, -600, -400, -100, 200, 3000]], np.int16)
    )
    assert background[0] == pytest.approx([-2 / 3, -2 / 3, 0, 0, 0, 0])
    assert left[0] == pytest.approx([0, 0, 0, -1, -2, -2])
    assert np.array_equal(left, right) and np.array_equal(trachea, left / 2)
    assert np.isfinite(inference.hu_scores(np.array([[np.nan]]))).all()


def test_one_slice():
    hu = np.full((24, 20, 1), -900, np.int16)
    result = segment(
        Volume(hu, scan_affine("LPS", (1, 1, 5), hu.shape)), threshold, config((4.0, 4.0, 4.0))
    )
    assert result.array.shape == hu.shape and (result.array == 1).all()
