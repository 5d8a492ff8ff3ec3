"""The figure of the chapter on the configuration."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..view.planes import plane
from ..volume import Volume
from .pictures import draw_slice, panels, to_ras

CROP_COLORS = ("#56B4E9", "#F0E442")
CROP_LINES = ("-", ":")


def show_crop_sizes(scan: Volume, sizes_mm: Mapping[str, Sequence[float]]) -> Figure:
    """Outline two training crops in the middle axial slice of ``scan``, both at its centre.

    ``sizes_mm`` maps the name of a preset to the lengths of its crop along R, A and S, in mm.
    """
    image = to_ras(scan)
    pixels, (width, depth) = plane(image, "axial", image.array.shape[2] // 2)
    figure, axes = panels(1, 1, (6, 4.5))
    axis = axes[0, 0]
    draw_slice(axis, pixels, (-width / 2, width / 2, -depth / 2, depth / 2))
    for (name, size), color, line in zip(sizes_mm.items(), CROP_COLORS, CROP_LINES, strict=True):
        across, deep = size[:2]
        corner = (-across / 2, -deep / 2)
        axis.add_patch(
            Rectangle(corner, across, deep, fill=False, lw=2.5, ec=color, ls=line, label=name)
        )
    axis.set(xlabel="mm from the middle of the picture", ylabel="mm")
    axis.legend(loc="upper right")
    return figure
