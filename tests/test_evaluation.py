"""Scores by hand, cases summed up, tables, and the classical baseline on a chest made of boxes."""

import csv
import math

import nibabel as nib
import numpy as np
import pytest

from unet3d_tutorial import metrics
from unet3d_tutorial.evaluation import (
    StructureScore,
    bootstrap_interval,
    classical_baseline,
    close_slices,
    evaluate,
    evaluate_cases,
    mean_scores,
    scores_table,
    summarise,
    summary_table,
    write_csv,
)
from unet3d_tutorial.labels import STRUCTURES
from unet3d_tutorial.volume import Volume

AFFINE = np.diag([-0.5, 1.0, 2.0, 1.0])  # LAS, voxels of 1 mm^3


def labels(*boxes):
    array = np.zeros((20, 20, 20), np.uint8)
    for value, (i, j, k) in boxes:
        array[slice(*i), slice(*j), slice(*k)] = value
    return Volume(array, AFFINE)


REFERENCE = labels((1, ((2, 8), (2, 12), (2, 12))), (2, ((12, 18), (2, 12), (2, 12))))


def test_scores_by_hand():
    """Left lung shifted by one voxel of 2 mm, right lung missed, trachea neither there nor found."""
    prediction = labels((1, ((2, 8), (2, 12), (3, 13))))
    left, right, trachea = evaluate(prediction, REFERENCE)
    assert [row.structure for row in (left, right, trachea)] == list(STRUCTURES)
    assert left.dice == pytest.approx(0.9)
    assert left.hd95_mm == pytest.approx(2.0)
    assert left.volume_ml == left.reference_ml == pytest.approx(0.6)
    found, true = prediction.array == 1, REFERENCE.array == 1
    assert left.assd_mm == metrics.assd(found, true, spacing_mm=(0.5, 1.0, 2.0))
    assert (right.dice, right.hd95_mm, right.assd_mm, right.volume_ml) == (
        0.0,
        math.inf,
        math.inf,
        0.0,
    )
    assert right.reference_ml == pytest.approx(0.6)
    assert (trachea.dice, trachea.hd95_mm, trachea.volume_ml) == (1.0, 0.0, 0.0)
    assert (left.sensitivity, left.precision) == (pytest.approx(0.9), pytest.approx(0.9))
    assert left.surface_dice == 1.0, "a shift of 2 mm is within the tolerance"
    assert (left.missed, right.missed, trachea.missed) == (0, 1, 0)


def test_a_grid_that_differs_by_rounding_is_the_same():
    shifted = AFFINE.copy()
    shifted[0, 3] = 0.02
    assert all(row.dice == 1 for row in evaluate(Volume(REFERENCE.array, shifted), REFERENCE))


def test_a_tilted_gantry_changes_no_volume():
    tilted = AFFINE.copy()
    tilted[1, 2] = 2.0  # each slice a little further to the front than the one below
    left, *_ = evaluate(*(Volume(REFERENCE.array, tilted),) * 2)
    assert left.volume_ml == left.reference_ml == pytest.approx(0.6)


def test_a_perfect_prediction():
    for row in evaluate(REFERENCE, REFERENCE):
        assert (row.dice, row.hd95_mm, row.assd_mm) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (
            Volume(REFERENCE.array[:-1], AFFINE),
            r"prediction.*shape \(20, 20, 20\), found \(19, 20, 20\)",
        ),
        (Volume(REFERENCE.array, np.eye(4)), "prediction.*affine.*found a grid 34.25 mm away"),
        (Volume(REFERENCE.array * 3, AFFINE), r"prediction.*labels 0 to 3, found \[6\]"),
        (Volume(REFERENCE.array * 0.5, AFFINE), r"prediction.*labels 0 to 3, found \[0.5\]"),
        (
            Volume(REFERENCE.array * -1.0, AFFINE),
            r"prediction.*labels 0 to 3, found \[-2.0, -1.0\]",
        ),
    ],
)
def test_pairs_that_do_not_match(prediction, message):
    with pytest.raises(ValueError, match=message):
        evaluate(prediction, REFERENCE)


def row(structure="left lung", dice=0.9, hd95_mm=2.0, missed=0, **others):
    values = {
        "surface_dice": 0.8,
        "sensitivity": 0.7,
        "precision": 0.6,
        "assd_mm": hd95_mm / 2,
        "volume_ml": 100.0,
        "reference_ml": 110.0,
    } | others
    return StructureScore(structure, dice=dice, hd95_mm=hd95_mm, missed=missed, **values)


def case(*pairs):
    """One row a structure from (Dice, HD95); an infinite HD95 is a missed structure."""
    return [
        row(name, dice, hd95_mm, missed=int(math.isinf(hd95_mm)))
        for name, (dice, hd95_mm) in zip(STRUCTURES, pairs, strict=True)
    ]


CASES = {
    "a": case((0.9, 2.0), (0.9, 4.0), (0.0, math.inf)),
    "b": case((0.8, 6.0), (0.0, math.inf), (0.0, math.inf)),
    "c": case((0.4, 10.0), (0.6, 8.0), (0.0, math.inf)),
}


def test_table():
    first = row(
        dice=0.98765,
        hd95_mm=2.345,
        assd_mm=0.5,
        surface_dice=0.9,
        volume_ml=1999.6,
        reference_ml=2000.4,
    )
    table = scores_table(
        {"network": [first], "baseline": [row(dice=0, hd95_mm=math.inf, missed=1)]}
    ).splitlines()
    assert len(table) == 4
    assert table[2] == "| network | left lung | 0.988 | 0.900 | 2.3 | 0.50 | 2000 | 2000 |"
    assert table[3] == "| baseline | left lung | 0.000 | 0.800 | missed | missed | 100 | 110 |"
    assert len({line.count("|") for line in table}) == 1


def test_missed_cases_are_counted_and_not_averaged():
    left, right, trachea = mean_scores(CASES)
    assert (
        left.dice == pytest.approx(0.7) and left.hd95_mm == pytest.approx(6.0) and left.missed == 0
    )
    assert right.dice == pytest.approx(0.5), "the overlap of a missed case is 0 and counts"
    assert (right.hd95_mm, right.assd_mm, right.missed) == (6.0, 3.0, 1), (
        "the distance is that of the two found"
    )
    assert (trachea.hd95_mm, trachea.missed) == (math.inf, 3)
    lines = scores_table({"m": [left, right, trachea]}).splitlines()
    assert "| 6.0 (1 missed) | 3.00 (1 missed) |" in lines[3]
    assert "| missed | missed |" in lines[4]
    assert not any(word in "".join(lines) for word in ("nan", "inf"))


def test_summary_by_hand():
    summaries = {(s.structure, s.metric): s for s in summarise(CASES)}
    dice = summaries["left lung", "dice"]
    assert (dice.mean, dice.median) == (pytest.approx(0.7), 0.8)
    assert (dice.worst, dice.worst_case, dice.cases, dice.missed) == (0.4, "c", 3, 0)
    assert 0.4 <= dice.low < 0.7 < dice.high <= 0.9
    far = summaries["left lung", "hd95_mm"]
    assert (far.worst, far.worst_case, far.median) == (10.0, "c", 6.0)
    right = summaries["right lung", "hd95_mm"]
    assert (right.mean, right.median, right.worst, right.worst_case, right.missed) == (
        6.0,
        6.0,
        math.inf,
        "b",
        1,
    )
    assert (right.low, right.high) == (4.0, 8.0)
    assert summaries["trachea", "hd95_mm"].mean == math.inf
    table = summary_table({"m": CASES})
    assert "| m | right lung | HD95 (mm) | 6.0 | 4.0 to 8.0 | 6.0 | missed | b | 1 of 3 |" in table
    assert not any(word in table for word in ("nan", "inf |"))


def test_bootstrap_interval():
    """Of many normal values the interval of the mean is 1.96 standard errors to either side."""
    values = np.random.default_rng(0).normal(10, 2, 400)
    low, high = bootstrap_interval(values)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert bootstrap_interval(values) == (low, high), "repeatable"
    assert bootstrap_interval(np.array([3.0])) == (3.0, 3.0)
    assert bootstrap_interval(np.array([])) == (math.inf, math.inf)


def test_cases_methods_and_csv(tmp_path):
    wrong = labels((1, ((2, 8), (2, 12), (3, 13))))
    cases = [
        ("one", Volume(REFERENCE.array, AFFINE), REFERENCE),
        ("two", Volume(wrong.array, AFFINE), REFERENCE),
    ]
    results = evaluate_cases(iter(cases), lambda image: {"copy": image, "wrong": wrong})
    assert list(results) == ["copy", "wrong"] and list(results["copy"]) == ["one", "two"]
    assert [scores[0].dice for scores in results["copy"].values()] == [1.0, pytest.approx(0.9)]
    with write_csv({"set": results}, tmp_path / "scores.csv").open(
        newline="", encoding="utf-8"
    ) as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 2 * 3 and [path.name for path in tmp_path.iterdir()] == ["scores.csv"]
    missed = [line for line in lines if line["missed"] == "1"]
    assert len(missed) == 3 and {line["structure"] for line in missed} == {"right lung"}
    assert {line["hd95_mm"] for line in missed} == {"inf"}
    assert (
        lines[3] | {"data": "set", "method": "copy", "case": "two", "structure": "left lung"}
        == lines[3]
    )
    assert float(lines[3]["dice"]) == pytest.approx(0.9)


# ------------------------------------------------------------------------------------- the baseline


def chest(touching=False):
    """A box-shaped chest at 4 mm, RAS: body, two lungs, a trachea that forks into them, a table,
    air all round.
    """
    hu = np.full((80, 60, 60), -1000, np.int16)
    truth = np.zeros(hu.shape, np.uint8)
    hu[5:75, 12:50] = 40
    hu[8:72, 4:10] = 100
    hu[10:70, 5:9] = -950  # the table is hollow
    for value, (low, high) in ((1, (10, 37)), (2, (43, 70))):
        truth[low:high, 18:44, 6:46] = value
    truth[38:42, 34:38, 30:60] = 3
    truth[37:43, 34:38, 30:34] = 3  # the main bronchi reach the lungs
    hu[truth > 0] = -850
    hu[truth == 3] = -1000
    if touching:
        hu[37:43, 19:21, 20:24] = -850
    return Volume(hu, np.diag([4.0, 4.0, 4.0, 1.0])), truth


@pytest.fixture(scope="module")
def found_in_chest():
    return classical_baseline(chest()[0])


@pytest.mark.parametrize("touching", [False, True])
def test_baseline_on_a_simple_chest(touching, found_in_chest):
    image, truth = chest(touching)
    result = classical_baseline(image) if touching else found_in_chest
    assert result.array.dtype == np.uint8 and np.array_equal(result.affine, image.affine)
    left, right, trachea = evaluate(result, Volume(truth, image.affine))
    assert left.dice > 0.95 and right.dice > 0.95
    assert trachea.dice > 0.7
    assert left.hd95_mm <= 8 and right.hd95_mm <= 8, "within two voxels"
    assert not result.array[:, :12].any(), "the hollow table is not lung"


def test_baseline_finds_the_same_in_another_orientation(found_in_chest):
    image, _ = chest()
    there = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt("IPL")
    )
    turned = nib.Nifti1Image(image.array, image.affine).as_reoriented(there)
    result = classical_baseline(Volume(np.asarray(turned.dataobj), turned.affine))
    back = result.array.transpose(2, 1, 0)[::-1, ::-1, ::-1]
    assert np.array_equal(back, found_in_chest.array)


@pytest.mark.parametrize("hu", [-1000, 40, np.nan])
@pytest.mark.parametrize("shape", [(30, 30, 30), (1, 1, 1), (20, 20, 1)])
def test_baseline_without_a_chest(hu, shape):
    result = classical_baseline(Volume(np.full(shape, hu, np.float32), np.eye(4)))
    assert result.array.shape == shape and not result.array.any()


def test_baseline_with_one_lung():
    image, truth = chest()
    image.array[truth == 1] = 40
    counts = np.bincount(classical_baseline(image).array.ravel(), minlength=4)
    assert counts[1] == 0
    assert counts[2] == pytest.approx((truth == 2).sum(), rel=0.1)


def test_closing_stays_within_a_slice():
    mask = np.zeros((40, 40, 5), bool)
    mask[5:35, 5:35, 1:4] = True
    mask[18:22, 18:22, 2] = False  # a vessel of 8 mm across
    mask[:, :, 3] = False
    closed = close_slices(mask)
    assert closed[18:22, 18:22, 2].all()
    assert not closed[:, :, [0, 3, 4]].any()
    assert (closed[:, :, 1] == mask[:, :, 1]).all()
