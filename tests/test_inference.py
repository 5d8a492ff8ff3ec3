"""The way back to the scan's own grid, and what :func:`segment` makes of settings and scans."""

import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from unet3d_tutorial import inference
from unet3d_tutorial.config import Config
from unet3d_tutorial.inference import labels_from_slabs, labels_on_grid, segment
from unet3d_tutorial.postprocessing import HU_GAIN, hu_scores
from unet3d_tutorial.volume import Volume

ROI = (16, 16, 16)


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
        return 2 * hu_scores(hu[index])

    volume = Volume(scores.astype(np.float32), source)
    whole = labels_on_grid(volume, shape, target, prior)
    assert sum(calls) == hu.size
    calls.clear()
    assert np.array_equal(labels_on_grid(volume, shape, target, prior, 2 * HU_GAIN), whole)
    assert 0 < sum(calls) < hu.size and 0.01 < (whole > 0).mean() < 0.5


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


def test_one_slice():
    hu = np.full((24, 20, 1), -900, np.int16)
    result = segment(
        Volume(hu, scan_affine("LPS", (1, 1, 5), hu.shape)), threshold, config((4.0, 4.0, 4.0))
    )
    assert result.array.shape == hu.shape and (result.array == 1).all()


# ----------------------------------------------------------------------------------------- settings


def test_filling_holes_is_a_setting():
    hu = np.full((20, 20, 20), 300, np.int16)
    hu[2:9, 2:9, 2:9] = -900
    hu[5, 5, 5] = 300
    image = Volume(hu, scan_affine("LPS", (1, 1, 1), hu.shape))
    assert segment(image, threshold, config()).array[5, 5, 5] == 0
    assert segment(image, threshold, config(fill_holes=True)).array[5, 5, 5] == 1


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
