"""Time a training step and a forward pass, here and in PyTorch and ONNX Runtime.

The network is the case's. "MindSpore" is MindSpore with its own kernels, "MindSpore, oneDNN" with
those of ``unet3d_tutorial.cpu``, which needs the package ``onednn-cpu-gomp``. The sides take
turns, so that all feel the same machine. Prints the median and the least wall time and the
processor time of all threads, in seconds. Needs the extra ``parity``: ``pip install -e .[parity]``.
"""

# First, as it asks idle threads to sleep: on few cores threads that wait busily, PyTorch's too,
# hold up the other sides.
import unet3d_tutorial.environment  # noqa: F401

# isort: split
import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import mindspore as ms
import numpy as np
import torch
from mindspore import Tensor, nn

from unet3d_tutorial.config import Config
from unet3d_tutorial.cpu import accelerate
from unet3d_tutorial.cpu.layers import kernels
from unet3d_tutorial.cpu.runtime import convolution_kernel
from unet3d_tutorial.export import to_onnx
from unet3d_tutorial.losses import DiceCELoss
from unet3d_tutorial.model import ResidualUNet3D
from unet3d_tutorial.predict.engines import load_onnx
from unet3d_tutorial.runs.device import setup
from unet3d_tutorial.training import make_train_step

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import torch_twins

CHANNELS = (16, 32, 64, 128, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shape", type=int, nargs=5, default=[2, 1, 64, 64, 64], metavar="N", help="N C D H W"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=10,
        help="measured rounds, after two that are not (default: 10)",
    )
    options = parser.parse_args()
    setup(seed=1)
    rng = np.random.default_rng(0)
    image = rng.normal(size=options.shape).astype(np.float32)
    label = rng.integers(0, 4, (options.shape[0], *options.shape[2:]))
    print(
        f"batch {options.shape}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, "
        f"MindSpore {ms.__version__} with {convolution_kernel()}, "
        f"convolutions by {kernels()} unless said otherwise"
    )
    plain, last = torch.contiguous_format, torch.channels_last_3d
    compare(
        "training step",
        {
            "MindSpore": mindspore_step(image, label, "mindspore"),
            "MindSpore, oneDNN": mindspore_step(image, label, ""),
            "PyTorch": torch_step(image, label, plain),
            "PyTorch, channels last": torch_step(image, label, last),
        },
        options.rounds,
    )
    compare(
        "forward pass",
        {
            "MindSpore": mindspore_forward(image, "mindspore"),
            "MindSpore, oneDNN": mindspore_forward(image, ""),
            "ONNX Runtime": onnx_forward(image),
            "PyTorch": torch_forward(image, plain),
            "PyTorch, channels last": torch_forward(image, last),
        },
        options.rounds,
    )


def compare(title: str, sides: dict[str, Callable[[], object]], rounds: int) -> None:
    """Let the sides take turns and print one line for each."""
    wall, busy = {name: [] for name in sides}, {name: [] for name in sides}
    for turn in range(rounds + 2):
        for name, run in sides.items():
            start, start_busy = time.perf_counter(), time.process_time()
            run()
            if turn >= 2:
                wall[name].append(time.perf_counter() - start)
                busy[name].append(time.process_time() - start_busy)
    print(f"\n| {title} | median s | least s | processor s |\n|---|--:|--:|--:|")
    for name in sides:
        middle, least, processor = (
            statistics.median(wall[name]),
            min(wall[name]),
            statistics.median(busy[name]),
        )
        print(f"| {name} | {middle:.3f} | {least:.3f} | {processor:.3f} |")


def network_with(kernels: str, channels: int) -> ResidualUNet3D:
    """The case's network with MindSpore's kernels (``"mindspore"``) or the best (``""``)."""
    os.environ["UNET3D_CONVOLUTIONS"] = kernels
    return accelerate(ResidualUNet3D(channels, 4, CHANNELS))


def mindspore_step(image: np.ndarray, label: np.ndarray, kernels: str) -> Callable[[], object]:
    network = network_with(kernels, image.shape[1])
    network.set_train(True)
    step = make_train_step(network, DiceCELoss(), nn.Adam(network.trainable_params(), 1e-3))
    one_hot = (label[:, None] == np.arange(4).reshape(1, 4, 1, 1, 1)).astype(np.float32)
    batch = Tensor(image), Tensor(one_hot)
    return lambda: step(*batch)[0].asnumpy()


def mindspore_forward(image: np.ndarray, kernels: str) -> Callable[[], object]:
    network = network_with(kernels, image.shape[1])
    network.set_train(False)
    return lambda: network(Tensor(image)).asnumpy()


def onnx_forward(image: np.ndarray) -> Callable[[], object]:
    """The network exported: convolutions with their batch-norms folded in, in ONNX Runtime's own
    kernels.
    """
    position = image.shape[1] == 2
    config = Config().override(
        [f"data.position={str(position).lower()}", f"model.in_channels={image.shape[1]}"]
    )
    with TemporaryDirectory() as folder:
        path = to_onnx(
            network_with("mindspore", image.shape[1]), Path(folder) / "network.onnx", config
        )
        run = load_onnx(path)[0]
    return lambda: run(image)


def torch_step(
    image: np.ndarray, label: np.ndarray, layout: torch.memory_format
) -> Callable[[], object]:
    network = (
        torch_twins.ResidualUNet3D(image.shape[1], 4, CHANNELS).to(memory_format=layout).train()
    )
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    x, classes = torch.from_numpy(image).to(memory_format=layout), torch.from_numpy(label)
    target = torch.nn.functional.one_hot(classes, 4).movedim(-1, 1).float()

    def step() -> float:
        optimizer.zero_grad()
        log_p = network(x).log_softmax(1)
        p, axes = log_p.exp(), (0, 2, 3, 4)
        dice = (2 * (p * target).sum(axes) + 1) / (
            (p * p).sum(axes) + (target * target).sum(axes) + 1
        )
        loss = -(log_p * target).sum() / classes.numel() + (1 - dice).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def torch_forward(image: np.ndarray, layout: torch.memory_format) -> Callable[[], object]:
    network = (
        torch_twins.ResidualUNet3D(image.shape[1], 4, CHANNELS).to(memory_format=layout).eval()
    )
    x = torch.from_numpy(image).to(memory_format=layout)

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return network(x).numpy()

    return forward


if __name__ == "__main__":
    main()
