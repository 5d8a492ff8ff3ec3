"""Drawing functions that several chapters share: panels, grey slices, labels over them."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from ..labels import COLORS
from ..transforms import Orientation
from ..volume import Volume

DPI = 80
WINDOW = (-1000.0, 400.0)  #: HU shown black and white
Extent = tuple[float, float, float, float]  #: left, right, bottom and top of a picture, in mm


def panels(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Figure, np.ndarray]:
    """Make a figure of ``size`` inches and its axes, ``(rows, columns)``.

    ``options`` go to :func:`matplotlib.pyplot.subplots`. The figure is closed already, so that a
    cell that ends with it shows it once.
    """
    figure, axes = plt.subplots(
        rows, columns, figsize=size, dpi=DPI, layout="constrained", squeeze=False, **options
    )
    plt.close(figure)
    return figure, axes


def draw_slice(
    axis: Axes,
    pixels: np.ndarray,
    extent: Extent | None = None,
    window: tuple[float, float] = WINDOW,
    **options: Any,
) -> None:
    """Draw a slice, ``(rows, columns)``, in grey.

    ``window`` gives the values shown black and white. With an ``extent`` of ``None`` the axes count
    pixels. ``options`` go to :meth:`matplotlib.axes.Axes.imshow`.
    """
    low, high = window
    axis.imshow(pixels, cmap="gray", vmin=low, vmax=high, extent=extent, **options)


def draw_labels(axis: Axes, classes: np.ndarray) -> None:
    """Overlay the classes 1, 2 and 3 of a slice, ``(rows, columns)``, in colour on a picture."""
    axis.imshow(
        np.ma.masked_equal(classes, 0),
        cmap=ListedColormap(list(COLORS.values())),
        vmin=1,
        vmax=3,
        alpha=0.4,
        interpolation="nearest",
    )


def to_ras(volume: Volume) -> Volume:
    """Turn a volume ``(I, J, K)`` to RAS: axes to the patient's right, front and head."""
    turned, _ = Orientation("RAS")(volume)
    return turned


def thinned(volume: Volume, step: int) -> Volume:
    """Keep every ``step``-th voxel along the first two axes, which is enough for a picture.

    The affine changes accordingly, so positions and sizes in mm stay correct.
    """
    scale = np.diag([step, step, 1, 1])
    return Volume(volume.array[::step, ::step], volume.affine @ scale)
