"""The lines that ``unet3d predict`` prints for each mask, with the volumes in mL."""

from pathlib import Path

import numpy as np

from ..labels import STRUCTURES
from ..volume import Volume


def mask_line(path: Path, mask: Volume) -> str:
    """The line for a mask that was written to ``path``."""
    return f"{path}: {volumes(mask)}"


def kept_line(path: Path) -> str:
    """The line for a mask that existed already."""
    return f"{path}: kept, it exists already; --overwrite replaces it"


def volumes(mask: Volume) -> str:
    """List the volume of each structure of a mask ``(I, J, K)`` in mL.

    For example ``"left lung 2310 mL, right lung 2645 mL, trachea 41 mL"``. Labels beyond those of
    ``STRUCTURES`` are named by their number, up to the highest in the mask.
    """
    values = range(1, max(len(STRUCTURES), int(mask.array.max())) + 1)
    names = dict(enumerate(STRUCTURES, start=1))
    texts = []
    for value in values:
        voxels = np.count_nonzero(mask.array == value)
        name = names.get(value, f"label {value}")
        texts.append(f"{name} {voxels * mask.voxel_ml:.0f} mL")
    return ", ".join(texts)
