"""Put the results of the run into README.md and book/intro.md: a table, the costs and one figure.

``make store`` calls it.

The table stands between ``<!-- results -->`` and ``<!-- /results -->``; everything between is
replaced. The figure tells the book in one row: a phantom, the training on many such, a real patient
segmented, and what was found in three dimensions.
"""

import os
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from unet3d_tutorial.config import Config
from unet3d_tutorial.evaluation import StructureScore
from unet3d_tutorial.files.nifti import load_volume
from unet3d_tutorial.inference import segment
from unet3d_tutorial.labels import COLORS, STRUCTURES
from unet3d_tutorial.phantom.recipe import generate
from unet3d_tutorial.predict.evaluate import REAL, load_evaluation, trained_predictor
from unet3d_tutorial.sample_ct import fetch
from unet3d_tutorial.training import load_result
from unet3d_tutorial.transforms import Compose, ExpandChannel, Orientation, Spacing
from unet3d_tutorial.view.figures import WINDOW, plane
from unet3d_tutorial.volume import Volume

#: one row of pictures for wide pages, two for narrow ones
FIGURES = {
    Path("book/_static/results.png"): (1, 4),
    Path("book/_static/results-narrow.png"): (2, 2),
}
PHANTOM = [0, 4]  #: seed of the phantom that is shown, one of those trained on
RENDERED_MM = 1.0  #: voxels of the three-dimensional picture
SMOOTH_MM = 2.0  #: its surfaces are smoothed by this much, for the eye only
LIGHT = np.array([-0.4, 0.75, 0.55])  #: from the patient's left, front and head


def table(methods: dict[str, list[StructureScore]]) -> str:
    """One row a method: Dice and HD95 of each structure."""
    names = [row.structure for row in next(iter(methods.values()))]
    head = " | ".join(f"{name}, Dice | HD95 (mm)" for name in names)
    lines = [f"| | {head} |", "|:--" + "|--:" * (2 * len(names)) + "|"]
    for method, rows in methods.items():
        lines.append(
            f"| {method} | "
            + " | ".join(f"{row.dice:.3f} | {row.hd95_mm:.1f}" for row in rows)
            + " |"
        )
    return "\n".join(lines)


def replace_between(path: Path, text: str, mark: str = "results") -> None:
    """Replace what stands between ``<!-- mark -->`` and ``<!-- /mark -->``, whole file or not at
    all.
    """
    old, marks = path.read_text(encoding="utf-8"), (f"<!-- {mark} -->", f"<!-- /{mark} -->")
    pattern = ".*?".join(f"({re.escape(each)})" for each in marks)
    new, count = re.subn(pattern, lambda found: f"{found[1]}\n{text}\n{found[2]}", old, flags=re.S)
    if count != 1:
        raise ValueError(f"{path}: expected the marks {' and '.join(marks)} once")
    part = path.with_name(path.name + ".part")
    part.write_text(new, encoding="utf-8")
    part.replace(path)


# --------------------------------------------------------------------------------------- the figure


def headline(
    grid: tuple[int, int],
    history: dict[str, list[float]],
    image: Volume,
    reference: Volume,
    mask: Volume,
) -> Figure:
    """The book in four pictures: phantom, loss of each step, the patient's scan with both masks,
    the organs from the front.

    ``grid`` is rows and columns. ``history`` has the columns ``step`` and ``loss``; ``image``,
    ``reference`` and ``mask`` are ``(I, J, K)`` on one grid.
    """
    rows, columns = grid
    figure, axes = plt.subplots(
        rows, columns, figsize=(3 * columns, 3 * rows + 0.5), layout="constrained"
    )
    axes = axes.ravel()
    turn = Orientation("RAS")
    phantom, drawn = (turn(volume, None)[0] for volume in generate(PHANTOM))
    draw_coronal(axes[0], phantom, drawn, None)
    axes[0].set_title("1. Synthetic patient, exact labels", fontsize=10)
    draw_loss(axes[1], history)
    draw_coronal(axes[2], *(turn(volume, None)[0] for volume in (image, reference, mask)))
    axes[2].set_title("3. Real CT: fill reference, line network", fontsize=10)
    axes[3].imshow(render(mask))
    axes[3].set_title("4. What it found, from the front", fontsize=10)
    axes[3].set_axis_off()
    for axis in axes:
        axis.set_anchor("N")  # titles on one line
    handles = [Patch(color=COLORS[name], label=name) for name in STRUCTURES]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=10, frameon=False)
    plt.close(figure)
    return figure


def draw_coronal(axis: Axes, image: Volume, label: Volume, mask: Volume | None) -> None:
    """The coronal slice with the most trachea of volumes in RAS order:

    ``label`` filled, ``mask`` outlined.
    """
    index = int((label.array == 3).sum(axis=(0, 2)).argmax())
    pixels, (width, height) = plane(image, "coronal", index)
    extent = (width, 0, 0, height)
    axis.imshow(pixels, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], extent=extent)
    shown = np.ma.masked_equal(plane(label, "coronal", index)[0], 0)
    axis.imshow(
        shown, cmap=ListedColormap(list(COLORS.values())), vmin=1, vmax=3, alpha=0.5, extent=extent
    )
    for value in (1, 2, 3) if mask else ():
        found = plane(mask, "coronal", index)[0] == value
        for width, color in ((2.2, "black"), (1.1, "white")):
            axis.contour(
                found, [0.5], colors=color, linewidths=width, extent=extent, origin="upper"
            )
    axis.set_axis_off()


def draw_loss(axis: Axes, history: dict[str, list[float]]) -> None:
    """The loss of each step, and its mean over 15 of them."""
    steps, losses = np.asarray(history["step"]), np.asarray(history["loss"])
    mean = np.convolve(losses, np.ones(15) / 15, mode="valid")
    axis.plot(steps, losses, color="0.75", linewidth=0.7)
    axis.plot(steps[7 : 7 + mean.size], mean, color="black", linewidth=2)
    axis.set(xlabel="training step", ylim=(0, None))
    axis.set_title("2. The loss, learning from many such", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.3)


def render(mask: Volume) -> np.ndarray:
    """Look at labels 1..3 of ``(I, J, K)`` from the patient's front, as lit surfaces:

    RGB ``(rows, columns, 3)``, 0..1.

    Each line of sight ends at the first labelled voxel, which is shaded by how much its surface
    faces the light.
    """
    labels = Compose([ExpandChannel(), Orientation("RAS"), Spacing((RENDERED_MM,) * 3)])(
        mask, mask
    )[1].array[0]
    labels = labels[:, ::-1]  # the front comes first
    hit = (labels > 0).argmax(axis=1)
    i, k = np.indices(hit.shape)
    seen = labels[i, hit, k]
    picture = np.ones((*hit.shape, 3))
    for value, name in enumerate(STRUCTURES, start=1):
        here = seen == value
        soft = ndimage.gaussian_filter(
            (labels == value).astype(np.float32), SMOOTH_MM / RENDERED_MM
        )
        outwards = -np.stack(np.gradient(soft), axis=-1)[i[here], hit[here], k[here]] * [1, -1, 1]
        outwards /= np.linalg.norm(outwards, axis=-1, keepdims=True) + 1e-6
        light = np.clip(outwards @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)
        picture[here] = (
            np.array(to_rgb(COLORS[name])) * (0.35 + 0.65 * light[:, None])
            + 0.25 * light[:, None] ** 8
        )
    rows = np.flatnonzero((seen > 0).any(axis=0))
    return np.clip(picture, 0, 1).transpose(1, 0, 2)[rows[-1] : rows[0] : -1, ::-1]


def main() -> None:
    """Write the table and the figure of the finished run."""
    config = Config.preset("quick")
    methods = load_evaluation(config.train.output_path).get(REAL)
    if methods is None:
        sys.exit(
            "the run was evaluated without the real CT; run unet3d data sample, then make store"
        )
    minutes = load_result(config.train.output_path).history["seconds"][-1] / 60
    text = (
        f"\n{table(methods)}\n\nOne real CT, never trained on, scored on its own grid. "
        f"Training took {minutes:.1f} minutes on {os.cpu_count()} cores.\n"
    )
    for path in (Path("README.md"), Path("book/intro.md")):
        replace_between(path, text)
    sample = fetch()
    image = load_volume(sample.image)
    reference, mask = load_volume(sample.label), segment(image, trained_predictor(config), config)
    history = load_result(config.train.output_path).history
    for path, grid in FIGURES.items():
        part = path.with_suffix(".part.png")
        headline(grid, history, image, reference, mask).savefig(part, dpi=85)
        part.replace(path)


if __name__ == "__main__":
    main()
