"""What a mask of lungs and trachea should look like in a patient."""

import numpy as np

from ..labels import STRUCTURES
from ..volume import Volume
from .layout import MASK_VALUES


def odd_anatomy(mask: Volume, values: tuple[int, int, int] = MASK_VALUES) -> str | None:
    """Report structures that are absent, or a left and right lung that look swapped.

    ``values`` are the label values of left lung, right lung and trachea. Returns a sentence, or
    ``None`` if nothing is odd. The sides are compared by the positions of the lungs in RAS mm, so
    this also finds a well-formed file with wrong geometry. Some people have mirrored organs, so the
    result is a reason to look at the scan, not an error.
    """
    absent = [
        name
        for name, value in zip(STRUCTURES, values, strict=True)
        if not (mask.array == value).any()
    ]
    if absent:
        return f"the mask has no {', no '.join(absent)}"
    left, right, _ = values
    left_mm = _center_mm(mask.array == left, mask.affine)[0]
    right_mm = _center_mm(mask.array == right, mask.affine)[0]
    if left_mm >= right_mm:  # the first coordinate grows towards the patient's right
        return (
            "left and right lung look swapped: the left one's centre is "
            f"{left_mm - right_mm:.0f} mm further to the patient's right"
        )
    return None


def _center_mm(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Centre of a mask in RAS mm.

    It is computed from the mask's profile along each axis, which needs far less memory than a list
    of its voxels.
    """
    profiles = [mask.sum(axis=others) for others in ((1, 2), (0, 2), (0, 1))]
    index = [np.average(np.arange(len(profile)), weights=profile) for profile in profiles]
    return affine[:3, :3] @ index + affine[:3, 3]
