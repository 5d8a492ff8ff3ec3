"""Figures for the chapters: every volume in its true proportions, with sides named and axes in
millimetres.

Pictures follow the radiologists' convention: the patient's right is on the left of an axial or
coronal picture, as if the reader faced the patient; in a sagittal picture the patient looks to the
left. Axes count millimetres from the first voxel in RAS order: to the patient's right, front and
head. Colours come from :data:`unet3d_tutorial.labels.COLORS`, which readers with colour-blindness
can tell apart.

Each function returns a :class:`matplotlib.figure.Figure` that is already closed, so that a notebook
shows it once.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..evaluation import Results
from ..labels import COLORS, ERRORS, STRUCTURES
from ..transforms import Orientation
from ..volume import Volume

DPI = 75
WINDOW = (-1000.0, 400.0)  #: HU shown black and white
# Name: the RAS axis that is cut, the axes across and up, letters at the left, right, bottom and
# top.
PLANES = {"axial": (2, 0, 1, "RLPA"), "coronal": (1, 0, 2, "RLIS"), "sagittal": (0, 1, 2, "APIS")}


def show_planes(
    image: Volume,
    label: Volume | None = None,
    prediction: Volume | None = None,
    *,
    position: Sequence[int] | None = None,
    window: tuple[float, float] = WINDOW,
    title: str | None = None,
    names: tuple[str, str] = ("reference", "prediction"),
) -> Figure:
    """Show an axial, a coronal and a sagittal slice:

    ``label`` as filled colour, ``prediction`` as outline.

    All are ``(I, J, K)`` on one grid, of any orientation. ``position`` is the voxel of the
    RAS-ordered volume where the planes cross; ``None`` takes the centre of the labels, or of the
    volume. ``window`` is black and white in HU. ``names`` are what the legend calls fill and
    outline.
    """
    image, label, prediction = _to_ras(image, label, prediction)
    figure, axes = _grid_of_planes(1, title)
    _draw_row(
        axes[0], image, label, prediction, _centre(position, image, label, prediction), window
    )
    _structure_legend(figure, label is not None, prediction is not None, names)
    return _finish(figure)


def compare_planes(
    rows: Sequence[tuple[str, Volume, Volume | None]],
    *,
    window: tuple[float, float] = WINDOW,
    title: str | None = None,
) -> Figure:
    """Show several volumes below each other, ``(name, image, label)`` each: for example a phantom
    beside a patient.

    The planes go through the centre of the label. Rows on one grid, such as several labels of one
    image, show the same planes, those of the first of them.
    """
    figure, axes = _grid_of_planes(len(rows), title)
    centres: dict[tuple, tuple[int, ...]] = {}  # of each grid
    for row, (name, image, label) in zip(axes, rows, strict=True):
        image, label = _to_ras(image, label)
        centre = centres.setdefault(
            (image.array.shape, image.affine.tobytes()), _centre(None, image, label)
        )
        _draw_row(row, image, label, None, centre, window)
        row[0].set_ylabel(f"{name}\n{row[0].get_ylabel()}")
    _structure_legend(figure, any(label is not None for _, _, label in rows), False)
    return _finish(figure)


def show_errors(
    image: Volume,
    prediction: Volume,
    reference: Volume,
    *,
    position: Sequence[int] | None = None,
    window: tuple[float, float] = WINDOW,
    title: str | None = None,
) -> Figure:
    """Show where a prediction is wrong, structures taken together: missed voxels and voxels where
    it spills over.

    A voxel of one structure that was given to another counts as spilled over. ``None`` as
    ``position`` takes the slices with the most errors.
    """
    image, prediction, reference = _to_ras(image, prediction, reference)
    errors = np.zeros(reference.array.shape, np.uint8)
    errors[(prediction.array == 0) & (reference.array > 0)] = 1
    errors[(prediction.array > 0) & (prediction.array != reference.array)] = 2
    if position is None and errors.any():
        position = [
            int(np.argmax((errors > 0).sum(axis=axes))) for axes in ((1, 2), (0, 2), (0, 1))
        ]
    figure, axes = _grid_of_planes(1, title)
    position = _centre(position, image)
    _draw_row(
        axes[0],
        image,
        Volume(errors, image.affine),
        None,
        position,
        window,
        list(ERRORS.values()),
        alpha=0.9,
    )
    handles = [Patch(color=color, label=name) for name, color in ERRORS.items()]
    _legend(figure, handles)
    return _finish(figure)


def hu_histogram(
    images: Mapping[str, Volume],
    windows: Mapping[str, tuple[float, float]] | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Compare how often each HU occurs, as the share of voxels per 10 HU; each of ``windows`` is
    drawn as a span.
    """
    figure, axes = plt.subplots(figsize=(8, 3.5), dpi=DPI, layout="constrained")
    edges = np.arange(-1100, 1501, 10)
    for (name, image), color in zip(images.items(), _cycle(len(images)), strict=True):
        counts, _ = np.histogram(np.clip(image.array, edges[0], edges[-1]), edges)
        axes.stairs(counts / image.array.size, edges, label=name, color=color, linewidth=1.5)
    axes.set_yscale("log")
    top = axes.get_ylim()[1]
    for level, (name, (low, high)) in enumerate((windows or {}).items()):
        height = top * 3.5 ** (level + 0.4)
        axes.annotate(
            "", (low, height), (high, height), arrowprops={"arrowstyle": "|-|,widthA=.3,widthB=.3"}
        )
        axes.text(
            (low + high) / 2,
            height * 1.12,
            f"{name}: {low:.0f} to {high:.0f} HU",
            ha="center",
            fontsize=8,
        )
    axes.set_ylim(top=top * 3.5 ** (len(windows or {}) + 0.6))
    axes.set(
        xlabel="HU (values beyond the axis are counted at its ends)",
        ylabel="share of voxels",
        title=title or "",
    )
    axes.legend(loc="upper right", fontsize=8)
    return _finish(figure)


def loss_curves(
    history: Mapping[str, Sequence[float]],
    validation: Mapping[str, Sequence[float]] | None = None,
    *,
    smooth: int = 15,
    title: str | None = None,
) -> Figure:
    """Draw a training run: its losses on the left, the Dice of the held-out volumes on the right if
    there is any.

    ``history`` holds columns: ``step`` and any of ``loss``, ``ce``, ``dice`` (the two terms of the
    loss). ``validation`` holds ``step`` and the Dice of each structure by its name. Thick lines are
    means over ``smooth`` steps; the thin one shows the total as it was.
    """
    validation = validation if validation and len(validation["step"]) else None
    size = (10, 3.5) if validation else (6, 3.5)
    figure, axes = plt.subplots(
        1, 2 if validation else 1, figsize=size, dpi=DPI, layout="constrained", squeeze=False
    )
    _draw_losses(axes[0, 0], history, smooth)
    if validation:
        right = axes[0, 1]
        for name, marker in zip(
            (name for name in validation if name != "step"), cycle("os^"), strict=False
        ):
            right.plot(
                validation["step"],
                validation[name],
                color=COLORS.get(name),
                marker=marker,
                label=name,
            )
        right.set(xlabel="step", ylabel="Dice", title="held-out volumes", ylim=(0, 1.02))
        right.legend(fontsize=8)  # where it hides least
    if title:
        figure.suptitle(title)
    return _finish(figure)


def _draw_losses(axis: Axes, history: Mapping[str, Sequence[float]], smooth: int) -> None:
    names = {
        "loss": ("total", "black"),
        "ce": ("cross-entropy", "#CC79A7"),
        "dice": ("Dice loss", "#56B4E9"),
    }
    steps = np.asarray(history["step"])
    for key, (name, color) in names.items():
        values = np.asarray(history.get(key, ()), float)
        if not values.size:
            continue
        width = min(smooth, values.size)
        mean = np.convolve(values, np.ones(width) / width, mode="valid")
        axis.plot(
            steps[(width - 1) // 2 :][: mean.size], mean, color=color, label=name, linewidth=2
        )
        if key == "loss":
            axis.plot(
                steps, values, color="0.75", linewidth=0.7, zorder=0, label="total, each step"
            )
    axis.set(xlabel="step", ylabel="loss", title="training", ylim=(0, None))
    axis.legend(fontsize=8)


def schedule_curve(
    rates: Sequence[float] | Mapping[str, Sequence[float]], *, title: str | None = None
) -> Figure:
    """Draw the learning rate of each step; a mapping from name to rates draws several schedules
    together.
    """
    schedules = rates if isinstance(rates, Mapping) else {"": rates}
    figure, axes = plt.subplots(figsize=(6.5, 3), dpi=DPI, layout="constrained")
    styles = ("-", "--", "-.", ":")
    for number, ((name, values), color) in enumerate(
        zip(schedules.items(), _cycle(len(schedules)), strict=True)
    ):
        axes.plot(
            np.arange(len(values)), values, styles[number % 4], color=color, label=name, linewidth=2
        )
    axes.set(xlabel="step", ylabel="learning rate", title=title or "", ylim=(0, None))
    axes.ticklabel_format(axis="y", scilimits=(-3, 3))
    if any(schedules):
        axes.legend(fontsize=8)
    return _finish(figure)


def score_boxes(results: Results, *, title: str | None = None) -> Figure:
    """Box plots of Dice and HD95 over the cases: a panel a metric, a group a structure, a box a
    method.

    Every case is a point. A case that was missed has no distance; how many there are stands above
    the box.
    """
    return score_box_rows({title or "": results})


def score_box_rows(data: Mapping[str, Results]) -> Figure:
    """:func:`score_boxes` of several data sets below each other;

    ``data`` goes from their names to their results.
    """
    size = (10, 3.2 * len(data) + 0.4)
    figure, rows = plt.subplots(
        len(data), 2, figsize=size, dpi=DPI, layout="constrained", squeeze=False
    )
    methods = list(dict.fromkeys(method for results in data.values() for method in results))
    # No structure's.
    colors = {
        method: ("black", "0.6", "#CC79A7", "#56B4E9")[n % 4] for n, method in enumerate(methods)
    }
    for axes, (name, results) in zip(rows, data.items(), strict=True):
        for axis, metric, label in zip(
            axes, ("dice", "hd95_mm"), ("Dice", "HD95 (mm), cases found"), strict=True
        ):
            _draw_score_panel(axis, results, metric, colors)
            axis.set(ylabel=label, title=name)
    _legend(figure, [Patch(color=color, label=method) for method, color in colors.items()])
    return _finish(figure)


def _draw_score_panel(axis: Axes, results: Results, metric: str, colors: Mapping[str, str]) -> None:
    """Draw one metric of one data set: a group a structure, a box a method."""
    for number, (method, cases) in enumerate(results.items()):
        places = np.arange(len(STRUCTURES)) + (number - (len(results) - 1) / 2) * 0.26
        columns = [
            [getattr(rows[k], metric) for rows in cases.values()] for k in range(len(STRUCTURES))
        ]
        _draw_boxes(axis, columns, places, colors[method])
    axis.set(xticks=range(len(STRUCTURES)), xticklabels=STRUCTURES)
    axis.set_ylim(0, 1.12 * axis.get_ylim()[1])
    axis.grid(axis="y", alpha=0.3)


def _draw_boxes(
    axis: Axes, columns: Sequence[Sequence[float]], places: np.ndarray, color: str
) -> None:
    """Draw one box a column, its values as points, and the number of values that are not finite
    above it.
    """
    for values, place in zip(columns, places, strict=True):
        found = np.asarray(values)[np.isfinite(values)]
        if found.size:
            axis.boxplot(
                found,
                positions=[place],
                widths=0.2,
                showfliers=False,
                manage_ticks=False,
                **{
                    part: {"color": color}
                    for part in ("boxprops", "whiskerprops", "capprops", "medianprops")
                },
            )
        axis.plot(
            place + np.linspace(-0.05, 0.05, found.size),
            found,
            ".",
            color=color,
            markersize=4,
            alpha=0.6,
        )
        if missed := len(values) - found.size:
            axis.annotate(
                f"{missed} missed",
                (place, 0.99),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="top",
                fontsize=8,
                weight="bold",
                color=color,
            )


# -------------------------------------------------------------------------------------- the pieces


def plane(volume: Volume, name: str, index: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Cut one slice of a RAS volume for a picture: pixels (rows from top down) and (width, height)
    in mm.

    ``name`` is ``"axial"``, ``"coronal"`` or ``"sagittal"``. Row 0 is the front of an axial picture
    and the head of the others; column 0 is the patient's right, or the front of a sagittal picture.
    """
    cut, across, up, _ = PLANES[name]
    pixels = np.take(volume.array, index, axis=cut).T[::-1, ::-1]
    spacing = volume.spacing_mm
    return pixels, (pixels.shape[1] * spacing[across], pixels.shape[0] * spacing[up])


def _draw_row(
    axes: Sequence[Axes],
    image: Volume,
    label: Volume | None,
    prediction: Volume | None,
    position: Sequence[int],
    window: tuple[float, float],
    colors: Sequence[str] = tuple(COLORS.values()),
    alpha: float = 0.45,
) -> None:
    for axis, (name, (cut, _, _, letters)) in zip(axes, PLANES.items(), strict=True):
        pixels, (width, height) = plane(image, name, position[cut])
        extent = (width, 0, 0, height)  # column 0 lies at the largest coordinate
        axis.imshow(
            pixels,
            cmap="gray",
            vmin=window[0],
            vmax=window[1],
            extent=extent,
            interpolation="nearest",
        )
        if label is not None:
            values = plane(label, name, position[cut])[0]
            shown = np.ma.masked_equal(values, 0)
            options = {
                "cmap": ListedColormap(list(colors)),
                "vmin": 1,
                "vmax": len(colors),
                "alpha": alpha,
            }
            axis.imshow(shown, extent=extent, interpolation="nearest", **options)
        if prediction is not None:
            _outline(axis, plane(prediction, name, position[cut])[0], extent, colors)
        _name_sides(axis, name, letters, position[cut] * image.spacing_mm[cut])


def _outline(
    axis: Axes, labels: np.ndarray, extent: tuple[float, ...], colors: Sequence[str]
) -> None:
    """Draw the border of each structure in a lighter colour on black: it shows on a fill of its own
    colour too.
    """
    for value, color in enumerate(colors, start=1):
        mask = labels == value
        if mask.any() and not mask.all():
            light = 0.5 * np.array(to_rgb(color)) + 0.5
            for width, shade in ((2.2, "black"), (1.2, light)):
                axis.contour(
                    mask, [0.5], colors=[shade], linewidths=width, extent=extent, origin="upper"
                )


def _name_sides(axis: Axes, name: str, letters: str, depth_mm: float) -> None:
    places = (
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.02, "center", "bottom"),
        (0.5, 0.98, "center", "top"),
    )
    for letter, (x, y, horizontal, vertical) in zip(letters, places, strict=True):
        axis.text(
            x,
            y,
            letter,
            transform=axis.transAxes,
            ha=horizontal,
            va=vertical,
            color="white",
            weight="bold",
            fontsize=9,
            bbox={"facecolor": "black", "alpha": 0.5, "pad": 1, "linewidth": 0},
        )
    axis.set_title(f"{name}, at {depth_mm:.0f} mm", fontsize=9)
    axis.set_xlabel("mm", fontsize=8)
    axis.set_ylabel("mm", fontsize=8)
    axis.tick_params(labelsize=7)


def _grid_of_planes(rows: int, title: str | None) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(
        rows, 3, figsize=(9, 3.0 * rows + 0.7), dpi=DPI, layout="constrained", squeeze=False
    )
    note = "patient's right on the left of the picture; sagittal: facing left"
    figure.suptitle(f"{title}\n{note}" if title else note, fontsize=10)
    return figure, axes


def _structure_legend(
    figure: Figure,
    filled: bool,
    outlined: bool,
    names: tuple[str, str] = ("reference", "prediction"),
) -> None:
    kind = {
        (True, True): f"(fill: {names[0]}, line: {names[1]})",
        (False, True): f"(line: {names[1]})",
    }
    if filled or outlined:
        _legend(
            figure,
            [Patch(color=COLORS[name], label=name) for name in STRUCTURES],
            kind.get((filled, outlined)),
        )


def _legend(figure: Figure, handles: Sequence[Patch], note: str | None = None) -> None:
    handles = [*handles, Patch(color="none", label=note)] if note else handles
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False
    )


def _to_ras(*volumes: Volume | None) -> list[Volume | None]:
    """Reorient all to RAS. Raises ``ValueError`` if one is not 3-D or has another shape than the
    first.
    """
    for volume in volumes:
        if volume is not None and (
            volume.array.ndim != 3 or volume.array.shape != volumes[0].array.shape
        ):
            raise ValueError(
                f"expected 3-D volumes of shape {volumes[0].array.shape}, found {volume.array.shape}"
            )
    turn = Orientation("RAS")
    return [None if volume is None else turn(volume, None)[0] for volume in volumes]


def _centre(
    position: Sequence[int] | None, image: Volume, *labels: Volume | None
) -> tuple[int, ...]:
    """Return the voxel where the planes cross: as given, or the labels' centre of mass, or the
    volume's centre.
    """
    shape = image.array.shape
    if position is not None:
        if len(position) != 3 or any(not 0 <= p < n for p, n in zip(position, shape, strict=False)):
            raise ValueError(
                f"position: expected a voxel of a volume of shape {shape}, found {position}"
            )
        return tuple(int(p) for p in position)
    for label in labels:
        if label is not None and label.array.any():
            return tuple(int(round(np.mean(index))) for index in np.nonzero(label.array))
    return tuple(n // 2 for n in shape)


def _cycle(number: int) -> list[str]:
    colors = ["black", *COLORS.values(), *ERRORS.values()]
    return [colors[n % len(colors)] for n in range(number)]


def _finish(figure: Figure) -> Figure:
    plt.close(figure)
    return figure
