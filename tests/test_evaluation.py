"""Scores by hand, cases summed up, and how they look as text, tables and files."""

import csv
import math

import numpy as np
import pytest

from unet3d_tutorial import metrics
from unet3d_tutorial.evaluation import (
    Evaluation,
    StructureScore,
    bootstrap_interval,
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
    """Left lung one voxel of 2 mm off, right lung missed, trachea neither there nor found."""
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


def lines_of(table):
    """The lines of a printed table, without the blanks that fill its columns up."""
    return [" ".join(line.split()) for line in str(table).splitlines()]


def test_table():
    first = row(
        dice=0.98765,
        hd95_mm=2.345,
        assd_mm=0.5,
        surface_dice=0.9,
        volume_ml=1999.6,
        reference_ml=2000.4,
    )
    missed = row(dice=0, hd95_mm=math.inf, missed=1)
    table = lines_of(scores_table({"network": [first], "baseline": [missed]}))
    assert len(table) == 4
    assert table[2] == "| network | left lung | 0.988 | 0.900 | 2.3 | 0.50 | 2000 | 2000 |"
    assert table[3] == "| baseline | left lung | 0.000 | 0.800 | missed | missed | 100 | 110 |"
    assert len({line.count("|") for line in table}) == 1


def test_an_evaluation_is_a_list_that_shows_itself_as_a_table():
    scores = evaluate(REFERENCE, REFERENCE)
    assert scores == [scores[0], scores[1], scores[2]] and len(scores) == len(STRUCTURES)
    assert [score.structure for score in scores] == list(STRUCTURES)
    lines = lines_of(scores)
    assert lines[0].startswith("| structure | Dice | surface Dice | HD95 (mm) |")
    assert lines[2] == "| left lung | 1.000 | 1.000 | 0.0 | 0.00 | 1 | 1 |"
    assert scores._repr_html_().count("<tr>") == 1 + len(STRUCTURES)
    assert "left lung" in scores[0]._repr_html_() and "trachea" not in scores[0]._repr_html_()
    assert str(scores[0]) == (
        "left lung: Dice 1.000, surface Dice 1.000, HD95 (mm) 0.0, ASSD (mm) 0.00, "
        "volume (mL) 1, reference (mL) 1"
    )
    assert isinstance(mean_scores({"a": scores}), Evaluation)


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
    lines = lines_of(scores_table({"m": [left, right, trachea]}))
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
    table = "\n".join(lines_of(summary_table({"m": CASES})))
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
