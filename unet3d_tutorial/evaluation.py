"""Score masks of whole scans, structure by structure and case by case, and the classical method to
beat.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cc3d
import numpy as np
from scipy import ndimage

from . import metrics
from .inference import labels_on_grid
from .labels import STRUCTURES
from .transforms import ClipHU, Compose, Orientation, Spacing
from .volume import Volume, check_same_grid

#: a surface this near counts as right in the surface Dice; two people who draw differ by about as
#: much
TOLERANCE_MM = 2.0
NAMES = {
    "dice": "Dice",
    "surface_dice": f"surface Dice, {TOLERANCE_MM:.0f} mm",
    "sensitivity": "sensitivity",
    "precision": "precision",
    "hd95_mm": "HD95 (mm)",
    "assd_mm": "ASSD (mm)",
}


@dataclass(frozen=True)
class StructureScore:
    """How well one structure was segmented.

    For empty masks see the contract in :mod:`unet3d_tutorial.metrics`.
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
    #: 1 if one of the two masks is empty and the other is not; in a mean, the number of such cases
    missed: int = 0


#: Scores of several cases: method, then case, then one row for each of ``STRUCTURES``.
Results = dict[str, dict[str, list[StructureScore]]]


def evaluate(prediction: Volume, reference: Volume) -> list[StructureScore]:
    """Score labels 0..3 of ``(I, J, K)`` against the reference's, on one grid; one row for each of
    ``STRUCTURES``.

    Raises ``ValueError`` if shape or affine differ, or if there are labels other than 0..3.
    """
    _check_pair(prediction, reference)
    return [
        _score(structure, prediction.array == value, reference.array == value, reference)
        for value, structure in enumerate(STRUCTURES, start=1)
    ]


def _score(structure: str, found: np.ndarray, true: np.ndarray, grid: Volume) -> StructureScore:
    """One structure's row from its two masks ``(I, J, K)``; of ``grid`` only the lengths are used."""
    values = metrics.score(found, true, spacing_mm=grid.spacing_mm, tolerance_mm=TOLERANCE_MM)
    counts = int(np.count_nonzero(found)), int(np.count_nonzero(true))
    return StructureScore(
        structure=structure,
        **{name: values[name] for name in ("dice", "surface_dice", "sensitivity", "precision")},
        hd95_mm=values["hd95"],
        assd_mm=values["assd"],
        volume_ml=counts[0] * grid.voxel_ml,
        reference_ml=counts[1] * grid.voxel_ml,
        missed=int((counts[0] == 0) != (counts[1] == 0)),
    )


def evaluate_cases(
    cases: Iterable[tuple[str, Volume, Volume]],
    segmenters: Callable[[Volume], Mapping[str, Volume]],
) -> Results:
    """Score every case ``(name, image, reference)`` with every method.

    ``segmenters`` takes an image and gives one mask a method, by the method's name. Cases are read
    one at a time.
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

    A missed case has no distance: mean, interval and median of a distance are those of the cases
    that were found, and ``missed`` says how many were not. The overlap of a missed case is 0 and
    counts.
    """

    structure: str
    metric: str  #: a field of :class:`StructureScore`
    mean: float  #: inf if no case was found
    low: float  #: 95 % bootstrap interval of the mean
    high: float
    median: float
    worst: float
    worst_case: str  #: name of the case
    cases: int
    missed: int


def summarise(
    cases: Mapping[str, Sequence[StructureScore]], metric_names: Sequence[str] = ("dice", "hd95_mm")
) -> list[Summary]:
    """Sum up one method's cases: a row for each structure and metric."""
    return [_summary(cases, row, name) for row in range(len(STRUCTURES)) for name in metric_names]


def _summary(cases: Mapping[str, Sequence[StructureScore]], row: int, metric: str) -> Summary:
    values = np.array([getattr(rows[row], metric) for rows in cases.values()])
    found = values[np.isfinite(values)]
    worst = int(values.argmax() if metric.endswith("_mm") else values.argmin())
    mean, median = (
        (float(found.mean()), float(np.median(found))) if found.size else (float("inf"),) * 2
    )
    return Summary(
        STRUCTURES[row],
        metric,
        mean,
        *bootstrap_interval(found),
        median,
        float(values[worst]),
        list(cases)[worst],
        len(values),
        sum(rows[row].missed for rows in cases.values()),
    )


def bootstrap_interval(
    values: np.ndarray, *, level: float = 0.95, draws: int = 5000, seed: int = 0
) -> tuple[float, float]:
    """Say how far the mean of as many other cases might have been off: the percentile bootstrap
    (Efron, 1979).

    Draws ``len(values)`` cases with replacement, again and again, and gives the middle ``level`` of
    the means. Knows nothing of cases unlike those at hand. No values give (inf, inf).
    """
    if not len(values):
        return float("inf"), float("inf")
    means = np.random.default_rng(seed).choice(values, (draws, len(values))).mean(axis=1)
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def mean_scores(cases: Mapping[str, Sequence[StructureScore]]) -> list[StructureScore]:
    """Mean of each structure's scores over the cases: distances over those found, ``missed`` counts
    the others.
    """
    means = []
    for rows in zip(*cases.values(), strict=True):
        values = {
            entry.name: np.array([getattr(row, entry.name) for row in rows])
            for entry in fields(StructureScore)[1:]
        }
        missed = int(values.pop("missed").sum())
        found = {name: column[np.isfinite(column)] for name, column in values.items()}
        numbers = {
            name: float(column.mean()) if column.size else float("inf")
            for name, column in found.items()
        }
        means.append(StructureScore(rows[0].structure, **numbers, missed=missed))
    return means


# --------------------------------------------------------------------------------- tables and files


def scores_table(results: Mapping[str, Sequence[StructureScore]]) -> str:
    """Lay the rows of several methods out as one Markdown table;

    ``results`` goes from method to :func:`evaluate`'s.
    """
    lines = [
        "| method | structure | Dice | surface Dice | HD95 (mm) | ASSD (mm) | volume (mL) | reference (mL) |",
        "|:--|:--|--:|--:|--:|--:|--:|--:|",
    ]
    for method, rows in results.items():
        for row in rows:
            missed = f" ({row.missed} missed)" if row.missed and np.isfinite(row.hd95_mm) else ""
            lines.append(
                f"| {method} | {row.structure} | {row.dice:.3f} | {row.surface_dice:.3f} | {_text(row.hd95_mm, 1)}{missed} "
                f"| {_text(row.assd_mm, 2)}{missed} | {row.volume_ml:.0f} | {row.reference_ml:.0f} |"
            )
    return "\n".join(lines)


def summary_table(results: Results, metric_names: Sequence[str] = ("dice", "hd95_mm")) -> str:
    """Lay :func:`summarise` of every method out as one Markdown table; the interval is that of the
    mean.
    """
    lines = [
        "| method | structure | metric | mean | 95 % interval | median | worst | in case | missed |",
        "|:--|:--|:--|--:|--:|--:|--:|:--|--:|",
    ]
    for method, cases in results.items():
        for s in summarise(cases, metric_names):
            mean, low, high, median, worst = (
                _text(value, 1 if s.metric.endswith("_mm") else 3)
                for value in (s.mean, s.low, s.high, s.median, s.worst)
            )
            lines.append(
                f"| {method} | {s.structure} | {NAMES[s.metric]} | {mean} | {low} to {high} | {median} | {worst} "
                f"| {s.worst_case} | {s.missed} of {s.cases} |"
            )
    return "\n".join(lines)


def write_csv(results: Mapping[str, Results], path: str | Path) -> Path:
    """Write one line for each data set, method, case and structure, whole file or not at all.

    A missed distance is inf.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    columns = ["data", "method", "case", *(entry.name for entry in fields(StructureScore))]
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for data, methods in results.items():
            for method, cases in methods.items():
                writer.writerows(
                    {"data": data, "method": method, "case": case, **asdict(row)}
                    for case, rows in cases.items()
                    for row in rows
                )
    return part.replace(path)


def _text(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "missed"


def _check_pair(prediction: Volume, reference: Volume) -> None:
    check_same_grid("prediction", prediction.grid, "the reference", reference.grid)
    for name, volume in (("prediction", prediction), ("reference", reference)):
        with np.errstate(invalid="ignore"):
            whole = volume.array.astype(np.uint8)
        odd = np.unique(volume.array[(whole != volume.array) | (whole > len(STRUCTURES))])
        if odd.size:
            raise ValueError(
                f"{name}: expected labels 0 to {len(STRUCTURES)}, found {odd[:5].tolist()}"
            )


# --------------------------------------------------------------------------- the classical baseline

#: the baseline works on a grid of this spacing: fine enough for a bronchus, coarse enough for
#: seconds
GRID_MM = 2.0
AIR_HU = -400.0  #: half way between lung and soft tissue
LUNG_ML = 100.0  #: smaller pieces of air are not a lung
#: trachea and main bronchi are about 30 ml; more means that the lung leaked in
AIRWAY_ML = (5.0, 100.0)
AIRWAY_MM = 40.0  #: the least height of a piece of air that may be the trachea


def classical_baseline(image: Volume) -> Volume:
    """Segment lungs and trachea without learning: thresholds, connected components, and anatomy put
    into rules.

    ``image`` is ``(I, J, K)`` in HU, of any orientation. Returns uint8 labels 0..3 on its grid; a
    structure that no rule finds is missing. The rules hold for healthy chests that lie within the
    field of view. They break where a disease fills the lung, where a lung reaches the edge of the
    picture, and where emphysema is as thin as the airway.
    """
    grid, _ = Compose([ClipHU(), Orientation("RAS"), Spacing((GRID_MM,) * 3)])(image)
    inner = air_inside_body(grid.array)
    airway = find_airway(grid.array, inner)
    left, right = split_lungs(inner & ~ndimage.binary_dilation(airway, iterations=2))
    labels = np.zeros(inner.shape, np.uint8)
    for value, mask in ((1, left), (2, right)):
        labels[close_slices(mask)] = value
    labels[airway] = 3
    scores = np.stack([labels == value for value in range(4)]).astype(np.float32)
    return Volume(
        labels_on_grid(Volume(scores, grid.affine), image.array.shape, image.affine), image.affine
    )


def air_inside_body(hu: np.ndarray) -> np.ndarray:
    """Mark air that tissue surrounds in its axial slice: lungs, airway, gas in the bowel;

    RAS order.

    The body is the largest piece of tissue once thin bridges, as to the table, are cut by an
    opening.
    """
    tissue = ndimage.binary_opening(hu >= AIR_HU, iterations=2)
    body = cc3d.largest_k(tissue, k=1, connectivity=6) > 0
    filled = np.stack(
        [ndimage.binary_fill_holes(axial) for axial in np.moveaxis(body, 2, 0)], axis=2
    )
    return filled & (hu < AIR_HU)


def find_airway(hu: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Find trachea and main bronchi: lower the threshold until they come loose from the lungs.

    Air in the trachea has -1000 HU, lung about -850. At each threshold the airway is looked for
    among the pieces of air that are tall, of a trachea's volume, and centred above the middle of
    all air. The first hit counts, so the airway is as complete as can be without a leak. Blurred
    voxels at its wall lie above the threshold: one layer is added back.
    """
    if not inner.any():
        return inner
    middle = np.nonzero(inner)[2].mean()
    for threshold in range(-700, -980, -20):
        pieces = cc3d.connected_components(inner & (hu < threshold), connectivity=6)
        found = cc3d.statistics(pieces)
        millilitres = found["voxel_counts"] * GRID_MM**3 / 1000
        heights = np.array(
            [(box[2].stop - box[2].start) * GRID_MM for box in found["bounding_boxes"]]
        )
        fits = (
            (AIRWAY_ML[0] <= millilitres) & (millilitres <= AIRWAY_ML[1]) & (heights >= AIRWAY_MM)
        )
        fits &= found["centroids"][:, 2] > middle
        fits[0] = False  # piece 0 is everything else
        if fits.any():
            airway = pieces == np.argmax(np.where(fits, millilitres, 0))
            return ndimage.binary_dilation(airway) & inner
    return np.zeros_like(inner)


def split_lungs(air: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tell the left lung (lower index of the first axis) from the right, even where they touch.

    Erode until two pieces of a lung's size remain; then each voxel of air joins the piece that is
    nearest. If two never appear, the one piece counts as the side of the volume's middle on which
    it lies.
    """
    least = LUNG_ML * 1000 / GRID_MM**3
    eroded = air
    for _ in range(6):
        pieces, count = cc3d.largest_k(eroded, k=2, connectivity=6, return_N=True)
        sizes = np.bincount(pieces.ravel(), minlength=3)[1:]
        if count == 2 and sizes.min() >= max(least, sizes.max() / 5):
            break
        eroded = ndimage.binary_erosion(eroded)
    else:
        lung = cc3d.largest_k(air, k=1, connectivity=6) > 0
        if lung.sum() < least:
            return np.zeros_like(air), np.zeros_like(air)
        is_left = np.nonzero(lung)[0].mean() < air.shape[0] / 2
        return (lung, np.zeros_like(air)) if is_left else (np.zeros_like(air), lung)
    nearest = ndimage.distance_transform_edt(
        pieces == 0, return_distances=False, return_indices=True
    )
    connected = cc3d.connected_components(air, connectivity=6)
    lungs = pieces[tuple(nearest)] * np.isin(connected, np.unique(connected[pieces > 0]))
    first, second = lungs == 1, lungs == 2
    return (
        (first, second)
        if np.nonzero(first)[0].mean() < np.nonzero(second)[0].mean()
        else (second, first)
    )


def close_slices(mask: np.ndarray, radius_mm: float = 10.0) -> np.ndarray:
    """Close each axial slice of a lung: vessels and small bronchi belong to it although they are
    not air.
    """
    closed = mask.copy()
    for box in ndimage.find_objects(mask.astype(np.uint8)):
        reach = int(radius_mm / GRID_MM) + 1  # room to grow, and one voxel of background around it
        part = np.pad(mask[box], ((reach, reach), (reach, reach), (0, 0)))
        sampling = (GRID_MM, GRID_MM, 1e6)  # slices so far apart that a distance stays within one
        grown = ndimage.distance_transform_edt(~part, sampling=sampling) <= radius_mm
        shrunk = ndimage.distance_transform_edt(grown, sampling=sampling) > radius_mm
        closed[box] |= shrunk[reach:-reach, reach:-reach]
    return closed
