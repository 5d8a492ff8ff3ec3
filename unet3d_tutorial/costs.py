"""What a step costs: multiplications, and bytes that travel between processes."""

import math

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn


def count_macs(network: nn.Cell, shape: tuple[int, ...]) -> int:
    """Multiply-accumulate operations of the convolutions in one forward pass over a batch of ``shape``, ``(N, C, D, H, W)``.

    Counted while zeros run through the network. A backward pass takes about twice as many.
    """
    total = 0

    def count(cell: nn.Cell, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        places = inputs[0] if isinstance(cell, nn.Conv3dTranspose) else output  # where the kernel is laid
        voxels = places.shape[0] * math.prod(places.shape[2:])
        total += voxels * int(cell.weight.size)

    hooks = [cell.register_forward_hook(count) for _, cell in network.cells_and_names()
             if isinstance(cell, (nn.Conv3d, nn.Conv3dTranspose))]
    network(Tensor(np.zeros(shape, np.float32)))
    for hook in hooks:
        hook.remove()
    return total


def gradient_bytes(network: nn.Cell) -> int:
    """Bytes of one gradient of all trained weights, in 32-bit floats: what each process sends at each step."""
    return sum(4 * int(p.size) for p in network.trainable_params() if p.dtype == ms.float32)
