"""The figures and checks of the chapter on transforms."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..view.planes import plane
from ..volume import Volume
from .pictures import draw_labels, draw_slice, panels

#: rows and columns of the chest in an axial slice of the chapter's phantom
CHEST = (slice(20, 88), slice(12, 96))
EXCHANGED = {1: 2, 2: 1, 3: 3}  #: the class of each structure after mirroring left to right


def show_grids(volumes: Mapping[str, Volume]) -> Figure:
    """Draw the middle coronal slice of each RAS volume ``(I, J, K)`` in HU side by side, in mm."""
    figure, axes = panels(1, len(volumes), (8.5, 4))
    for axis, (name, volume) in zip(axes[0], volumes.items(), strict=True):
        pixels, (width, height) = plane(volume, "coronal", volume.array.shape[1] // 2)
        draw_slice(axis, pixels, (0, width, 0, height))
        axis.set(title=name, xlabel="mm")
    return figure


def show_intensities(volumes: Mapping[str, Volume]) -> Figure:
    """Draw the chest of each volume ``(1, I, J, K)``, and below it the difference from the first.

    Intensities are scaled to 0..1, as for the network; all volumes are on one grid.
    """
    figure, axes = panels(2, len(volumes), (11, 3.4))
    pixels = {name: _middle_slice(volume, "axial")[CHEST] for name, volume in volumes.items()}
    first = next(iter(pixels.values()))
    for column, (name, chest) in zip(axes.T, pixels.items(), strict=True):
        draw_slice(column[0], chest, window=(0, 1), interpolation="nearest")
        column[1].imshow(chest - first, cmap="PuOr", vmin=-0.3, vmax=0.3, interpolation="nearest")
        column[0].set_title(name, fontsize=9)
    axes[0, 0].set_ylabel("varied")
    axes[1, 0].set_ylabel("difference")
    plt.setp(axes, xticks=[], yticks=[])
    return figure


def show_shapes(pairs: Mapping[str, tuple[Volume, Volume]]) -> Figure:
    """Draw the middle coronal slice of each image in HU and its label, both ``(1, I, J, K)``."""
    figure, axes = panels(1, len(pairs), (11, 2.8))
    for axis, (name, (image, label)) in zip(axes[0], pairs.items(), strict=True):
        draw_slice(axis, _middle_slice(image, "coronal"), interpolation="nearest")
        draw_labels(axis, _middle_slice(label, "coronal"))
        axis.set_title(name, fontsize=9)
    plt.setp(axes, xticks=[], yticks=[])
    return figure


def _middle_slice(volume: Volume, view: str) -> np.ndarray:
    """The pixels of the middle slice of a RAS volume ``(1, I, J, K)``."""
    index = {"axial": 3, "coronal": 2}[view]
    pixels, _ = plane(Volume(volume.array[0], volume.affine), view, volume.array.shape[index] // 2)
    return pixels


def show_position(image: Volume) -> Figure:
    """Draw a coronal slice of the network's input ``(2, I, J, K)``: scaled HU, and position.

    The line is the middle plane of the body, where the right coordinate is 0.
    """
    figure, axes = panels(1, 2, (8.5, 3.6))
    colors: list[dict[str, Any]] = [
        {"cmap": "gray"},
        {"cmap": "PuOr", "vmin": -2.5, "vmax": 2.5},
    ]
    for axis, channel, color in zip(axes[0], image.array, colors, strict=True):
        volume = Volume(channel, image.affine)
        pixels, (width, height) = plane(volume, "coronal", channel.shape[1] // 2)
        shown = axis.imshow(pixels, extent=(width, 0, 0, height), **color)
        figure.colorbar(shown, ax=axis, shrink=0.8)
        axis.axvline(-image.affine[0, 3], color="#D55E00")
    axes[0, 0].set(title="channel 0: HU, scaled", xlabel="mm; patient's right on the left")
    axes[0, 1].set(title="channel 1: position, in 100 mm", xlabel="mm")
    return figure


def share_on_its_side(image: Volume, label: Volume) -> float:
    """Return the share of lung voxels whose side is given by the sign of the position channel.

    ``image`` is ``(2, I, J, K)`` with the position as channel 1, positive on the patient's right;
    ``label`` is ``(1, I, J, K)`` with the classes 1 left lung and 2 right lung.
    """
    classes = label.array[0]
    lungs = (classes == 1) | (classes == 2)
    told_right = image.array[1][lungs] > 0
    return float(np.mean(told_right == (classes[lungs] == 2)))


def verdict_on_mirroring(
    mirrored_image: np.ndarray, mirrored_label: np.ndarray, image: Volume, label: Volume
) -> str:
    """Describe which parts of an answer to the exercise on mirroring are correct.

    All arrays are ``(1, I, J, K)``. The correct answer is mirrored along axis 1, with the labels of
    the lungs exchanged.
    """
    image_back = np.asarray(mirrored_image)[:, ::-1]
    label_back = np.asarray(mirrored_label)[:, ::-1]
    image_mirrored = np.array_equal(image_back, image.array)
    label_mirrored = np.array_equal(label_back > 0, label.array > 0)
    names_exchanged = label_mirrored and all(
        np.array_equal(label_back == new, label.array == old) for old, new in EXCHANGED.items()
    )
    if image_mirrored and names_exchanged:
        return "Right."
    return (
        f"Not yet: image mirrored: {image_mirrored}; label mirrored: {label_mirrored}; "
        f"names exchanged: {names_exchanged}."
    )
