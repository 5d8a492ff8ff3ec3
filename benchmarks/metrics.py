"""Surface metrics on full-size masks, beside MedPy: ``python benchmarks/metrics.py``.

Masks of the real CT (512 x 512 x 133 voxels; a synthetic pair without it). One line a metric:
seconds here (median of three), seconds of MedPy (once), how many times as fast, and how far the two
values are apart. The pair is the right lung and the same lung grown by one voxel and shifted by
two, so that hardly any of the two surfaces coincides.
"""

import time
from collections.abc import Callable

import medpy.metric.binary as medpy
import numpy as np
from scipy import ndimage

from unet3d_tutorial import metrics
from unet3d_tutorial.files.nifti import load_volume
from unet3d_tutorial.sample_ct import SampleUnavailable, fetch


def timed(function: Callable[[], float], times: int = 1) -> tuple[float, float]:
    """Give the value of ``function`` and the median of its seconds."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        value = function()
        seconds.append(time.perf_counter() - start)
    return value, float(np.median(seconds))


def pair() -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Prediction, reference and spacing."""
    try:
        labels = load_volume(fetch().label)
        reference, spacing_mm = labels.array == 2, labels.spacing_mm
    except SampleUnavailable as error:
        print(error)
        reference, spacing_mm = np.zeros((512, 512, 133), bool), (0.7, 0.7, 2.5)
        reference[90:230, 120:380, 20:120] = (
            ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(140, 260, 100)), 6)
            > -0.01
        )
    return np.roll(ndimage.binary_dilation(reference), 2, axis=1), reference, spacing_mm


def main() -> None:
    """Print the table."""
    prediction, reference, spacing_mm = pair()
    print(f"{reference.shape}, {np.count_nonzero(reference)} voxels of {spacing_mm} mm")
    print(f"{'metric':8} {'here (s)':>9} {'MedPy (s)':>10} {'ratio':>7} {'difference':>11}")
    for name in ("hd95", "assd", "asd"):
        ours, here = timed(
            lambda name=name: getattr(metrics, name)(prediction, reference, spacing_mm=spacing_mm),
            3,
        )
        theirs, there = timed(
            lambda name=name: getattr(medpy, name)(prediction, reference, spacing_mm)
        )
        print(
            f"{name:8} {here:9.2f} {there:10.2f} {there / here:7.1f} {abs(ours / theirs - 1):11.1e}"
        )
    number, here = timed(
        lambda: len(metrics.score(prediction, reference, spacing_mm=spacing_mm)), 3
    )
    print(f"all {number} metrics here: {here:.2f} s")


if __name__ == "__main__":
    main()
