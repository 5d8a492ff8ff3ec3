"""Score masks of whole scans: structure by structure, case by case, and method by method.

One case gives an :class:`Evaluation`, a score for each structure. Many cases of several methods are
:data:`Results`; :func:`summarise` gives mean, confidence interval, median and worst case of each
metric.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from . import metrics
from .files.tables import Table
from .files.whole import written_whole
from .labels import STRUCTURES
from .volume import Volume, check_same_grid

#: Tolerance of the surface Dice: surfaces that two people draw by hand differ by about as much.
TOLERANCE_MM = 2.0
#: What a field of :class:`StructureScore` is called in tables.
METRIC_NAMES = {
    "dice": "Dice",
    "surface_dice": f"surface Dice, {TOLERANCE_MM:.0f} mm",
    "sensitivity": "sensitivity",
    "precision": "precision",
    "hd95_mm": "HD95 (mm)",
    "assd_mm": "ASSD (mm)",
}
#: Columns of a score in tables.
SCORE_HEADINGS = (
    "Dice",
    "surface Dice",
    "HD95 (mm)",
    "ASSD (mm)",
    "volume (mL)",
    "reference (mL)",
)
SCORE_ALIGN = ("right",) * len(SCORE_HEADINGS)
INFINITE = float("inf")


# ----------------------------------------------------------------------------------------- one case


@dataclass(frozen=True)
class StructureScore:
    """How well one structure was segmented.

    For the values of empty masks see :mod:`unet3d_tutorial.metrics`. Printed, a score is one line;
    in Jupyter it is a table.
    """

    structure: str
    dice: float  #: overlap, 0..1
    surface_dice: float  #: share of the surfaces within :data:`TOLERANCE_MM` of each other, 0..1
    sensitivity: float  #: share of the reference that was found, 0..1
    precision: float  #: share of the prediction that is right, 0..1
    hd95_mm: float  #: 95th percentile of the surface distances; inf if missed
    assd_mm: float  #: mean surface distance; inf if missed
    volume_ml: float  #: of the prediction
    reference_ml: float  #: of the reference
    #: 1 if exactly one of the two masks is empty, otherwise 0; in a mean, the number of such cases
    missed: int = 0

    def __str__(self) -> str:
        cells = zip(SCORE_HEADINGS, _score_cells(self), strict=True)
        return f"{self.structure}: " + ", ".join(f"{heading} {cell}" for heading, cell in cells)

    def _repr_html_(self) -> str:
        return Evaluation([self])._repr_html_()


class Evaluation(list[StructureScore]):
    """The scores of one mask, or their means over several: a list, one entry for each structure.

    ``print`` gives a Markdown table; Jupyter shows an HTML table.
    """

    @property
    def table(self) -> Table:
        """A table with one row for each structure."""
        rows = [[score.structure, *_score_cells(score)] for score in self]
        return Table(["structure", *SCORE_HEADINGS], rows, ["left", *SCORE_ALIGN])

    def __str__(self) -> str:
        return str(self.table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


#: Scores of several cases: method, then case, then one score for each of ``STRUCTURES``.
Results = dict[str, dict[str, Evaluation]]


def evaluate(prediction: Volume, reference: Volume) -> Evaluation:
    """Score a mask against the reference on the same grid: one score for each of ``STRUCTURES``.

    Both are ``(I, J, K)`` with labels 0..3. Raises ``ValueError`` if their shapes or affines
    differ, or if there are labels other than 0..3.
    """
    check_same_grid("prediction", prediction.grid, "the reference", reference.grid)
    _check_labels("prediction", prediction)
    _check_labels("reference", reference)
    return Evaluation(
        _score(structure, prediction.array == value, reference.array == value, reference)
        for value, structure in enumerate(STRUCTURES, start=1)
    )


def _score(
    structure: str, prediction: metrics.Mask, reference: metrics.Mask, grid: Volume
) -> StructureScore:
    """Score one structure from its two masks ``(I, J, K)``; ``grid`` gives the voxel size only."""
    values = metrics.score(
        prediction, reference, spacing_mm=grid.spacing_mm, tolerance_mm=TOLERANCE_MM
    )
    predicted = int(np.count_nonzero(prediction))
    true = int(np.count_nonzero(reference))
    return StructureScore(
        structure=structure,
        dice=values["dice"],
        surface_dice=values["surface_dice"],
        sensitivity=values["sensitivity"],
        precision=values["precision"],
        hd95_mm=values["hd95"],
        assd_mm=values["assd"],
        volume_ml=predicted * grid.voxel_ml,
        reference_ml=true * grid.voxel_ml,
        missed=int((predicted == 0) != (true == 0)),
    )


def _check_labels(name: str, volume: Volume) -> None:
    """Raise ``ValueError`` if there are labels other than background and ``STRUCTURES``."""
    with np.errstate(invalid="ignore"):  # NaN cannot be converted; it is found below
        whole = volume.array.astype(np.uint8)
    unknown = np.unique(volume.array[(whole != volume.array) | (whole > len(STRUCTURES))])
    if unknown.size:
        raise ValueError(
            f"{name}: expected labels 0 to {len(STRUCTURES)}, found {unknown[:5].tolist()}"
        )


def evaluate_cases(
    cases: Iterable[tuple[str, Volume, Volume]],
    segmenters: Callable[[Volume], Mapping[str, Volume]],
) -> Results:
    """Score every case ``(name, image, reference)`` with every method.

    ``segmenters`` takes an image and returns a mask for each method, under the method's name. Cases
    are read one at a time.
    """
    results: Results = {}
    for name, image, reference in cases:
        for method, mask in segmenters(image).items():
            results.setdefault(method, {})[name] = evaluate(mask, reference)
    return results


# --------------------------------------------------------------------------- several cases together


@dataclass(frozen=True)
class Summary:
    """One metric of one structure over several cases.

    A missed case has no finite distance: mean, interval and median of a distance are computed over
    the other cases, and ``missed`` is the number of missed ones. The overlap of a missed case is 0
    and is included.
    """

    structure: str
    metric: str  #: a field of :class:`StructureScore`
    mean: float  #: inf if every case was missed
    low: float  #: lower end of the 95 % bootstrap interval of the mean
    high: float  #: its upper end
    median: float
    worst: float
    worst_case: str  #: name of the case with the worst value
    cases: int  #: number of all cases
    missed: int  #: number of missed cases


def summarise(
    cases: Mapping[str, Sequence[StructureScore]], metric_names: Sequence[str] = ("dice", "hd95_mm")
) -> list[Summary]:
    """Summarise the cases of one method: an entry for each structure and metric.

    ``cases`` maps each case's name to one score for each of ``STRUCTURES``. ``metric_names`` are
    fields of :class:`StructureScore`.
    """
    summaries = []
    for row in range(len(STRUCTURES)):
        of_structure = {case: scores[row] for case, scores in cases.items()}
        summaries += [_summary(of_structure, metric) for metric in metric_names]
    return summaries


def _summary(scores: Mapping[str, StructureScore], metric: str) -> Summary:
    """Summarise one metric of one structure; ``scores`` maps case names to scores."""
    names = list(scores)
    values = np.array([getattr(score, metric) for score in scores.values()])
    worst = int(values.argmax() if _is_distance(metric) else values.argmin())
    finite = values[np.isfinite(values)]
    low, high = bootstrap_interval(finite)
    return Summary(
        structure=scores[names[0]].structure,
        metric=metric,
        mean=_mean(finite),
        low=low,
        high=high,
        median=float(np.median(finite)) if finite.size else INFINITE,
        worst=float(values[worst]),
        worst_case=names[worst],
        cases=len(values),
        missed=sum(score.missed for score in scores.values()),
    )


def bootstrap_interval(
    values: np.ndarray, *, level: float = 0.95, draws: int = 5000, seed: int = 0
) -> tuple[float, float]:
    """Confidence interval of the mean of ``values`` by the percentile bootstrap (Efron, 1979).

    Draws ``len(values)`` of the values with replacement, ``draws`` times, and returns the ends of
    the middle ``level`` of the means. It cannot account for kinds of cases that are not among the
    values. Without values the result is ``(inf, inf)``.
    """
    if not len(values):
        return INFINITE, INFINITE
    resampled = np.random.default_rng(seed).choice(values, (draws, len(values)))
    low, high = np.percentile(resampled.mean(axis=1), [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def mean_scores(cases: Mapping[str, Sequence[StructureScore]]) -> Evaluation:
    """Mean of each structure's scores over the cases.

    Missed cases are left out of the mean distances; ``missed`` is their number.
    """
    return Evaluation(_mean_score(scores) for scores in zip(*cases.values(), strict=True))


def _mean_score(scores: Sequence[StructureScore]) -> StructureScore:
    """The mean of one structure's scores."""
    means = {}
    for name in _score_fields():
        values = np.array([getattr(score, name) for score in scores])
        means[name] = _mean(values[np.isfinite(values)])
    missed = sum(score.missed for score in scores)
    return StructureScore(scores[0].structure, **means, missed=missed)


def _score_fields() -> list[str]:
    """Names of the fields of :class:`StructureScore` that hold measurements."""
    names = [entry.name for entry in fields(StructureScore)]
    return [name for name in names if name not in ("structure", "missed")]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else INFINITE


def _is_distance(metric: str) -> bool:
    """Whether a field of :class:`StructureScore` is a distance, for which larger is worse."""
    return metric.endswith("_mm")


# --------------------------------------------------------------------------------- tables and files


def scores_table(results: Mapping[str, Sequence[StructureScore]]) -> Table:
    """The scores of several methods in one table: a row for each method and structure.

    ``results`` maps each method to the result of :func:`evaluate` or :func:`mean_scores`.
    """
    rows = []
    for method, scores in results.items():
        rows += [[method, score.structure, *_score_cells(score)] for score in scores]
    return Table(["method", "structure", *SCORE_HEADINGS], rows, ["left", "left", *SCORE_ALIGN])


def _score_cells(score: StructureScore) -> list[str]:
    """The cells of one score, in the order of :data:`SCORE_HEADINGS`."""
    # A mean distance is followed by the number of cases that are not included.
    is_partial = score.missed and np.isfinite(score.hd95_mm)
    missed = f" ({score.missed} missed)" if is_partial else ""
    return [
        f"{score.dice:.3f}",
        f"{score.surface_dice:.3f}",
        _text(score.hd95_mm, 1) + missed,
        _text(score.assd_mm, 2) + missed,
        f"{score.volume_ml:.0f}",
        f"{score.reference_ml:.0f}",
    ]


def summary_table(
    results: Mapping[str, Mapping[str, Sequence[StructureScore]]],
    metric_names: Sequence[str] = ("dice", "hd95_mm"),
) -> Table:
    """The result of :func:`summarise` for every method in one table; intervals are of the mean."""
    rows = []
    for method, cases in results.items():
        summaries = summarise(cases, metric_names)
        rows += [[method, *_summary_cells(summary)] for summary in summaries]
    headings = ("structure", "metric", "mean", "95 % interval", "median", "worst", "in case")
    align = ["left"] * 3 + ["right"] * 4 + ["left", "right"]
    return Table(["method", *headings, "missed"], rows, align)


def _summary_cells(summary: Summary) -> list[str]:
    """The cells of a row of :func:`summary_table`, except the method."""
    digits = 1 if _is_distance(summary.metric) else 3
    return [
        summary.structure,
        METRIC_NAMES[summary.metric],
        _text(summary.mean, digits),
        f"{_text(summary.low, digits)} to {_text(summary.high, digits)}",
        _text(summary.median, digits),
        _text(summary.worst, digits),
        summary.worst_case,
        f"{summary.missed} of {summary.cases}",
    ]


def _text(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "missed"


def write_csv(results: Mapping[str, Results], path: str | Path) -> Path:
    """Write one line for each data set, method, case and structure; the whole file or none.

    ``results`` maps the name of each data set to its results. The distances of a missed structure
    are written as ``inf``. Returns ``path``.
    """
    columns = ["data", "method", "case", *(entry.name for entry in fields(StructureScore))]
    with written_whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for data, methods in results.items():
            for method, cases in methods.items():
                for case, scores in cases.items():
                    place = {"data": data, "method": method, "case": case}
                    writer.writerows(place | asdict(score) for score in scores)
    return Path(path)
