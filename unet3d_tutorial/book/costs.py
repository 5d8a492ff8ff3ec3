"""What a step costs: multiplications, memory, and bytes that travel between processes."""

import unet3d_tutorial.environment  # noqa: F401

import re
import resource
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn


def multiply_adds(network: nn.Cell, shape: tuple[int, ...]) -> tuple[int, int]:
    """Multiplications with an addition in one forward pass of all convolutions, and numbers in
    their feature maps.

    Counted while zeros of ``shape``, ``(N, C, D, H, W)``, run through the network, in evaluation
    mode so that batch-norm learns nothing from them. A convolution multiplies each output voxel
    with each weight of its channel, a transposed one each input voxel with each weight it spreads.
    A backward pass takes about twice as many.
    """
    counts: list[tuple[int, int]] = []

    def count(cell: nn.Cell, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # Where the kernel is laid.
        places = inputs[0] if isinstance(cell, nn.Conv3dTranspose) else output
        counts.append((places.size // places.shape[1] * int(cell.weight.size), output.size))

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
    return sum(products for products, _ in counts), sum(size for _, size in counts)


def gradient_bytes(network: nn.Cell) -> int:
    """Bytes of one gradient of all trained weights, in 32-bit floats: what each process sends at
    each step.
    """
    return sum(4 * int(p.size) for p in network.trainable_params() if p.dtype == ms.float32)


def step_memory(name: str, shape: tuple[int, ...], num_classes: int = 4) -> int:
    """Bytes by which building a network and two training steps raise the peak memory of a process
    of their own.

    ``name`` is one of ``config.NETWORK_NAMES``, in its default width; ``shape`` is that of a batch,
    ``(N, C, D, H, W)``. Weights, gradients, Adam's two means and all feature maps are in it,
    MindSpore itself is not. Raises ``RuntimeError``, with what it printed last, if the process
    fails.
    """
    command = [sys.executable, "-m", __name__, name, *map(str, shape), str(num_classes)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"step_memory of {name}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
        )
    return int(done.stdout.split()[-1])


def _peak_bytes() -> int:
    """Peak memory of this program.

    ``getrusage`` would not do on Linux: there a child begins with its parent's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def _measure(name: str, shape: tuple[int, ...], num_classes: int) -> int:
    """What :func:`step_memory` runs in the other process."""
    from ..losses import DiceCELoss
    from ..model import NETWORKS
    from ..runs.device import setup
    from ..training_step import make_train_step

    setup()
    nn.Conv3d(1, 1, 3)(
        Tensor(np.zeros((1, 1, 8, 8, 8), np.float32))
    ).asnumpy()  # MindSpore's own start is not the network's
    before = _peak_bytes()
    network = NETWORKS[name](shape[1], num_classes)
    network.set_train(True)
    step = make_train_step(network, DiceCELoss(), nn.Adam(network.trainable_params()))
    image = Tensor(np.zeros(shape, np.float32))
    label = Tensor(np.zeros((shape[0], *shape[2:]), np.int32))
    for _ in range(2):
        step(image, label)[0].asnumpy()
    return _peak_bytes() - before


if __name__ == "__main__":
    *_numbers, _classes = map(int, sys.argv[2:])
    print(_measure(sys.argv[1], tuple(_numbers), _classes))
