"""From a file to a network's input: small steps ``(image, label) -> (image, label)``.

Image and label are :class:`~unet3d_tutorial.volume.Volume` objects and move together; ``label`` may
be ``None``. What all steps have in common is said once, of :class:`.base.Transform` and
:class:`.base.RandomTransform`. Arrays are ``(I, J, K)`` as they come from a file, and
``(C, I, J, K)`` from :class:`ExpandChannel` on. Steps that only vary the training scans are in
:mod:`unet3d_tutorial.augment`. MindSpore is not needed here.

The files follow chapter 3: ``grid``, ``intensity``, ``label``, ``crops``, ``position``; ``base`` is
what they build on, ``pipeline`` makes chains of them.
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
