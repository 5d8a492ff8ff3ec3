"""Steps that change HU: clipping below air, and scaling the window that the network sees."""

from dataclasses import replace

import numpy as np

from ..volume import Volume
from .base import Pair, Transform

AIR_HU = -1024  #: the lowest meaningful value; scanners pad with this or with lower values


class ClipHU(Transform):
    """Set HU below -1024, and NaN, to -1024; label and affines do not change.

    Scanners fill voxels outside their field of view with -1024, -2048 or -3024, which resampling
    would smear into the patient. There is nothing to learn from values below air. An image whose
    type cannot represent -1024 does not change.

    >>> scan = Volume(np.array([[[-3024.0, np.nan, 40.0]]]), np.eye(4))
    >>> ClipHU()(scan)[0].array.tolist()
    [[[-1024.0, -1024.0, 40.0]]]
    """

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        kind = image.array.dtype
        if kind.kind in "iu" and np.iinfo(kind).min > AIR_HU:
            return image, label
        return replace(image, array=np.fmax(image.array, kind.type(AIR_HU))), label


class ScaleIntensityRange(Transform):
    """Map HU linearly so that ``src_min`` becomes ``tgt_min`` and ``src_max`` becomes ``tgt_max``.

    With ``is_clip``, values outside this range are clipped. The image becomes float32; label and
    affines do not change.

    Raises ``ValueError`` unless ``src_min`` is below ``src_max``.

    >>> scan = Volume(np.array([[[-1000, -300, 3000]]]), np.eye(4))
    >>> ScaleIntensityRange(-1000, 400)(scan)[0].array
    array([[[0. , 0.5, 1. ]]], dtype=float32)
    """

    def __init__(
        self,
        src_min: float,
        src_max: float,
        tgt_min: float = 0.0,
        tgt_max: float = 1.0,
        is_clip: bool = True,
    ):
        if src_min >= src_max:
            raise ValueError(
                f"src_min: expected a value below src_max = {src_max}, found {src_min}"
            )
        self.src_min = src_min
        self.src_max = src_max
        self.tgt_min = tgt_min
        self.tgt_max = tgt_max
        self.is_clip = is_clip

    def transform(self, image: Volume, label: Volume | None) -> Pair:
        slope = (self.tgt_max - self.tgt_min) / (self.src_max - self.src_min)
        array = image.array.astype(np.float32) - np.float32(self.src_min)
        array *= np.float32(slope)  # in place: scans are large
        array += np.float32(self.tgt_min)
        if self.is_clip:
            low, high = sorted((self.tgt_min, self.tgt_max))
            np.clip(array, low, high, out=array)
        return replace(image, array=array), label
