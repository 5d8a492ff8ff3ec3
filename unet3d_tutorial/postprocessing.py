"""Post-processing: prior knowledge of lungs and trachea, applied after the network.

There are two kinds:

- *The HU of each voxel.* A voxel as dense as water is hardly lung. :func:`hu_scores` expresses this
  as logits, which are added to the network's logits on the scan's grid.
- *Repairs of the mask.* :func:`clean` applies those that the configuration asks for: keep the
  largest component of each structure, complete pieces of air, fill holes.

Completing pieces of air corrects two errors that are typical of a network with coarse voxels. Where
a lung touches the trachea, the wall between them is thinner than a voxel, and part of the air in
the airway is labelled lung. Sometimes, part of a lung is labelled background, because it looks like
gas in the bowel. The scan itself shows the walls, so :func:`whole_air` examines pieces of air in
axial slices: connected voxels below a threshold in HU. A piece that is mostly one structure becomes
that structure completely. Left and right lung are never exchanged; the network decides between
them.

NumPy in, NumPy out. The idea, a threshold and connected components, comes from classical lung
segmentation (Hu, Hoffman and Reinhardt, 2001, doi:10.1109/42.929615).
"""

from collections.abc import Callable

import cc3d
import numpy as np
from scipy import ndimage

from .config import Config
from .labels import LEFT_LUNG, NUM_CLASSES, RIGHT_LUNG, TRACHEA
from .volume import Volume

#: A box of the scan's voxels: one slice for each of its axes.
Box = tuple[slice, ...]
#: Gives scores ``(classes, ...)`` to add to the logits in a box of the scan.
Prior = Callable[[Box], np.ndarray]

LUNGS = (LEFT_LUNG, RIGHT_LUNG)

# ------------------------------------------------------------------------------- the voxel's own HU

#: Half way between lung (about -850 HU) and soft tissue (about 50 HU): the scores are 0.
NEUTRAL_HU = -400
#: Below this all air scores the same: dense lung as much as the air in the trachea.
FLOOR_HU = -600
#: Above this all tissue scores the same: bone and metal no more than muscle.
CEILING_HU = 200
#: The difference in HU that changes a logit by 1.
HU_PER_LOGIT = 300
#: Penalty of tissue for the trachea, as a share of that for lung; its label includes its wall.
TRACHEA_SHARE = 0.5
#: The most by which :func:`hu_scores` raises a structure over the background.
HU_GAIN = (NEUTRAL_HU - FLOOR_HU) / HU_PER_LOGIT


def hu_scores(hu: np.ndarray) -> np.ndarray:
    """Scores of the classes from HU alone: voxels of any shape ``(...)`` to logits ``(4, ...)``.

    A voxel below -400 HU is more air than tissue, so the score of background is lowered. Above, the
    scores of both lungs are lowered, and that of the trachea by half as much, because its label
    includes its wall. The scores are linear in HU and limited to the range -600 to 200 HU. They
    therefore matter only where the network is uncertain: at surfaces, where the scan has more
    detail than the working grid.

    The classes are background, left lung, right lung, trachea. NaN scores like the densest tissue.
    """
    limited = np.fmin(np.fmax(hu, FLOOR_HU), CEILING_HU)
    air = (NEUTRAL_HU - limited).astype(np.float32) / HU_PER_LOGIT
    background = -np.maximum(air, 0)
    lung = np.minimum(air, 0)
    return np.stack([background, lung, lung, TRACHEA_SHARE * lung])


def hu_prior(image: Volume, config: Config) -> tuple[Prior | None, float]:
    """The prior that adds scores from a scan's HU to the logits, and its largest gain.

    ``image`` is ``(I, J, K)`` in HU. The prior returns ``config.inference.hu_weight`` times
    :func:`hu_scores` for a box of voxels; it is ``None`` if the weight is 0. The gain is the most
    by which it raises a structure over the background. Raises ``ValueError`` if the weight is not 0
    and the network does not have the four classes that :func:`hu_scores` knows.
    """
    weight, classes = config.inference.hu_weight, config.model.num_classes
    if not weight:
        return None, 0.0
    if classes != NUM_CLASSES:
        raise ValueError(
            f"inference.hu_weight: expected 0 for a network of {classes} classes, "
            f"found {weight:g}; HU scores exist only for background, left lung, right lung and "
            "trachea"
        )

    def prior(box: Box) -> np.ndarray:
        return weight * hu_scores(np.ascontiguousarray(image.array[box]))

    return prior, weight * HU_GAIN


# ----------------------------------------------------------------------------- repairs of the mask


def clean(labels: np.ndarray, image: Volume, config: Config) -> np.ndarray:
    """Repair a mask with those steps that ``config.inference`` enables.

    ``labels`` are ``(I, J, K)`` on the grid of ``image``, which is in HU. The steps are
    ``largest_component``, ``whole_air`` (only with the four classes) and ``fill_holes``, in this
    order.
    """
    options = config.inference
    if options.largest_component:
        labels = keep_largest_component(labels)
    if options.whole_air and config.model.num_classes == NUM_CLASSES:
        labels = whole_air(labels, image)
    if options.fill_holes:
        labels = fill_holes(labels)
    return labels


def keep_largest_component(labels: np.ndarray) -> np.ndarray:
    """Keep the largest connected component of each structure; the rest becomes background.

    A lung or a trachea is one component, so smaller ones are errors: air outside the body, gas in
    the bowel. Voxels that share a face, an edge or a corner are connected (26 neighbours).
    ``labels`` are ``(I, J, K)``. Returns a new array.
    """
    kept = np.zeros_like(labels)
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            largest = cc3d.largest_k(labels[box] == value, k=1, connectivity=26) > 0
            kept[box][largest] = value
    return kept


def fill_holes(labels: np.ndarray) -> np.ndarray:
    """Fill holes: background that is enclosed by one structure becomes part of that structure.

    A lung has no holes: a vessel or a nodule that the mask leaves out is part of it. Background is
    enclosed if no path through faces of voxels leads out of the structure. Other structures inside
    keep their labels. ``labels`` are ``(I, J, K)``. Returns a new array.
    """
    filled = labels.copy()
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        pieces = cc3d.connected_components(labels[box] != value, connectivity=6)
        outside = np.unique(np.concatenate(_faces(pieces)))
        holes = ~np.isin(pieces, outside) & (labels[box] == 0)
        filled[box][holes] = value
    return filled


def _faces(array: np.ndarray) -> list[np.ndarray]:
    """The values on the outer faces of an array of any dimension, each face as one flat array."""
    faces = []
    for axis in range(array.ndim):
        slices = np.moveaxis(array, axis, 0)
        faces += [slices[0].ravel(), slices[-1].ravel()]
    return faces


# --------------------------------------------------------------------------- whole pieces of air
#
# The limits are round numbers. They were compared on synthetic scans and on modified copies of the
# real one: coarser, noisier, cropped, rotated, smaller and larger.

#: Threshold of air in the trachea (-1000 HU): its thin, blurred wall may be no denser than -400 HU.
LUMEN_HU = -700
#: A structure with at least this share of a piece of air next to the trachea gets all of it.
LUMEN_SHARE = 0.6
#: Only air this close to the trachea's label changes: further away, a gap in a wall could join all.
LUMEN_REACH_MM = 6.0
#: Threshold of air in a lung: a little below -400 HU, so that blurred walls do not count as air.
LUNG_HU = -500
#: A lung with at least this share of a piece of air anywhere in a slice gets all of it.
LUNG_SHARE = 0.7


def whole_air(labels: np.ndarray, image: Volume) -> np.ndarray:
    """Assign each piece of air to the structure that fills most of it.

    ``labels`` are ``(I, J, K)`` with 0 background, 1 left lung, 2 right lung, 3 trachea, on the
    grid of ``image``, which is in HU. Only voxels of air change: near the trachea between trachea
    and lung, and anywhere from background to lung. Returns a new array.
    """
    head_mm = np.abs(image.affine[2, :3] / image.spacing_mm)
    axial = int(head_mm.argmax())  # the array axis from foot to head
    pixel_mm = np.delete(image.spacing_mm, axial)
    labels = labels.copy(order="K")
    label_slices = np.moveaxis(labels, axial, 0)  # a view: changes in it are changes in labels
    hu_slices = np.moveaxis(image.array, axial, 0)
    for label_slice, hu_slice in zip(label_slices, hu_slices, strict=True):
        if label_slice.any():
            _mend_lumen(label_slice, hu_slice, pixel_mm)
            _mend_lungs(label_slice, hu_slice)
    return labels


def _mend_lumen(labels: np.ndarray, hu: np.ndarray, pixel_mm: np.ndarray) -> None:
    """Correct air near the trachea in a slice ``(I, J)``, in place: trachea to lung or reverse."""
    box = _around(labels == TRACHEA, LUMEN_REACH_MM, pixel_mm)
    if box is None:
        return
    labels, hu = labels[box], hu[box]
    trachea = labels == TRACHEA
    distance_mm = ndimage.distance_transform_edt(~trachea, sampling=pixel_mm)
    lumen = (hu < LUMEN_HU) & (distance_mm <= LUMEN_REACH_MM) & (labels > 0)
    pieces, counts = _pieces(lumen, labels)
    owner = _owner(pieces, counts, (*LUNGS, TRACHEA), LUMEN_SHARE)
    changed = (owner == TRACHEA) | trachea & (owner > 0)
    labels[changed] = owner[changed]


def _mend_lungs(labels: np.ndarray, hu: np.ndarray) -> None:
    """Change background to lung in a slice ``(I, J)``, in place."""
    pieces, counts = _pieces(hu < LUNG_HU, labels)
    # A piece that touches the border of the slice may be the air around the body.
    cut = np.unique(np.concatenate(_faces(pieces)))
    counts[cut] = 0
    owner = _owner(pieces, counts, LUNGS, LUNG_SHARE)
    changed = (labels == 0) & (owner > 0)
    labels[changed] = owner[changed]


def _around(mask: np.ndarray, reach_mm: float, pixel_mm: np.ndarray) -> Box | None:
    """The box around a mask ``(I, J)`` plus ``reach_mm`` on each side; ``None`` if it is empty."""
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return None
    margin = np.ceil(reach_mm / pixel_mm).astype(int)
    return tuple(
        slice(max(extent.start - pixels, 0), extent.stop + pixels)
        for extent, pixels in zip(boxes[0], margin, strict=True)
    )


def _pieces(air: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pieces of air in a slice, and the number of pixels of each label in each piece.

    Returns the number of the piece that each pixel ``(I, J)`` is in, 0 for none, and counts
    ``(pieces + 1, NUM_CLASSES)``. The counts of piece 0 are 0.
    """
    pieces, number = cc3d.connected_components(air, connectivity=4, return_N=True)
    # Piece and label are combined into one number, so that one pass counts both.
    pairs = (pieces * NUM_CLASSES + labels).ravel(order="K")
    counts = np.bincount(pairs, minlength=NUM_CLASSES * (number + 1)).reshape(-1, NUM_CLASSES)
    counts[0] = 0
    return pieces, counts


def _owner(
    pieces: np.ndarray, counts: np.ndarray, structures: tuple[int, ...], share: float
) -> np.ndarray:
    """For each pixel, the structure that has at least ``share`` of the pixel's piece, or 0."""
    strongest = np.array(structures)[counts[:, structures].argmax(axis=1)]
    held = counts[np.arange(len(counts)), strongest]
    owns = (held > 0) & (held >= share * counts.sum(axis=1))
    return np.where(owns, strongest, 0)[pieces]
