"""Steps that change labels only: from values in files to class numbers, then to one-hot."""

from dataclasses import replace

import numpy as np

from ..volume import Volume
from .base import Pair, Transform


def has_classes(label: np.ndarray) -> bool:
    """Whether a mask holds the classes 1, 2 and 3, as this package writes them.

    Masks of LUNA16 use 3, 4 and 5 for the same structures. They may also contain 1 and 2, which
    count as background, but then also a value above 3 for a lung or the trachea.

    >>> has_classes(np.array([0, 1, 2, 3])), has_classes(np.array([0, 1, 2, 4]))
    (True, False)
    """
    return bool(label.max() <= 3 and ((label == 1) | (label == 2)).any())


class ConvertLabel(Transform):
    """Map label values ``lower_limit .. upper_limit`` to ``1 .. n``, all others to 0 (background).

    The label may have any shape and becomes uint8. The image does not change.

    Raises ``ValueError`` if ``lower_limit`` is above 2 and the mask already holds the classes 1, 2
    and 3: both lungs would become background, and the trachea could become a lung.

    >>> label = Volume(np.array([[[0, 2, 3, 4, 5]]]), np.eye(4))
    >>> ConvertLabel(3, 5)(label, label)[1].array.tolist()
    [[[0, 0, 1, 2, 3]]]
    """

    def __init__(self, lower_limit: int = 3, upper_limit: int = 5):
        self.lower_limit = lower_limit
        self.upper_limit = upper_limit

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        if label is None:
            return image, None
        values = label.array
        if self.lower_limit > 2 and has_classes(values):
            raise ValueError(
                f"expected label values from {self.lower_limit} to {self.upper_limit}, found the "
                "classes 1, 2 and 3; for masks of these set data.lower_limit=1 data.upper_limit=3"
            )
        is_structure = (values >= self.lower_limit) & (values <= self.upper_limit)
        classes = np.where(is_structure, values - (self.lower_limit - 1), 0)
        return image, replace(label, array=classes.astype(np.uint8))


class OneHot(Transform):
    """Turn class numbers into one channel for each class, with zeros and ones.

    The label ``(..., 1, I, J, K)`` becomes ``(..., num_classes, I, J, K)``, float32. One comparison
    with all class numbers replaces a loop over voxels. The image does not change.

    Raises ``ValueError`` for a label without a channel axis, or with a value of ``num_classes`` or
    more.

    >>> label = Volume(np.array([0, 2, 1]).reshape(1, 1, 1, 3), np.eye(4))
    >>> OneHot(3)(label, label)[1].array[:, 0, 0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        if label is None:
            return image, None
        if label.array.ndim < 4 or label.array.shape[-4] != 1:
            raise ValueError(
                f"label: expected shape (..., 1, I, J, K), found {label.array.shape}; "
                "add ExpandChannel"
            )
        if label.array.max() >= self.num_classes:
            raise ValueError(
                f"label: expected values below {self.num_classes}, found {label.array.max()}"
            )
        classes = np.arange(self.num_classes, dtype=label.array.dtype).reshape(-1, 1, 1, 1)
        one_hot = np.empty(np.broadcast_shapes(label.array.shape, classes.shape), np.float32)
        # Writes 0 and 1 directly into the result.
        np.equal(label.array, classes, out=one_hot, casting="unsafe")
        return image, replace(label, array=one_hot)
