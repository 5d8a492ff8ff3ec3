"""A whole CT at its own resolution in windows, beside MONAI around PyTorch.

``python benchmarks/sliding_window.py`` runs the case's network with the same weights on all sides,
overlap 0.25, constant weights, from the float32 input to a mask of labels. Here:
``sliding_window_slabs`` around our ONNX file in ONNX Runtime, and around the network in MindSpore,
labels found slab by slab. There: MONAI's ``sliding_window_inference`` around the PyTorch twin, then
``argmax``. Each side runs in a process of its own, which tells its seconds, imports included, and
its largest resident memory; the masks must agree. Takes some minutes; needs ``pip install
.[parity]`` and onnxruntime. Times depend on what else the machine does: the sides take turns,
``--rounds`` times.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

ROIS = {"96": (96, 96, 96), "224": (224, 224, 96)}
OVERLAP = 0.25


def make(folder: Path) -> None:
    """Write the input, the network as ONNX and its weights, with MindSpore."""
    from unet3d_tutorial.config import Config
    from unet3d_tutorial.cpu import accelerate
    from unet3d_tutorial.export import to_onnx
    from unet3d_tutorial.files.nifti import load_volume
    from unet3d_tutorial.inference import prepare
    from unet3d_tutorial.model import ResidualUNet3D
    from unet3d_tutorial.runs.device import setup
    from unet3d_tutorial.sample_ct import fetch

    setup(seed=1)
    config = Config.preset("luna16")
    np.save(folder / "input.npy", prepare(load_volume(fetch().image), config).array)
    network = accelerate(ResidualUNet3D(in_channels=1))
    network.set_train(False)
    np.savez(folder / "weights.npz", **{p.name: p.asnumpy() for p in network.get_parameters()})
    for name, roi in ROIS.items():
        to_onnx(
            network,
            folder / f"{name}.onnx",
            config.updated({"inference": {"roi_size": roi}}),
            fixed=True,
        )


def run_here(folder: Path, roi: str) -> np.ndarray:
    """Labels by this package around ONNX Runtime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(str(folder / f"{roi}.onnx"), options)
    name = session.get_inputs()[0].name
    return labels(folder, roi, lambda batch: session.run(None, {name: batch})[0])


def run_mindspore(folder: Path, roi: str) -> np.ndarray:
    """Labels by this package around its network in MindSpore."""
    from mindspore import Tensor

    from unet3d_tutorial.cpu import accelerate
    from unet3d_tutorial.model import ResidualUNet3D
    from unet3d_tutorial.runs.checkpoints import assign_weights
    from unet3d_tutorial.runs.device import setup
    from unet3d_tutorial.runs.networks import predictor

    setup(seed=1)
    network = accelerate(ResidualUNet3D(in_channels=1))
    stored = np.load(folder / "weights.npz")
    assign_weights(network, {name: Tensor(stored[name]) for name in stored})
    network.set_train(False)
    return labels(folder, roi, predictor(network))


def labels(folder: Path, roi: str, predict: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The labels of the input, found slab by slab."""
    from unet3d_tutorial.inference import SlidingWindow, largest, sliding_window_slabs

    window = SlidingWindow(ROIS[roi], overlap=OVERLAP)
    slabs = sliding_window_slabs(np.load(folder / "input.npy"), window, predict)
    # A loop would hold a slab while the next is made.
    return np.concatenate(list(map(largest, slabs)))


def run_monai(folder: Path, roi: str) -> np.ndarray:
    """Labels by MONAI around the PyTorch twin."""
    import torch
    from monai.inferers import sliding_window_inference

    torch.set_num_threads(2)
    network = twin(np.load(folder / "weights.npz"))
    with torch.inference_mode():
        image = torch.from_numpy(np.load(folder / "input.npy"))[None]
        return (
            sliding_window_inference(image, ROIS[roi], 1, network, OVERLAP)[0]
            .argmax(dim=0)
            .to(torch.uint8)
            .numpy()
        )


def twin(weights):
    """Build the case's network in PyTorch, as a function:

    (N, 1, D, H, W) to logits (N, 4, D, H, W).
    """
    import torch
    from torch.nn import functional as f

    w = {name: torch.from_numpy(weights[name]) for name in weights}

    def norm_relu(x, name, number):
        n, relu = f"{name}.batchNormal{number}.bn2d", f"{name}.relu{number}"
        x = f.batch_norm(
            x,
            w[f"{n}.moving_mean"],
            w[f"{n}.moving_variance"],
            w[f"{n}.gamma"],
            w[f"{n}.beta"],
            eps=1e-5,
        )
        return f.prelu(x, w[f"{relu}.w"] if f"{relu}.w" in w else w[f"{name}.relu.w"])

    def down(x, level, stride):
        name = f"down{level}.down_conv"
        y = norm_relu(
            f.conv3d(x, w[f"{name}.down_conv_1.weight"], stride=stride, padding=1), name, 1
        )
        y = norm_relu(f.conv3d(y, w[f"{name}.down_conv_2.weight"], padding=1), name, 2)
        shortcut = w[f"{name}.residual.weight"]
        return y + f.conv3d(x, shortcut, stride=stride, padding=shortcut.shape[-1] // 2)

    def up(x, skip, level):
        x = torch.cat([x, skip], dim=1)
        x = f.conv_transpose3d(
            x, w[f"up{level}.conv3d_transpose.weight"], stride=2, padding=1, output_padding=1
        )
        x = norm_relu(x, f"up{level}", 1)
        y = f.conv3d(x, w[f"up{level}.conv.down_conv_1.weight"], padding=1)
        return y if level == 4 else x + norm_relu(y, f"up{level}.conv", 1)

    def network(x):
        skips = []
        for level in (1, 2, 3, 4):
            x = down(x, level, 2)
            skips.append(x)
        x = down(x, 5, 1)
        for level in (1, 2, 3, 4):
            x = up(x, skips.pop(), level)
        return x

    return network


SIDES = {"here": run_here, "mindspore": run_mindspore, "monai": run_monai}


def measure(side: str, folder: Path, roi: str) -> tuple[float, float]:
    """Run one side in a process of its own: seconds, and GB of resident memory at the peak."""
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder), "--roi", roi]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    seconds, peak = done.stdout.split()[-2:]
    return float(seconds), float(peak)


def child(side: str, folder: Path, roi: str) -> None:
    """Run one side, save its mask, print seconds and peak memory."""
    start = time.perf_counter()
    found = SIDES[side](folder, roi)
    seconds = time.perf_counter() - start
    np.save(folder / f"{side}.npy", found)
    print(seconds, peak_bytes() / 1e9)


def peak_bytes() -> int:
    """Largest resident memory of this program;

    ``ru_maxrss`` never falls below that of the program that started it.
    """
    return 1024 * int(
        re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))[1]
    )


def main() -> None:
    """Print a line for each window size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--roi", choices=ROIS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        return child(options.side, options.folder, options.roi)
    with TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        for roi in [options.roi] if options.roi else ROIS:
            turns = [[measure(side, folder, roi) for side in SIDES] for _ in range(options.rounds)]
            (here, here_gb), (ours, ours_gb), (there, there_gb) = np.median(turns, axis=0)
            masks = [np.load(folder / f"{side}.npy") for side in SIDES]
            same = min((mask == masks[-1]).mean() for mask in masks[:-1])
            print(
                f"ROI {ROIS[roi]}: here {here:.1f} s, {here_gb:.2f} GB; "
                f"MindSpore {ours:.1f} s, {ours_gb:.2f} GB; "
                f"MONAI {there:.1f} s, {there_gb:.2f} GB; at least {same:.4%} of the labels equal"
            )


if __name__ == "__main__":
    main()
