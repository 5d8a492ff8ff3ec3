"""From a MindSpore network to files that run without it.

MINDIR is for MindSpore's own runtimes, ONNX for everybody else's. An exported file is a second
program for the same function, so it is held to the network on the spot: the file appears under its
name only if both give the same logits.
"""

import unet3d_tutorial.environment  # noqa: F401

from pathlib import Path

import mindspore as ms
import numpy as np
import onnx
import onnx.numpy_helper
from mindspore import Tensor, nn

from .config import Config
from .files.whole import written_whole
from .inference import Predictor
from .predict.engines import CONFIG_KEY, dump_config, load_onnx
from .runs.device import setup
from .runs.networks import load_network, predictor

#: largest difference of logits between network and file, as a share of the largest logit: rounding,
#: no more
TOLERANCE = 1e-4
FREE_AXES = {0: "N", 2: "D", 3: "H", 4: "W"}  # of a batch (N, C, D, H, W)
FILE_MODE = 0o644  # MindSpore makes its files read-only

Shape = tuple[int, ...]
Producers = dict[str, onnx.NodeProto]  # by the name of what a node computes


class ExportError(RuntimeError):
    """The exported file does not compute what the network computes. Nothing was written."""


def export_checkpoint(
    checkpoint: Path, config: Config, output: Path | None = None, *, fixed: bool = False
) -> Path:
    """Export a checkpoint's network to ``output``, in the format that its suffix names.

    Without ``output`` the file lies next to the checkpoint and is called as ``config`` says.
    ``fixed`` as in :func:`to_onnx`.
    """
    setup(seed=config.train.seed, device_target=config.train.device_target)
    if output is None:
        suffix = config.export.file_format.lower()
        output = checkpoint.with_name(f"{config.export.file_name}.{suffix}")
    exporters = {".onnx": to_onnx, ".mindir": to_mindir}
    if output.suffix not in exporters:
        raise ValueError(f"output: expected a name that ends in .onnx or .mindir, found {output}")
    network = load_network(config, checkpoint)
    return exporters[output.suffix](network, output, config, fixed=fixed)


def to_onnx(network: nn.Cell, path: str | Path, config: Config, *, fixed: bool = False) -> Path:
    """Write ``network`` as ONNX (opset 11, MindSpore's highest).

    The file takes any batch size and window, or with ``fixed`` one window of
    ``inference.roi_size``. It holds ``config``'s sections data, model and inference, so that
    whoever has it needs nothing else. Raises :class:`ExportError` if ONNX Runtime finds other
    logits in it than the network does, and for a network with a layer that MindSpore cannot write
    (group norm).
    """
    path = _checked_path(path, ".onnx")
    network.set_train(False)
    with written_whole(path) as part:
        _write_mindspores_onnx(network, part, config, path.name)
        model = simplify(onnx.load(part))
        if not fixed:
            _free_axes(model.graph)
        onnx.helper.set_model_props(model, {CONFIG_KEY: dump_config(config)})
        onnx.checker.check_model(model)
        onnx.save(model, part)
        exported, _ = load_onnx(part)
        verify(exported, predictor(network), _shapes_to_verify(config, fixed), path.name)
        part.chmod(FILE_MODE)
    return path


def to_mindir(network: nn.Cell, path: str | Path, config: Config, *, fixed: bool = False) -> Path:
    """Write ``network`` as MINDIR.

    The file takes any batch size and window, or with ``fixed`` one window of
    ``inference.roi_size``. Raises :class:`ExportError` if MindSpore finds other logits in the file
    than in the network.
    """
    path = _checked_path(path, ".mindir")
    network.set_train(False)
    any_window = (None, config.model.in_channels, None, None, None)
    example = Tensor(shape=_window(config) if fixed else any_window, dtype=ms.float32)
    with written_whole(path) as part:
        ms.export(network, example, file_name=str(part), file_format="MINDIR")
        exported = mindir_predictor(part)
        verify(exported, predictor(network), _shapes_to_verify(config, fixed), path.name)
        part.chmod(FILE_MODE)
    return path


def mindir_predictor(path: str | Path) -> Predictor:
    """A MINDIR file as a function on NumPy arrays.

    It takes ``(N, C, D, H, W)`` and gives logits ``(N, K, D, H, W)``.
    """
    return predictor(nn.GraphCell(ms.load(str(path))))


def verify(
    exported: Predictor,
    network: Predictor,
    shapes: list[Shape],
    name: str,
) -> float:
    """Compare the logits of a file and a network on noise; give the largest difference.

    ``shapes`` are those of the batches to try, ``(N, C, D, H, W)``. The difference is a
    share of the largest logit. Raises :class:`ExportError`, with the file's ``name``,
    above :data:`TOLERANCE`.
    """
    rng = np.random.default_rng(0)
    differences = []
    for shape in shapes:
        batch = rng.random(shape, np.float32)
        expected, found = network(batch), exported(batch)
        if found.shape != expected.shape:
            shapes_differ = f"shape {expected.shape}, found {found.shape}"
            raise ExportError(f"{name}: expected logits of {shapes_differ}")
        differences.append(np.abs(found - expected).max() / np.abs(expected).max())
    worst = float(np.max(differences))
    if not worst <= TOLERANCE:  # also when it is not a number
        raise ExportError(
            f"{name}: expected the network's logits to within {TOLERANCE:g} "
            f"of the largest, found a difference of {worst:.2g}; the file was not kept"
        )
    return worst


def _checked_path(path: str | Path, suffix: str) -> Path:
    """The path of a file to write, whose folder is made."""
    path = Path(path)
    if path.suffix != suffix:
        raise ValueError(f"expected a name that ends in {suffix}, found {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _window(config: Config) -> Shape:
    """One window, ``(1, C, D, H, W)``."""
    return 1, config.model.in_channels, *config.inference.roi_size


def _shapes_to_verify(config: Config, fixed: bool) -> list[Shape]:
    """The fixed window, or two small ones of different shape, the second in a batch of two."""
    if fixed:
        return [_window(config)]
    channels = config.model.in_channels
    return [(1, channels, 32, 32, 32), (2, channels, 48, 32, 16)]


# ------------------------------------------------------------------------------------ ONNX's graph


def _write_mindspores_onnx(network: nn.Cell, part: Path, config: Config, name: str) -> None:
    """Write ONNX as MindSpore does, for one window; ``name`` is the file's in a complaint."""
    # Writing ONNX alters the compiled graph: a second export must not find it.
    network.compile_cache.clear()
    example = Tensor(np.zeros(_window(config), np.float32))
    try:
        ms.onnx.export(network, example, file_name=str(part))
    except RuntimeError as error:  # such as group norm, for which it knows no operator
        reason, *_call_stack = str(error).splitlines()
        raise ExportError(
            f"{name}: MindSpore cannot write this network as ONNX: {reason} "
            "Export it as MINDIR, a name that ends in .mindir"
        ) from error


def _free_axes(graph: onnx.GraphProto) -> None:
    """Make batch and volume axes dynamic; the numbers of channels stay."""
    for value in (*graph.input, *graph.output):
        axes = value.type.tensor_type.shape.dim
        for axis, name in FREE_AXES.items():
            axes[axis].dim_param = name


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace what MindSpore spells out by the operator that ONNX has for it.

    The function stays the same. MindSpore's batch-norm folds two axes into one, with sizes written
    into the graph. In use it only scales and shifts each channel, which the convolution before it
    can do: batch-norm and ``Reshape`` go, and the fixed sizes with them.
    ``relu(x) - w * relu(-x)`` is one ``PRelu``.
    """
    graph = model.graph
    producers = {node.output[0]: node for node in graph.node}
    for node in list(graph.node):
        if node.op_type == "Reshape":
            _merge_batch_norm(graph, producers, node)
        elif node.op_type == "Sub":
            _merge_prelu(producers, node)
    _remove_unused(graph)
    return model


def _producer(
    producers: Producers, node: onnx.NodeProto, place: int, *kinds: str
) -> onnx.NodeProto | None:
    """The node that computes an input of another, if there is one and it is of these kinds."""
    if place >= len(node.input):
        return None
    producer = producers.get(node.input[place])
    return producer if producer is not None and producer.op_type in kinds else None


def _merge_batch_norm(graph: onnx.GraphProto, producers: Producers, unfold: onnx.NodeProto) -> None:
    """Merge convolution, fold, batch-norm and ``unfold`` into the convolution, if this is a chain.

    The others stay in the graph; nothing reads them any more.
    """
    norm = _producer(producers, unfold, 0, "BatchNormalization")
    if norm is None:
        return
    fold = _producer(producers, norm, 0, "Reshape")
    if fold is None:
        return
    conv = _producer(producers, fold, 0, "Conv", "ConvTranspose")
    if conv is None:
        return
    _scale_weights(graph, conv, norm)
    conv.output[0] = unfold.output[0]
    unfold.output[0] = ""


def _merge_prelu(producers: Producers, difference: onnx.NodeProto) -> None:
    """Make ``relu(x) - w * relu(-x)`` one node."""
    positive = _producer(producers, difference, 0, "Relu")
    scaled = _producer(producers, difference, 1, "Mul")
    if positive is None or scaled is None:
        return
    x, weight = positive.input[0], scaled.input[0]
    prelu = onnx.helper.make_node("PRelu", [x, weight], difference.output, difference.name)
    difference.CopyFrom(prelu)


def _scale_weights(graph: onnx.GraphProto, conv: onnx.NodeProto, norm: onnx.NodeProto) -> None:
    """Put a batch-norm's scale and shift into weight and bias of the convolution before it.

    With the running mean and variance, which are numbers in use:
    ``gamma * (w * x + b - mean) / sqrt(variance + epsilon) + beta``. Besides saving a layer this
    keeps all numbers small: a running variance may be beyond what float16 can hold.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}

    def values(name: str) -> np.ndarray:
        return onnx.numpy_helper.to_array(stored[name]).astype(np.float64)

    gamma, beta, mean, variance = map(values, norm.input[1:])
    weight, *biases = map(values, conv.input[1:])
    bias = biases[0] if biases else 0

    epsilon = next(attribute.f for attribute in norm.attribute if attribute.name == "epsilon")
    scale = gamma / np.sqrt(variance + epsilon)
    along_outputs = [1] * weight.ndim
    along_outputs[0 if conv.op_type == "Conv" else 1] = -1  # the axis of output channels
    weight *= scale.reshape(along_outputs)
    shift = beta + scale * (bias - mean)

    weight_name, shift_name = conv.input[1], norm.input[2]
    for name, new in ((weight_name, weight), (shift_name, shift)):
        stored[name].CopyFrom(onnx.numpy_helper.from_array(new.astype(np.float32), name))
    inputs = [conv.input[0], weight_name, shift_name]
    del conv.input[:]
    conv.input.extend(inputs)


def _remove_unused(graph: onnx.GraphProto) -> None:
    """Delete the nodes whose results nothing reads, and then the weights that none needs."""
    needed = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
    for tensor in list(graph.initializer):
        if tensor.name not in needed:
            graph.initializer.remove(tensor)
