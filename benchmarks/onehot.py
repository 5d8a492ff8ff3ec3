"""One-hot coding of class numbers: a Python loop over voxels against ``OneHot``.

``python benchmarks/onehot.py`` codes 2 x 96 x 224 x 224 numbers on both sides and prints medians
and their ratio; at least 30 is wanted.
"""

import argparse
import statistics
import time

import numpy as np

from unet3d_tutorial.transforms import OneHot
from unet3d_tutorial.volume import Volume

SHAPE, CLASSES = (2, 1, 96, 224, 224), 4


def loop(label: np.ndarray) -> np.ndarray:
    """Visit every voxel, as a reader's first version would."""
    hot = np.zeros((label.size, CLASSES), np.float32)
    for number, value in enumerate(label.ravel()):
        hot[number, value] = 1
    hot = hot.reshape(label.shape[0], *label.shape[2:], CLASSES)
    return np.ascontiguousarray(np.moveaxis(hot, -1, 1))


def at_once(label: np.ndarray) -> np.ndarray:
    volume = Volume(label, np.eye(4))
    return OneHot(CLASSES)(volume, volume)[1].array


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    label = np.random.default_rng(0).integers(0, CLASSES, SHAPE).astype(np.uint8)
    assert np.array_equal(loop(label), at_once(label))
    seconds = {loop: [], at_once: []}
    for _ in range(rounds):
        for method, times in seconds.items():
            start = time.perf_counter()
            method(label)
            times.append(time.perf_counter() - start)
    slow, fast = (statistics.median(times) for times in seconds.values())
    print(f"loop {slow:.3f} s, OneHot {fast:.3f} s, ratio {slow / fast:.0f}")


if __name__ == "__main__":
    main()
