"""From a MindSpore network to files that run without it:

MINDIR for MindSpore's own runtimes, ONNX for everybody else's.

An exported file is a second program for the same function, so it is held to the network on the
spot: the file appears under its name only if both give the same logits.
"""

import unet3d_tutorial.environment  # noqa: F401

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import mindspore as ms
import numpy as np
import onnx
import onnx.numpy_helper
from mindspore import Tensor, nn

from .config import Config
from .inference import Predictor
from .predict.engines import CONFIG_KEY, dump_config, load_onnx
from .runs.device import setup
from .runs.networks import load_network, predictor

#: largest difference of logits between network and file, as a share of the largest logit: rounding,
#: no more
TOLERANCE = 1e-4


class ExportError(RuntimeError):
    """The exported file does not compute what the network computes. Nothing was written."""


def export_checkpoint(
    checkpoint: Path, config: Config, output: Path | None = None, *, fixed: bool = False
) -> Path:
    """Export a checkpoint's network to ``output``, by its suffix; without it, beside the checkpoint
    as ``config`` says.
    """
    setup(seed=config.train.seed, device_target=config.train.device_target)
    output = output or checkpoint.with_name(
        f"{config.export.file_name}.{config.export.file_format.lower()}"
    )
    write = {".onnx": to_onnx, ".mindir": to_mindir}.get(output.suffix)
    if write is None:
        raise ValueError(f"output: expected a name that ends in .onnx or .mindir, found {output}")
    return write(load_network(config, checkpoint), output, config, fixed=fixed)


def to_onnx(network: nn.Cell, path: str | Path, config: Config, *, fixed: bool = False) -> Path:
    """Write ``network`` as ONNX (opset 11, MindSpore's highest) for any batch size and window, or
    ``fixed``.

    The file holds ``config``'s sections data, model and inference, so that whoever has it needs
    nothing else. Raises :class:`ExportError` if ONNX Runtime finds other logits in it than the
    network does, and for a network with a layer that MindSpore cannot write (group norm).
    """

    def write(part: Path) -> None:
        # Writing ONNX alters the compiled graph: a second export must not find it.
        network.compile_cache.clear()
        try:
            ms.onnx.export(
                network, Tensor(np.zeros(_window(config), np.float32)), file_name=str(part)
            )
        # Such as group norm, for which it knows no operator; what follows is its call stack.
        except RuntimeError as error:
            raise ExportError(
                f"{part.name}: MindSpore cannot write this network as ONNX: {str(error).splitlines()[0]} "
                "Export it as MINDIR, a name that ends in .mindir"
            ) from error
        model = simplify(onnx.load(part))
        if not fixed:
            _free_axes(model.graph)
        onnx.helper.set_model_props(model, {CONFIG_KEY: dump_config(config)})
        onnx.checker.check_model(model)
        onnx.save(model, part)

    return _export(
        network, Path(path), ".onnx", write, lambda part: load_onnx(part)[0], _shapes(config, fixed)
    )


def to_mindir(network: nn.Cell, path: str | Path, config: Config, *, fixed: bool = False) -> Path:
    """Write ``network`` as MINDIR for any batch size and window, or ``fixed`` to one window of
    ``inference.roi_size``.

    Raises :class:`ExportError` if MindSpore finds other logits in the file than in the network.
    """

    def write(part: Path) -> None:
        shape = _window(config) if fixed else (None, config.model.in_channels, None, None, None)
        ms.export(
            network,
            Tensor(shape=shape, dtype=ms.float32),
            file_name=str(part),
            file_format="MINDIR",
        )

    return _export(network, Path(path), ".mindir", write, mindir_predictor, _shapes(config, fixed))


def mindir_predictor(path: str | Path) -> Predictor:
    """A MINDIR file as a function on NumPy arrays:

    ``(N, C, D, H, W)`` to logits ``(N, K, D, H, W)``.
    """
    return predictor(nn.GraphCell(ms.load(str(path))))


def _export(
    network: nn.Cell,
    path: Path,
    suffix: str,
    write: Callable[[Path], None],
    load: Callable[[Path], Predictor],
    shapes: list[tuple[int, ...]],
) -> Path:
    """Write to a temporary folder, compare with the network, and only then rename."""
    if path.suffix != suffix:
        raise ValueError(f"expected a name that ends in {suffix}, found {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    network.set_train(False)
    with TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        part = Path(folder) / path.name
        write(part)
        verify(load(part), predictor(network), shapes, path.name)
        part.chmod(0o644)  # MindSpore makes its files read-only
        part.replace(path)
    return path


def verify(
    exported: Predictor, network: Predictor, shapes: list[tuple[int, ...]], name: str
) -> float:
    """Compare logits on noise of each of ``shapes`` ``(N, C, D, H, W)``; gives the largest
    difference.

    The difference is relative to the largest logit. Raises :class:`ExportError` above
    :data:`TOLERANCE`.
    """
    rng, differences = np.random.default_rng(0), []
    for shape in shapes:
        batch = rng.random(shape, np.float32)
        expected, found = network(batch), exported(batch)
        if found.shape != expected.shape:
            raise ExportError(
                f"{name}: expected logits of shape {expected.shape}, found {found.shape}"
            )
        differences.append(np.abs(found - expected).max() / np.abs(expected).max())
    worst = float(np.max(differences))
    if not worst <= TOLERANCE:  # also when it is not a number
        raise ExportError(
            f"{name}: expected the network's logits to within {TOLERANCE:g} of the largest, found a "
            f"difference of {worst:.2g}; the file was not kept"
        )
    return worst


def _window(config: Config) -> tuple[int, ...]:
    return 1, config.model.in_channels, *config.inference.roi_size


def _shapes(config: Config, fixed: bool) -> list[tuple[int, ...]]:
    """What to compare: the fixed window, or two small ones of different shape, the second in a
    batch of two.
    """
    channels = config.model.in_channels
    return [_window(config)] if fixed else [(1, channels, 32, 32, 32), (2, channels, 48, 32, 16)]


# ------------------------------------------------------------------------- the graph that comes out


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace what MindSpore spells out by the operator that ONNX has for it; the function stays
    the same.

    MindSpore's batch-norm folds two axes into one, with sizes written into the graph. In use it
    only scales and shifts each channel, which the convolution before it can do: batch-norm and
    ``Reshape`` go, and the fixed sizes with them. ``relu(x) - w * relu(-x)`` is one ``PRelu``.
    """
    graph = model.graph
    made = {node.output[0]: node for node in graph.node}

    def source(node: onnx.NodeProto, place: int, *kinds: str) -> onnx.NodeProto | None:
        found = made.get(node.input[place]) if place < len(node.input) else None
        return found if found is not None and found.op_type in kinds else None

    for node in list(graph.node):
        if node.op_type == "Reshape" and (norm := source(node, 0, "BatchNormalization")):
            if (fold := source(norm, 0, "Reshape")) and (
                conv := source(fold, 0, "Conv", "ConvTranspose")
            ):
                _absorb(graph, conv, norm)
                conv.output[0], node.output[0] = node.output[0], ""
        elif (
            node.op_type == "Sub"
            and (scaled := source(node, 1, "Mul"))
            and (positive := source(node, 0, "Relu"))
        ):
            prelu = onnx.helper.make_node(
                "PRelu", [positive.input[0], scaled.input[0]], node.output, node.name
            )
            node.CopyFrom(prelu)
    _keep_used(graph)
    return model


def _absorb(graph: onnx.GraphProto, conv: onnx.NodeProto, norm: onnx.NodeProto) -> None:
    """Put the scale and shift of a batch-norm in use into the weight and bias of the convolution
    before it.

    Besides a layer less, this keeps all numbers small: a running variance may be beyond what
    float16 can hold.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    gamma, beta, mean, variance, weight, *bias = (
        onnx.numpy_helper.to_array(stored[name]).astype(np.float64)
        for name in (*norm.input[1:], *conv.input[1:])
    )
    epsilon = next(each.f for each in norm.attribute if each.name == "epsilon")
    scale = gamma / np.sqrt(variance + epsilon)
    outputs = 0 if conv.op_type == "Conv" else 1  # the weight's axis of output channels
    weight *= scale.reshape([-1 if axis == outputs else 1 for axis in range(weight.ndim)])
    shift = beta + scale * ((bias[0] if bias else 0) - mean)
    for name, values in ((conv.input[1], weight), (norm.input[2], shift)):
        stored[name].CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    inputs = [*conv.input[:2], norm.input[2]]
    del conv.input[:]
    conv.input.extend(inputs)


def _keep_used(graph: onnx.GraphProto) -> None:
    """Delete the nodes whose results nobody reads, from the last to the first, and then the weights
    that none needs.
    """
    needed = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
    for tensor in list(graph.initializer):
        if tensor.name not in needed:
            graph.initializer.remove(tensor)


def _free_axes(graph: onnx.GraphProto) -> None:
    """Make batch and volume axes dynamic; the numbers of channels stay."""
    for value in (*graph.input, *graph.output):
        axes = value.type.tensor_type.shape.dim
        for axis, name in ((0, "N"), (2, "D"), (3, "H"), (4, "W")):
            axes[axis].dim_param = name
