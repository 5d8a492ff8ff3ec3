"""A classical baseline: lungs and trachea from thresholds, connected components and anatomy.

Nothing is learnt. Each constant below was chosen by hand, for adults with a healthy chest that lies
within the field of view. The idea is that of Hu, Hoffman and Reinhardt (2001,
doi:10.1109/42.929615): take the air inside the body, remove the airway, split the rest into left
and right.

NumPy in, NumPy out. Arrays between the steps are in RAS order: the first axis from left to right,
the second from back to front, the third from foot to head.
"""

import cc3d
import numpy as np
from scipy import ndimage

from .inference import labels_on_grid
from .labels import LEFT_LUNG, NUM_CLASSES, RIGHT_LUNG, TRACHEA
from .transforms import ClipHU, Compose, Orientation, Spacing
from .volume import Volume

#: The baseline's own grid has this spacing: fine enough for a bronchus, coarse enough for seconds.
GRID_MM = 2.0

# ------------------------------------------------------------------------------- air in the body

#: Air is below this: half way between lung (about -850 HU) and soft tissue (about 50 HU).
AIR_HU = -400.0
#: Voxels of the morphological opening of tissue: it cuts bridges of up to 8 mm, as to the table.
BRIDGE_VOXELS = 2

# ------------------------------------------------------------------------------------ the airway

#: Thresholds that are tried for the airway. Air in the trachea has -1000 HU, lung about -850 HU. At
#: the first threshold both are one component; at the last, noise breaks up the trachea itself.
AIRWAY_HU = range(-700, -980, -20)
#: Smallest and largest volume. Trachea and main bronchi have about 30 mL; more than the upper limit
#: means that the component has leaked into a lung.
AIRWAY_ML = (5.0, 100.0)
#: The least height of a component that may be the trachea, which is about 100 mm long.
AIRWAY_MM = 40.0
#: A margin of this many voxels around the airway, its blurred wall, is excluded from the lungs.
WALL_VOXELS = 2

# ------------------------------------------------------------------------------------- the lungs

#: A smaller component is not a lung: even a lung shrunk by disease holds several times this.
LUNG_ML = 100.0
LUNG_VOXELS = LUNG_ML * 1000 / GRID_MM**3
#: The larger of two lungs has at most this many times the smaller's volume.
LUNG_RATIO = 5
#: At most this many erosions (10 mm on each side) are tried to separate the lungs.
EROSIONS = 5
#: Radius of the closing: vessels and bronchi up to twice as wide belong to the lung around them.
VESSEL_MM = 10.0
#: A slice distance so large that the nearest voxel is always in the same axial slice.
FAR_MM = 1e6


def classical_baseline(image: Volume) -> Volume:
    """Segment lungs and trachea without learning, by thresholds, components and anatomy.

    ``image`` is ``(I, J, K)`` in HU, of any orientation. Returns uint8 labels 0..3 on its grid; a
    structure that is not found is missing from them. The rules hold for healthy chests within the
    field of view. They fail where disease fills the lung, where a lung is cut by the edge of the
    image, and where emphysema is as dark as the air in the airway.
    """
    to_grid = Compose([ClipHU(), Orientation("RAS"), Spacing((GRID_MM,) * 3)])
    grid, _ = to_grid(image)
    inner = air_inside_body(grid.array)
    airway = find_airway(grid.array, inner)
    wall = ndimage.binary_dilation(airway, iterations=WALL_VOXELS)
    left, right = split_lungs(inner & ~wall)

    labels = np.zeros(inner.shape, np.uint8)
    labels[close_slices(left)] = LEFT_LUNG
    labels[close_slices(right)] = RIGHT_LUNG
    labels[airway] = TRACHEA

    # One score for each class: interpolated scores give smooth surfaces, without steps.
    one_hot = np.stack([labels == value for value in range(NUM_CLASSES)]).astype(np.float32)
    scores = Volume(one_hot, grid.affine)
    return Volume(labels_on_grid(scores, image.array.shape, image.affine), image.affine)


def air_inside_body(hu: np.ndarray) -> np.ndarray:
    """Mark air that tissue surrounds in its axial slice: lungs, airway, gas in the bowel.

    ``hu`` is ``(I, J, K)`` in RAS order, in voxels of :data:`GRID_MM`; the result is boolean. The
    body is the largest component of tissue after an opening, which cuts thin bridges, such as one
    to the table.
    """
    tissue = ndimage.binary_opening(hu >= AIR_HU, iterations=BRIDGE_VOXELS)
    body = cc3d.largest_k(tissue, k=1, connectivity=6) > 0
    axial_slices = np.moveaxis(body, 2, 0)
    filled = [ndimage.binary_fill_holes(axial) for axial in axial_slices]
    return np.stack(filled, axis=2) & (hu < AIR_HU)


def find_airway(hu: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Find trachea and main bronchi: lower the threshold until they separate from the lungs.

    ``hu`` and ``inner``, the air inside the body, are ``(I, J, K)`` in RAS order. The result is
    boolean, and empty if no airway is found. The first threshold at which a component fits an
    airway is used, which gives the most complete airway without a leak. Blurred voxels at its wall
    are above the threshold, so one layer of voxels is added back.
    """
    if not inner.any():
        return inner
    middle = float(np.nonzero(inner)[2].mean())  # of all air, from foot to head
    for threshold in AIRWAY_HU:
        pieces = cc3d.connected_components(inner & (hu < threshold), connectivity=6)
        number = _airway_piece(pieces, middle)
        if number is not None:
            return ndimage.binary_dilation(pieces == number) & inner
    return np.zeros_like(inner)


def _airway_piece(pieces: np.ndarray, middle: float) -> int | None:
    """The number of the component that is the airway, or ``None`` if there is none.

    The airway is tall, has the volume of a trachea, and has its centre above ``middle``, an index
    along the third axis. Of several such components the largest is taken. ``pieces`` gives each
    voxel the number of its component, 0 for none.
    """
    found = cc3d.statistics(pieces)
    volumes_ml = found["voxel_counts"] * GRID_MM**3 / 1000
    extents = [box[2] for box in found["bounding_boxes"]]
    heights_mm = np.array([(extent.stop - extent.start) * GRID_MM for extent in extents])
    smallest_ml, largest_ml = AIRWAY_ML
    fits = (smallest_ml <= volumes_ml) & (volumes_ml <= largest_ml)
    fits &= heights_mm >= AIRWAY_MM
    fits &= found["centroids"][:, 2] > middle
    fits[0] = False  # piece 0 is everything else
    return int(np.argmax(np.where(fits, volumes_ml, 0))) if fits.any() else None


def split_lungs(air: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Separate left lung and right lung, even where they touch; return both in this order.

    ``air`` is boolean ``(I, J, K)`` in RAS order, without the airway; so are both results. The left
    lung has the lower indices of the first axis. The air is eroded until two components of the size
    of a lung remain; then each voxel of air joins the nearest one. If there are never two, the
    largest component is left or right by the side of the volume's middle on which it lies.
    """
    cores = _two_cores(air)
    if cores is None:
        return _one_lung(air)
    nearest = ndimage.distance_transform_edt(
        cores == 0, return_distances=False, return_indices=True
    )
    connected = cc3d.connected_components(air, connectivity=6)
    with_core = np.isin(connected, np.unique(connected[cores > 0]))
    lungs = cores[tuple(nearest)] * with_core
    first, second = lungs == 1, lungs == 2
    return (first, second) if _left_to_right(first) < _left_to_right(second) else (second, first)


def _two_cores(air: np.ndarray) -> np.ndarray | None:
    """The cores of two lungs, eroded until they separate, as 1 and 2; ``None`` if they never do."""
    eroded = air
    for _ in range(EROSIONS + 1):
        pieces, count = cc3d.largest_k(eroded, k=2, connectivity=6, return_N=True)
        sizes = np.bincount(pieces.ravel(), minlength=3)[1:]
        if count == 2 and sizes.min() >= max(LUNG_VOXELS, sizes.max() / LUNG_RATIO):
            return pieces
        eroded = ndimage.binary_erosion(eroded)
    return None


def _one_lung(air: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest component as left or right lung, by its position; neither if it is too small."""
    lung = cc3d.largest_k(air, k=1, connectivity=6) > 0
    none = np.zeros_like(air)
    if lung.sum() < LUNG_VOXELS:
        return none, none
    is_left = _left_to_right(lung) < air.shape[0] / 2
    return (lung, none) if is_left else (none, lung)


def _left_to_right(mask: np.ndarray) -> float:
    """The mean index of a mask along the first axis."""
    return float(np.nonzero(mask)[0].mean())


def close_slices(mask: np.ndarray, radius_mm: float = VESSEL_MM) -> np.ndarray:
    """Close each axial slice of a lung: gaps up to ``2 * radius_mm`` wide are filled.

    Vessels and small bronchi belong to a lung although they are not air. ``mask`` is boolean
    ``(I, J, K)`` in RAS order, in voxels of :data:`GRID_MM`. Returns a new array.
    """
    closed = mask.copy()
    margin = int(radius_mm / GRID_MM) + 1  # room to grow, plus one voxel of background
    in_slice = (GRID_MM, GRID_MM, FAR_MM)
    for box in ndimage.find_objects(mask.astype(np.uint8)):
        lung = np.pad(mask[box], ((margin, margin), (margin, margin), (0, 0)))
        grown = ndimage.distance_transform_edt(~lung, sampling=in_slice) <= radius_mm
        shrunk = ndimage.distance_transform_edt(grown, sampling=in_slice) > radius_mm
        closed[box] |= shrunk[margin:-margin, margin:-margin]
    return closed
