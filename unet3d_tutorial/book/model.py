"""The figures and counts of the chapter on the model."""

import unet3d_tutorial.environment  # noqa: F401

from collections.abc import Callable, Mapping
from statistics import median
from timeit import repeat

import matplotlib.pyplot as plt
import mindspore as ms
import numpy as np
from matplotlib.colors import ListedColormap
from mindspore import Tensor, nn

from ..files.tables import Table
from ..labels import COLORS

Shape = tuple[int, ...]
Point = tuple[float, float]

# Input and output channels of each 3x3x3 convolution in figure 2 of Cicek et al., 2016.
PAPER_DOWN = [(3, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256)]
PAPER_DOWN += [(256, 256), (256, 512)]
PAPER_UP = [(768, 256), (256, 256), (384, 128), (128, 128), (192, 64), (64, 64)]
#: Channels of its transposed 2x2x2 convolutions, which have no bias.
PAPER_DOUBLE = [512, 256, 128]
#: Channels of its last convolution, 1x1x1.
PAPER_HEAD = (64, 3)

ENCODER_COLOR = "#FBE3B5"
DECODER_COLOR = "#C6E7DC"
INPUT_COLOR = "#F0F0F0"


# --------------------------------------------------------------------------------------- parameters


def paper_parameters() -> int:
    """Count the parameters of the network in the 3D U-Net paper, without batch-norm."""
    total = 0
    for before, after in PAPER_DOWN + PAPER_UP:
        total += 27 * before * after + after
    for channels in PAPER_DOUBLE:
        total += 8 * channels * channels
    before, after = PAPER_HEAD
    return total + before * after + after


def count_parameters(network: nn.Cell, *, without: str = "") -> int:
    """Count the trainable numbers, except in parameters with ``without`` in their name."""
    total = 0
    for parameter in network.trainable_params():
        if not without or without not in parameter.name:
            total += parameter.size
    return total


# -------------------------------------------------------------------------- outputs of the parts


def outputs_of(parts: Mapping[str, nn.Cell], run: Callable[[], object]) -> dict[str, np.ndarray]:
    """Return the output of each part, ``(N, C, D, H, W)``, during ``run``, by forward hooks."""
    outputs: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable:
        def hook(cell: nn.Cell, inputs: tuple, output: Tensor) -> None:
            outputs[name] = output.asnumpy()

        return hook

    hooks = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    run()
    for hook in hooks:
        hook.remove()
    return outputs


def parts_table(network: nn.Cell, outputs: Mapping[str, np.ndarray], crop: Shape) -> Table:
    """Return a table with output shape and parameters of each part, and of the whole network."""
    total = count_parameters(network)
    rows = []
    for name, part in network.name_cells().items():
        weights = count_parameters(part)
        rows.append([name, outputs[name].shape, f"{weights:,}", f"{weights / total:.1%}"])
    last = list(outputs.values())[-1].shape
    rows.append(["whole network", f"{crop} to {last}", f"{total:,}", ""])
    headings = ["part", "output (N, C, D, H, W)", "parameters", "share"]
    return Table(headings, rows, align=["left", "left", "right", "right"])


def median_seconds(run: Callable[[], object], times: int = 7) -> float:
    """Return the median time of a call, in seconds."""
    return median(repeat(run, number=1, repeat=times))


def slope_gradient_errors(
    layer: nn.Cell, x: np.ndarray, arriving: np.ndarray, calls: int = 3
) -> list[float]:
    """Return relative errors of a PReLU's slope gradient, compared with a 64-bit sum.

    ``x`` is the layer's input and ``arriving`` the gradient with respect to its output. There is
    one error for each of ``calls`` calls.
    """
    true = float((np.minimum(x, 0).astype(np.float64) * arriving).sum())

    def loss(values: Tensor) -> Tensor:
        return (layer(values) * Tensor(arriving)).sum()

    gradient = ms.grad(loss, None, layer.trainable_params())
    errors = []
    for _ in range(calls):
        slope_gradient = float(gradient(Tensor(x))[0].asnumpy()[0])
        errors.append(abs(slope_gradient / true - 1))
    return errors


# ------------------------------------------------------------------------------------------ figures


def draw_network(shapes: Mapping[str, Shape]) -> None:
    """Draw the case's network as a U, with one box for the input and for each part, in order."""
    depths = (0, 1, 2, 3, 4, 4, 3, 2, 1, 0)
    places = [(x, -depth) for x, depth in enumerate(depths)]
    _, ax = plt.subplots(figsize=(10, 4.4), layout="constrained")
    for start, end in zip(places, places[1:], strict=False):
        _draw_arrow(ax, start, end, "black", "-")
    for start, end in zip(places[4:0:-1], places[6:], strict=True):
        _draw_arrow(ax, start, end, "#0072B2", "--")
    for (name, shape), place in zip(shapes.items(), places, strict=True):
        color = DECODER_COLOR
        if name == "input":
            color = INPUT_COLOR
        elif name.startswith("down"):
            color = ENCODER_COLOR
        text = f"{name}\n{shape[1]} channels\n" + " x ".join(map(str, shape[2:]))
        box = {"boxstyle": "round", "facecolor": color}
        ax.text(*place, text, ha="center", va="center", fontsize=8, bbox=box)
    ax.axis((-0.6, 9.6, -4.6, 0.6))
    ax.axis("off")
    plt.show()


def _draw_arrow(ax: plt.Axes, start: Point, end: Point, color: str, line: str) -> None:
    style = {"arrowstyle": "-|>", "shrinkA": 30, "shrinkB": 30, "color": color, "ls": line}
    ax.annotate("", end, start, arrowprops=style)


def draw_position_channel(channels: np.ndarray) -> None:
    """Draw axial slices of the HU channel, its mirror image and the position channel.

    ``channels`` is ``(2, R, A, S)``.
    """
    hu, position = channels
    middle = hu.shape[2] // 2
    pictures = [
        ("channel 0: HU, scaled", hu[:, :, middle], "gray"),
        ("the same, mirrored", hu[::-1, :, middle], "gray"),
        ("channel 1: position", position[:, :, 0], "PuOr"),
    ]
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3), layout="constrained")
    for ax, (title, values, colors) in zip(axes, pictures, strict=True):
        # Front up, the patient's right on the left.
        shown = ax.imshow(values.T[::-1, ::-1], cmap=colors)
        ax.set(title=title, xticks=[], yticks=[])
        ax.set_xlabel("R                                      L", fontsize=9)
    figure.colorbar(shown, ax=axes[2], label="100 mm to the right of the body's middle")
    plt.show()


def draw_feature_maps(scan: np.ndarray, maps: Mapping[str, np.ndarray], labels: np.ndarray) -> None:
    """Draw the middle coronal slice of the input, of each part's strongest channel and labels.

    ``scan`` and ``labels`` are ``(R, A, S)``; the maps are ``(C, R, A, S)`` of various sizes. The
    strongest channel is the one with the largest standard deviation.
    """
    pictures = {"input": scan}
    for name, values in maps.items():
        strongest = values.std(axis=(1, 2, 3)).argmax()
        pictures[name] = values[strongest]
    pictures["labels found"] = labels
    _, axes = plt.subplots(2, 6, figsize=(11, 5), layout="constrained")
    label_colors = ListedColormap(["black", *COLORS.values()])
    for ax, (name, values) in zip(axes.flat, pictures.items(), strict=False):
        coronal = values[::-1, values.shape[1] // 2].T
        if name == "labels found":
            ax.imshow(coronal, origin="lower", cmap=label_colors, vmin=0, vmax=3)
        else:
            ax.imshow(coronal, origin="lower", cmap="gray")
        ax.set_title(f"{name}\n" + " x ".join(map(str, values.shape)), fontsize=8)
    for ax in axes.flat:
        ax.axis("off")
    plt.show()
