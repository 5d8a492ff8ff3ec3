"""Time and memory of converting large scans: ``python benchmarks/convert.py``.

Writes scans in LUNA16's layout to a temporary folder, the last as large as LUNA16's largest are,
converts each in a process of its own and prints how much memory that took, in sizes of the scan as
int16. SimpleITK reading and writing the same image, without any check, stands beside it. Time
depends on the disk; the ratio of memory does not.
"""

import argparse
import resource
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from unet3d_tutorial.luna16.conversion import convert
from unet3d_tutorial.luna16.layout import MASK_FOLDER

SHAPES = [(512, 512, 133), (512, 512, 300), (512, 512, 764)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--slices", type=int, nargs="+", default=[shape[2] for shape in SHAPES])
    print(
        f"{'scan':>14}{'int16, MB':>11}{'ours, s':>9}{'memory, MB':>12}{'in scans':>10}"
        f"{'ITK, s':>8}{'in scans':>10}"
    )
    for slices in parser.parse_args().slices:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "luna"
            write(source, (512, 512, slices))
            size = 512 * 512 * slices * 2
            seconds, memory = measured(convert_one, source, Path(folder) / "out")
            itk_seconds, itk_memory = measured(itk_one, source, Path(folder) / "itk")
            print(
                f"{f'512x512x{slices}':>14}{size / 1e6:>11.0f}{seconds:>9.1f}"
                f"{memory / 1e6:>12.0f}{memory / size:>10.2f}"
                f"{itk_seconds:>8.1f}{itk_memory / size:>10.2f}",
                flush=True,
            )


def write(source: Path, shape: tuple[int, int, int]) -> None:
    """A chest of noise, as hard to pack as a real one: slice by slice, so that writing needs little
    memory.
    """
    rng = np.random.default_rng(0)
    for folder, kind, suffix in (
        ("subset0", "MET_SHORT", ".raw"),
        (MASK_FOLDER, "MET_UCHAR", ".raw"),
    ):
        (source / folder).mkdir(parents=True)
        header = {
            "ObjectType": "Image",
            "NDims": 3,
            "BinaryData": "True",
            "BinaryDataByteOrderMSB": "False",
            "CompressedData": "False",
            "TransformMatrix": "1 0 0 0 1 0 0 0 1",
            "Offset": "-180 -180 -300",
            "CenterOfRotation": "0 0 0",
            "AnatomicalOrientation": "RAI",
            "ElementSpacing": "0.7 0.7 0.6",
            "DimSize": " ".join(map(str, shape)),
            "ElementType": kind,
            "ElementDataFile": f"1.2.3{suffix}",
        }
        text = "".join(f"{key} = {value}\n" for key, value in header.items())
        (source / folder / "1.2.3.mhd").write_text(text, encoding="utf-8")
        with (source / folder / f"1.2.3{suffix}").open("wb") as file:
            for _ in range(shape[2]):
                label = np.zeros(shape[1::-1], np.uint8)  # rows run along the second index
                label[150:350, 280:430], label[150:350, 80:230], label[180:200, 246:266] = 3, 4, 5
                hu = np.where(label == 5, -990, np.where(label > 0, -850, 40)) + rng.normal(
                    0, 20, label.shape
                )
                file.write((hu.astype(np.int16) if kind == "MET_SHORT" else label).tobytes())


def measured(work, source: Path, destination: Path) -> tuple[float, float]:
    """Seconds, and bytes of memory at the most beyond those of the bare process, in a fresh
    process.
    """
    queue = get_context("spawn").SimpleQueue()
    process = get_context("spawn").Process(target=_run, args=(queue, work, source, destination))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{work.__name__} failed")
    return queue.get()


def _run(queue, work, source: Path, destination: Path) -> None:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    work(source, destination)
    queue.put(
        (
            time.perf_counter() - start,
            (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024,
        )
    )


def convert_one(source: Path, destination: Path) -> None:
    """Image and mask, checked, by this package."""
    convert(source, destination, num_validation=0, processes=1)


def itk_one(source: Path, destination: Path) -> None:
    """The same two files by SimpleITK, unchecked."""
    destination.mkdir()
    for folder, name in (("subset0", "image"), (MASK_FOLDER, "seg")):
        sitk.WriteImage(
            sitk.ReadImage(source / folder / "1.2.3.mhd"), destination / f"{name}.nii.gz"
        )


if __name__ == "__main__":
    main()
