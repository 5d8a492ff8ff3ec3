"""Export a network to files that run without its Python code: MINDIR and ONNX.

MINDIR is for MindSpore's own runtimes, ONNX for all others. An exported file is a second program
for the same function, so its logits are compared with the network's at once: the file is kept only
if both agree.
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

#: largest difference between the logits of network and file, as a share of the largest logit; this
#: allows for rounding only
TOLERANCE = 1e-4
FREE_AXES = {0: "N", 2: "D", 3: "H", 4: "W"}  # dynamic axes of a batch (N, C, D, H, W)
FILE_MODE = 0o644  # MindSpore makes its files read-only

Shape = tuple[int, ...]
Producers = dict[str, onnx.NodeProto]  # from the name of an array to the node that computes it


class ExportError(RuntimeError):
    """The exported file does not compute what the network computes. Nothing was written."""


def export_checkpoint(
    checkpoint: Path, config: Config, output: Path | None = None, *, fixed: bool = False
) -> Path:
    """Export a checkpoint's network to ``output``, in the format that its suffix names.

    If ``output`` is ``None``, the file is written next to the checkpoint, with the name and the
    format from ``config.export``. ``fixed`` is as in :func:`to_onnx`. Returns the file's path.
    Raises ``ValueError`` for a suffix other than ``.onnx`` and ``.mindir``.
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

    The file takes any batch size and window size, or with ``fixed`` exactly one window of
    ``inference.roi_size``. It contains the sections data, model and inference of ``config``, so it
    can be used without any other file. Raises :class:`ExportError` if the logits that ONNX Runtime
    computes differ from the network's, and for a network with a layer that MindSpore cannot write
    as ONNX (group norm).
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

    The file takes any batch size and window size, or with ``fixed`` exactly one window of
    ``inference.roi_size``. Raises :class:`ExportError` if the logits of the file differ from the
    network's.
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
    """Load a MINDIR file as a function on NumPy arrays.

    The function takes ``(N, C, D, H, W)`` and returns logits ``(N, K, D, H, W)``.
    """
    return predictor(nn.GraphCell(ms.load(str(path))))


def verify(
    exported: Predictor,
    network: Predictor,
    shapes: list[Shape],
    name: str,
) -> float:
    """Compare the logits of a file and a network on noise; return the largest difference.

    ``shapes`` are the shapes of the batches to try, ``(N, C, D, H, W)``. The difference is a share
    of the largest logit. Raises :class:`ExportError`, with the file's ``name``, if the shapes of
    the logits differ, or if the difference is above :data:`TOLERANCE`.
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
    """The path of a file to write; its folder is made. ``ValueError`` for the wrong suffix."""
    path = Path(path)
    if path.suffix != suffix:
        raise ValueError(f"expected a name that ends in {suffix}, found {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _window(config: Config) -> Shape:
    """The shape of one window, ``(1, C, D, H, W)``."""
    return 1, config.model.in_channels, *config.inference.roi_size


def _shapes_to_verify(config: Config, fixed: bool) -> list[Shape]:
    """The fixed window, or two small windows of different shape, the second in a batch of two."""
    if fixed:
        return [_window(config)]
    channels = config.model.in_channels
    return [(1, channels, 32, 32, 32), (2, channels, 48, 32, 16)]


# ------------------------------------------------------------------------------------ ONNX's graph


def _write_mindspores_onnx(network: nn.Cell, part: Path, config: Config, name: str) -> None:
    """Write MindSpore's own ONNX, for one window; ``name`` is the file's name in errors."""
    # Writing ONNX changes the compiled graph, so a second export must not reuse it.
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
    """Make the batch axis and the volume axes dynamic; the numbers of channels stay fixed."""
    for value in (*graph.input, *graph.output):
        axes = value.type.tensor_type.shape.dim
        for axis, name in FREE_AXES.items():
            axes[axis].dim_param = name


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify MindSpore's graph without changing its function.

    The networks' batch-norm folds two axes into one, which writes fixed sizes into the graph. At
    inference it only scales and shifts each channel, which the preceding convolution can do as
    well. So batch-norm and ``Reshape`` are removed, together with the fixed sizes. The nodes of
    ``relu(x) - w * relu(-x)`` become one ``PRelu``.
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
    """The node that computes input ``place`` of ``node``; ``None`` unless it is of ``kinds``."""
    if place >= len(node.input):
        return None
    producer = producers.get(node.input[place])
    return producer if producer is not None and producer.op_type in kinds else None


def _merge_batch_norm(graph: onnx.GraphProto, producers: Producers, unfold: onnx.NodeProto) -> None:
    """Merge the chain convolution, fold, batch-norm, ``unfold`` into its convolution.

    Nothing happens if there is no such chain. The merged nodes stay in the graph, but nothing reads
    them any more.
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
    """Replace ``relu(x) - w * relu(-x)`` by one ``PRelu`` node."""
    positive = _producer(producers, difference, 0, "Relu")
    scaled = _producer(producers, difference, 1, "Mul")
    if positive is None or scaled is None:
        return
    x, weight = positive.input[0], scaled.input[0]
    prelu = onnx.helper.make_node("PRelu", [x, weight], difference.output, difference.name)
    difference.CopyFrom(prelu)


def _scale_weights(graph: onnx.GraphProto, conv: onnx.NodeProto, norm: onnx.NodeProto) -> None:
    """Put a batch-norm's scale and shift into weight and bias of the convolution before it.

    With the running mean and variance, which are constants at inference, both together compute
    ``gamma * (w * x + b - mean) / sqrt(variance + epsilon) + beta``. This saves a layer. It also
    keeps all numbers small: a running variance may be too large for float16.
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
    """Delete the nodes whose results are not used, then the weights that no node uses."""
    needed = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
    for tensor in list(graph.initializer):
        if tensor.name not in needed:
            graph.initializer.remove(tensor)
