"""The cost of a step: multiplications, memory, and bytes sent between processes."""

import unet3d_tutorial.environment  # noqa: F401

import re
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from .chapter import peak_bytes

BYTES_PER_FLOAT32 = 4


def multiply_adds(network: nn.Cell, shape: tuple[int, ...]) -> tuple[int, int]:
    """Count the multiply-adds of all convolutions, and the numbers in their feature maps.

    The counts are for one forward pass with zeros of ``shape``, ``(N, C, D, H, W)``. The network is
    in evaluation mode, so that batch-norm does not update its statistics. A convolution multiplies
    each output voxel of a channel by each weight of that channel; a transposed one multiplies each
    input voxel of a channel by each weight of that channel. A backward pass needs about twice as
    many.
    """
    products: list[int] = []
    feature_map_sizes: list[int] = []

    def count(cell: nn.Cell, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kernel_places = inputs[0] if isinstance(cell, nn.Conv3dTranspose) else output
        voxels = kernel_places.size // kernel_places.shape[1]
        products.append(voxels * int(cell.weight.size))
        feature_map_sizes.append(output.size)

    hooks = [
        cell.register_forward_hook(count)
        for _, cell in network.cells_and_names()
        if isinstance(cell, nn.Conv3d | nn.Conv3dTranspose)
    ]
    training = network.training
    try:
        network.set_train(False)
        network(Tensor(np.zeros(shape, np.float32)))
    finally:
        network.set_train(training)
        for hook in hooks:
            hook.remove()
    return sum(products), sum(feature_map_sizes)


def gradient_bytes(network: nn.Cell) -> int:
    """Return the bytes of the gradient of all trained weights, which each process sends each step.

    Only weights in 32-bit floats are counted.
    """
    weights = [weight for weight in network.trainable_params() if weight.dtype == ms.float32]
    return sum(BYTES_PER_FLOAT32 * int(weight.size) for weight in weights)


# ------------------------------------------------------------------------------------------ memory


def step_memory(name: str, shape: tuple[int, ...], num_classes: int = 4) -> int:
    """Measure the memory of two training steps with a network: the rise of the peak, in bytes.

    ``name`` is one of ``model.NETWORKS``, with its default width. ``shape`` is that of a batch,
    ``(N, C, D, H, W)``. The result includes weights, gradients, Adam's two moments and all feature
    maps, but not MindSpore itself. It is measured in a separate process. Raises ``RuntimeError``,
    with the last line that this process printed, if it fails.
    """
    command = [sys.executable, "-m", __name__, name, *map(str, shape), str(num_classes)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"step_memory of {name}: {lines[-1]}")
    return int(done.stdout.split()[-1])


def _measure(name: str, shape: tuple[int, ...], num_classes: int) -> int:
    """Do the measurement of :func:`step_memory`, in the separate process."""
    from ..losses import DiceCELoss
    from ..model import NETWORKS
    from ..runs.device import setup
    from ..training_step import make_train_step

    setup()
    _start_mindspore()
    before = _own_peak_bytes()
    batch, channels, *window = shape
    network = NETWORKS[name](channels, num_classes)
    network.set_train(True)
    step = make_train_step(network, DiceCELoss(), nn.Adam(network.trainable_params()))
    image = Tensor(np.zeros(shape, np.float32))
    label = Tensor(np.zeros((batch, *window), np.int32))
    for _ in range(2):
        step(image, label)[0].asnumpy()
    return _own_peak_bytes() - before


def _start_mindspore() -> None:
    """Run a small convolution, so that memory for MindSpore's start is not counted."""
    small = Tensor(np.zeros((1, 1, 8, 8, 8), np.float32))
    nn.Conv3d(1, 1, 3)(small).asnumpy()


def _own_peak_bytes() -> int:
    """The peak memory of this process in bytes, without that of its parent.

    :func:`~.chapter.peak_bytes` is not suitable on Linux, where a child process starts with its
    parent's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if peak is not None:
            return 1024 * int(peak[1])
    return peak_bytes()


if __name__ == "__main__":
    _, _name, *_numbers = sys.argv
    *_shape, _classes = map(int, _numbers)
    print(_measure(_name, tuple(_shape), _classes))
