"""Score a mask of a whole scan, structure by structure, and the classical method that a network has to beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from scipy import ndimage

from . import metrics
from .inference import labels_on_grid
from .labels import STRUCTURES
from .transforms import ClipHU, Compose, Orientation, Spacing
from .volume import Volume


@dataclass(frozen=True)
class StructureScore:
    """How well one structure was segmented. For empty masks see the contract in :mod:`unet3d_tutorial.metrics`."""

    structure: str
    dice: float  #: overlap, 0..1
    hd95_mm: float  #: 95th percentile of the surface distances
    assd_mm: float  #: mean surface distance
    volume_ml: float  #: of the prediction
    reference_ml: float  #: of the reference


def evaluate(prediction: Volume, reference: Volume) -> list[StructureScore]:
    """Score labels 0..3 of ``(I, J, K)`` against the reference's, on one grid; one row for each of ``STRUCTURES``.

    Raises ``ValueError`` if shape or affine differ, or if there are labels other than 0..3.
    """
    _check_pair(prediction, reference)
    spacing_mm = reference.spacing_mm
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    rows = []
    for value, structure in enumerate(STRUCTURES, start=1):
        found, true = prediction.array == value, reference.array == value
        distances = metrics.surface_distances(found, true, spacing_mm=spacing_mm)
        rows.append(
            StructureScore(
                structure=structure,
                dice=metrics.dice(found, true),
                hd95_mm=metrics.hd95_of(*distances),
                assd_mm=metrics.assd_of(*distances),
                volume_ml=int(found.sum()) * voxel_ml,
                reference_ml=int(true.sum()) * voxel_ml,
            )
        )
    return rows


def scores_table(results: Mapping[str, Sequence[StructureScore]]) -> str:
    """Lay the rows of several methods out as one Markdown table; ``results`` goes from method to :func:`evaluate`'s."""
    lines = [
        "| method | structure | Dice | HD95 (mm) | ASSD (mm) | volume (ml) | reference (ml) |",
        "|:--|:--|--:|--:|--:|--:|--:|",
    ]
    for method, rows in results.items():
        for row in rows:
            lines.append(
                f"| {method} | {row.structure} | {row.dice:.3f} | {row.hd95_mm:.1f} | {row.assd_mm:.2f} "
                f"| {row.volume_ml:.0f} | {row.reference_ml:.0f} |"
            )
    return "\n".join(lines)


def _check_pair(prediction: Volume, reference: Volume) -> None:
    if prediction.array.shape != reference.array.shape:
        raise ValueError(f"prediction: expected shape {reference.array.shape}, found {prediction.array.shape}")
    if not np.allclose(prediction.affine, reference.affine, atol=1e-3):
        raise ValueError(
            f"prediction: expected the reference's affine {reference.affine.tolist()}, "
            f"found {prediction.affine.tolist()}"
        )
    for name, volume in (("prediction", prediction), ("reference", reference)):
        odd = sorted(set(np.unique(volume.array).tolist()) - set(range(len(STRUCTURES) + 1)))
        if odd:
            raise ValueError(f"{name}: expected labels 0 to {len(STRUCTURES)}, found {odd[:5]}")


# ------------------------------------------------------------------------------------------- the classical baseline

GRID_MM = 2.0  #: the baseline works on a grid of this spacing: fine enough for a bronchus, coarse enough for seconds
AIR_HU = -400.0  #: half way between lung and soft tissue
LUNG_ML = 100.0  #: smaller pieces of air are not a lung
AIRWAY_ML = (5.0, 100.0)  #: trachea and main bronchi are about 30 ml; more means that the lung leaked in
AIRWAY_MM = 40.0  #: the least height of a piece of air that may be the trachea


def classical_baseline(image: Volume) -> Volume:
    """Segment lungs and trachea without learning: thresholds, connected components, and anatomy put into rules.

    ``image`` is ``(I, J, K)`` in HU, of any orientation. Returns uint8 labels 0..3 on its grid; a structure that no
    rule finds is missing. The rules hold for healthy chests that lie within the field of view. They break where a
    disease fills the lung, where a lung reaches the edge of the picture, and where emphysema is as thin as the airway.
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
    return Volume(labels_on_grid(Volume(scores, grid.affine), image.array.shape, image.affine), image.affine)


def air_inside_body(hu: np.ndarray) -> np.ndarray:
    """Mark air that tissue surrounds in its axial slice: lungs, airway, gas in the bowel; RAS order.

    The body is the largest piece of tissue once thin bridges, as to the table, are cut by an opening.
    """
    tissue = ndimage.binary_opening(hu >= AIR_HU, iterations=2)
    body = cc3d.largest_k(tissue, k=1, connectivity=6) > 0
    filled = np.stack([ndimage.binary_fill_holes(axial) for axial in np.moveaxis(body, 2, 0)], axis=2)
    return filled & (hu < AIR_HU)


def find_airway(hu: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Find trachea and main bronchi: lower the threshold until they come loose from the lungs.

    Air in the trachea has -1000 HU, lung about -850. At each threshold the airway is looked for among the pieces of
    air that are tall, of a trachea's volume, and centred above the middle of all air. The first hit counts, so the
    airway is as complete as can be without a leak. Blurred voxels at its wall lie above the threshold: one layer is
    added back.
    """
    if not inner.any():
        return inner
    middle = np.nonzero(inner)[2].mean()
    for threshold in range(-700, -980, -20):
        pieces = cc3d.connected_components(inner & (hu < threshold), connectivity=6)
        found = cc3d.statistics(pieces)
        millilitres = found["voxel_counts"] * GRID_MM**3 / 1000
        heights = np.array([(box[2].stop - box[2].start) * GRID_MM for box in found["bounding_boxes"]])
        fits = (AIRWAY_ML[0] <= millilitres) & (millilitres <= AIRWAY_ML[1]) & (heights >= AIRWAY_MM)
        fits &= found["centroids"][:, 2] > middle
        fits[0] = False  # piece 0 is everything else
        if fits.any():
            airway = pieces == np.argmax(np.where(fits, millilitres, 0))
            return ndimage.binary_dilation(airway) & inner
    return np.zeros_like(inner)


def split_lungs(air: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tell the left lung (lower index of the first axis) from the right, even where they touch.

    Erode until two pieces of a lung's size remain; then each voxel of air joins the piece that is nearest. If two never
    appear, the one piece counts as the side of the volume's middle on which it lies.
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
    nearest = ndimage.distance_transform_edt(pieces == 0, return_distances=False, return_indices=True)
    connected = cc3d.connected_components(air, connectivity=6)
    lungs = pieces[tuple(nearest)] * np.isin(connected, np.unique(connected[pieces > 0]))
    first, second = lungs == 1, lungs == 2
    return (first, second) if np.nonzero(first)[0].mean() < np.nonzero(second)[0].mean() else (second, first)


def close_slices(mask: np.ndarray, radius_mm: float = 10.0) -> np.ndarray:
    """Close each axial slice of a lung: vessels and small bronchi belong to it although they are not air."""
    closed = mask.copy()
    for box in ndimage.find_objects(mask.astype(np.uint8)):
        reach = int(radius_mm / GRID_MM) + 1  # room to grow, and one voxel of background around it
        part = np.pad(mask[box], ((reach, reach), (reach, reach), (0, 0)))
        sampling = (GRID_MM, GRID_MM, 1e6)  # slices so far apart that a distance stays within one
        grown = ndimage.distance_transform_edt(~part, sampling=sampling) <= radius_mm
        shrunk = ndimage.distance_transform_edt(grown, sampling=sampling) > radius_mm
        closed[box] |= shrunk[reach:-reach, reach:-reach]
    return closed
