"""Details of an ONNX file for the chapter on export: operations, axes, largest number."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
from onnxruntime.transformers.float16 import convert_float_to_float16


def operation_counts(model: onnx.ModelProto) -> Counter[str]:
    """Count each kind of operation in the file's graph."""
    return Counter(node.op_type for node in model.graph.node)


def input_axes(model: onnx.ModelProto) -> list[str | int]:
    """Return the axes of the file's first input: a name if the length is free, else the length."""
    axes = model.graph.input[0].type.tensor_type.shape.dim
    return [axis.dim_param or axis.dim_value for axis in axes]


def largest_number(model: onnx.ModelProto) -> tuple[float, str]:
    """Return the largest absolute value in the file's stored arrays, and its array's name."""
    values = {
        tensor.name: float(abs(onnx.numpy_helper.to_array(tensor)).max())
        for tensor in model.graph.initializer
    }
    name = max(values, key=lambda name: (values[name], name))
    return values[name], name


def in_half_precision(path: str | Path) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Convert an ONNX file to float16; return a predictor, and the new size in bytes.

    The predictor still takes and returns float32.
    """
    model = convert_float_to_float16(onnx.load(path), keep_io_types=True).SerializeToString()
    session = onnxruntime.InferenceSession(model)
    name = session.get_inputs()[0].name

    def predict(batch: np.ndarray) -> np.ndarray:
        return session.run(None, {name: np.ascontiguousarray(batch)})[0]

    return predict, len(model)
