"""What a step costs: multiplications, memory, and bytes that travel between processes."""

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

    The counts are those of one forward pass. They are made while zeros of ``shape``,
    ``(N, C, D, H, W)``, run through the network, in evaluation mode so that batch-norm learns
    nothing from them. A convolution multiplies each output voxel with each weight of its channel, a
    transposed one each input voxel with each weight it spreads. A backward pass takes about twice
    as many.
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
    """Bytes of one gradient of all trained weights: what each process sends at each step.

    Weights in 32-bit floats count.
    """
    weights = [weight for weight in network.trainable_params() if weight.dtype == ms.float32]
    return sum(BYTES_PER_FLOAT32 * int(weight.size) for weight in weights)


# ------------------------------------------------------------------------------------------ memory


def step_memory(name: str, shape: tuple[int, ...], num_classes: int = 4) -> int:
    """Bytes by which building a network and two training steps raise a process's peak memory.

    ``name`` is one of ``model.NETWORKS``, in its default width; ``shape`` is that of a batch,
    ``(N, C, D, H, W)``. Weights, gradients, Adam's two means and all feature maps are in it,
    MindSpore itself is not. It is measured in a process of its own. Raises ``RuntimeError``, with
    what that process printed last, if it fails.
    """
    command = [sys.executable, "-m", __name__, name, *map(str, shape), str(num_classes)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"step_memory of {name}: {lines[-1]}")
    return int(done.stdout.split()[-1])


def _measure(name: str, shape: tuple[int, ...], num_classes: int) -> int:
    """What :func:`step_memory` runs in the other process."""
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
    """Run a small convolution: what MindSpore takes at its start is not the network's."""
    small = Tensor(np.zeros((1, 1, 8, 8, 8), np.float32))
    nn.Conv3d(1, 1, 3)(small).asnumpy()


def _own_peak_bytes() -> int:
    """The most memory that this process has held, without its parent's share.

    :func:`~.chapter.peak_bytes` would not do on Linux: there a child begins with its parent's
    peak.
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
