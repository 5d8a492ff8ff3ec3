"""How long prediction takes from file to file, and whether smaller number types help.

``python benchmarks/predict.py`` needs the trained quick run and the real CT. It prints two tables:
the commands, each in a fresh process, in turns; and the network in ONNX Runtime as float32, float16
and INT8, with the Dice that each keeps on the real CT.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from unet3d_tutorial.config import Config
from unet3d_tutorial.dataset import list_cases
from unet3d_tutorial.export import export_checkpoint
from unet3d_tutorial.files.nifti import load_volume
from unet3d_tutorial.files.scans import read_scan
from unet3d_tutorial.inference import prepare, segment
from unet3d_tutorial.labels import STRUCTURES
from unet3d_tutorial.metrics import dice
from unet3d_tutorial.sample_ct import fetch
from unet3d_tutorial.training import FINAL


class Windows(CalibrationDataReader):
    """The middle window of some training phantoms, for the ranges that INT8 needs; never the CT
    that it is tested on.
    """

    def __init__(self, config: Config, count: int, name: str):
        cases = list_cases(Path(config.data.data_path) / "train")[:count]
        prepared = [prepare(load_volume(image), config).array for image, _ in cases]
        self.batches = iter(
            [
                {name: np.ascontiguousarray(array[None, :, 16:80, 16:80, 16:64])}
                for array in prepared
            ]
        )

    def get_next(self):
        return next(self.batches, None)


def commands(onnx_file: Path, scan: Path, folder: Path, rounds: int) -> None:
    """Time ``unet3d predict`` from file to file, in turns."""
    choices = {
        "MindSpore": [],
        "ONNX Runtime": ["--backend", "onnx", "--checkpoint", str(onnx_file)],
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in choices}
    for _ in range(rounds):
        for name, options in choices.items():
            mask = str(folder / "mask.nii.gz")
            command = [
                sys.executable,
                "-m",
                "unet3d_tutorial.cli",
                "predict",
                str(scan),
                "-o",
                mask,
                "--overwrite",
            ]
            start, before = time.perf_counter(), processor_seconds()
            subprocess.run([*command, *options], check=True, capture_output=True)
            seconds[name].append((time.perf_counter() - start, processor_seconds() - before))
    print("\n| unet3d predict, file to file | median (s) | fastest (s) | processor (s) |")
    print("|:--|--:|--:|--:|")
    for name, values in seconds.items():
        wall, processor = zip(*values, strict=True)
        numbers = (statistics.median(wall), min(wall), statistics.median(processor))
        print(f"| {name} | " + " | ".join(f"{number:.1f}" for number in numbers) + " |")


def processor_seconds() -> float:
    """Seconds on all cores of the child processes so far; other programs disturb them less than the
    clock's.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def number_types(
    onnx_file: Path, scan: Path, reference: Path, config: Config, folder: Path, rounds: int
) -> None:
    """Compare the network in three number types: size, time of a window, and Dice on the scan's own
    grid.
    """
    half, integers = folder / "float16.onnx", folder / "int8.onnx"
    onnx.save(convert_float_to_float16(onnx.load(onnx_file), keep_io_types=True), half)
    name = onnx.load(onnx_file).graph.input[0].name
    newer = folder / "opset13.onnx"  # scales for each channel need opset 13
    onnx.save(onnx.version_converter.convert_version(onnx.load(onnx_file), 13), newer)
    quantize_static(
        newer,
        integers,
        Windows(config, 4, name),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=["Conv"],
    )
    sessions = {
        path.stem: onnxruntime.InferenceSession(path) for path in (onnx_file, half, integers)
    }
    runs = {
        key: (lambda batch, s=session: s.run(None, {name: batch})[0])
        for key, session in sessions.items()
    }
    image, truth = read_scan(scan), load_volume(reference)
    window = np.ascontiguousarray(prepare(image, config).array[None, :, :96, :96, :96])
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            start = time.perf_counter()
            run(window)
            seconds[key].append(time.perf_counter() - start)
    print(f"\n| number type | MB | median of a window (s) | {' | '.join(STRUCTURES)} |")
    print("|:--|--:|--:|--:|--:|--:|")
    for key, run in runs.items():
        mask = segment(image, run, config)
        dices = " | ".join(f"{dice(mask.array == k, truth.array == k):.4f}" for k in (1, 2, 3))
        megabytes = (
            onnx_file if key == onnx_file.stem else folder / f"{key}.onnx"
        ).stat().st_size / 1e6
        print(f"| {key} | {megabytes:.1f} | {statistics.median(seconds[key]):.2f} | {dices} |")


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="repetitions of each measurement (%(default)s)"
    )
    rounds = parser.parse_args().rounds
    config, sample = Config.preset("quick"), fetch()
    with TemporaryDirectory() as name:
        folder = Path(name)
        onnx_file = export_checkpoint(
            Path(config.train.output_path) / FINAL, config, folder / "float32.onnx"
        )
        commands(onnx_file, sample.image, folder, rounds)
        number_types(onnx_file, sample.image, sample.label, config, folder, rounds)


if __name__ == "__main__":
    main()
