"""From a file to a network's input: small steps ``(image, label) -> (image, label)``.

Image and label are :class:`~unet3d_tutorial.volume.Volume` objects and are transformed together;
``label`` may be ``None``. :class:`.base.Transform` and :class:`.base.RandomTransform` document what
all steps have in common. Arrays are ``(I, J, K)`` as they come from a file, and ``(C, I, J, K)``
from :class:`ExpandChannel` on. Data augmentation is in :mod:`unet3d_tutorial.augment`. MindSpore is
not needed here.

The modules follow chapter 3: ``grid``, ``intensity``, ``label``, ``crops``, ``position``. They
build on ``base`` and ``resampling``; ``pipeline`` chains them.
"""

from .base import Pair, RandomTransform, Transform
from .crops import CenterCrop, CropForeground, Pad, RandomCropSamples
from .grid import ExpandChannel, Orientation, Spacing
from .intensity import ClipHU, ScaleIntensityRange
from .label import ConvertLabel, OneHot, has_classes
from .pipeline import Compose, LoadData, convert_files, grid_steps, input_steps
from .position import AddPosition, CenterOnBody
from .resampling import linear_weights, resampling_weights

__all__ = [
    "AddPosition",
    "CenterCrop",
    "CenterOnBody",
    "ClipHU",
    "Compose",
    "ConvertLabel",
    "CropForeground",
    "ExpandChannel",
    "LoadData",
    "OneHot",
    "Orientation",
    "Pad",
    "Pair",
    "RandomCropSamples",
    "RandomTransform",
    "ScaleIntensityRange",
    "Spacing",
    "Transform",
    "convert_files",
    "grid_steps",
    "has_classes",
    "input_steps",
    "linear_weights",
    "resampling_weights",
]
