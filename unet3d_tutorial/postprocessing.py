"""Air that walls enclose belongs to one structure: mend a mask where the scan shows finer than the
working grid.

Two mistakes are typical of a network that sees coarse voxels. Where a lung touches the trachea, the
wall between them is thinner than a voxel, and a part of the airway's air is labelled lung. And now
and then a part of a lung is labelled background, for it looks like gas in the bowel. The scan
itself shows the walls. So this module looks at pieces of air in axial slices: voxels below a limit
of HU that hang together. A piece that one structure nearly fills becomes that structure as a whole.
Left and right lung are never exchanged: between them the network decides.

NumPy in, NumPy out. The idea, a threshold and connected pieces, is that of classical lung
segmentation (Hu, Hoffman and Reinhardt, 2001, doi:10.1109/42.929615). The limits are round numbers,
compared on synthetic scans and on altered copies of the real one: coarser, noisier, cut, turned,
smaller and larger.
"""

import cc3d
import numpy as np
from scipy import ndimage

from .labels import LEFT_LUNG, RIGHT_LUNG, TRACHEA
from .volume import Volume

LUNGS = LEFT_LUNG, RIGHT_LUNG
#: air beside the trachea, within some mm of its label
LUMEN_HU = -700
LUMEN_SHARE = 0.6
LUMEN_REACH_MM = 6.0
LUNG_HU, LUNG_SHARE = -500, 0.7  #: air anywhere in a slice


def whole_air(labels: np.ndarray, image: Volume) -> np.ndarray:
    """Give pieces of air to the structure that nearly fills them:

    ``(I, J, K)`` labels, a new array.

    ``labels`` are 0 background, 1 left lung, 2 right lung, 3 trachea, on the grid of ``image``,
    which is in HU. Only voxels of air change: between trachea and lung beside the trachea, and from
    background to lung.
    """
    # The array axis that runs along the body.
    axial = int(np.abs(image.affine[2, :3] / image.spacing_mm).argmax())
    spacing_mm = np.delete(image.spacing_mm, axial)
    labels = labels.copy(order="K")
    for mask, hu in zip(
        np.moveaxis(labels, axial, 0), np.moveaxis(image.array, axial, 0), strict=True
    ):
        if mask.any():
            _mend_lumen(mask, hu, spacing_mm)
            _mend_lungs(mask, hu)
    return labels


def _mend_lumen(labels: np.ndarray, hu: np.ndarray, spacing_mm: np.ndarray) -> None:
    """Exchange trachea and lung in a slice, in place.

    Nearby voxels only: further away a gap in the wall would join all.
    """
    box = ndimage.find_objects((labels == TRACHEA).astype(np.uint8))
    if not box:
        return
    margin = np.ceil(LUMEN_REACH_MM / spacing_mm).astype(int)
    box = tuple(
        slice(max(part.start - m, 0), part.stop + m) for part, m in zip(box[0], margin, strict=True)
    )
    labels, hu = labels[box], hu[box]
    trachea = labels == TRACHEA
    near = ndimage.distance_transform_edt(~trachea, sampling=spacing_mm) <= LUMEN_REACH_MM
    pieces, counts = _pieces((hu < LUMEN_HU) & near & (labels > 0), labels)
    owner = _owner(pieces, counts, (*LUNGS, TRACHEA), LUMEN_SHARE)
    change = (owner == TRACHEA) | trachea & (owner > 0)
    labels[change] = owner[change]


def _mend_lungs(labels: np.ndarray, hu: np.ndarray) -> None:
    """Give background in a slice to a lung, in place.

    A piece that the slice's border cuts may be air around the body.
    """
    pieces, counts = _pieces(hu < LUNG_HU, labels)
    counts[np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))] = 0
    owner = _owner(pieces, counts, LUNGS, LUNG_SHARE)
    change = (labels == 0) & (owner > 0)
    labels[change] = owner[change]


def _pieces(air: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The piece that each voxel ``(I, J)`` is in, 0 for none, and the voxels of each label in it,
    ``(pieces + 1, 4)``.
    """
    pieces, number = cc3d.connected_components(air, connectivity=4, return_N=True)
    counts = np.bincount(
        (pieces * 4 + labels).ravel(order="K"), minlength=4 * (number + 1)
    ).reshape(-1, 4)
    counts[0] = 0
    return pieces, counts


def _owner(
    pieces: np.ndarray, counts: np.ndarray, structures: tuple[int, ...], share: float
) -> np.ndarray:
    """For each voxel the one of ``structures`` that holds at least ``share`` of its piece, or 0."""
    most = np.array(structures)[counts[:, structures].argmax(axis=1)]
    held = counts[np.arange(len(counts)), most]
    return np.where((held > 0) & (held >= share * counts.sum(axis=1)), most, 0)[pieces]
