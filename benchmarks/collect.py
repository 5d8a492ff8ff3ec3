"""Gather what the benchmarks print into ``benchmarks/results.csv``.

The page "How fast it is" is made from that file. ``python benchmarks/collect.py LOGS --run`` runs
the benchmarks that compare with a peer, one after the other, and keeps what each prints in the
folder LOGS; without ``--run`` it reads the logs that are there. A benchmark without a log keeps the
rows that it has. One that began while other programs were busy is marked ``shared``: of its seconds
only ratios mean something.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).with_name("results.csv")
COLUMNS = ("benchmark", "what", "side", "value", "unit", "machine")
QUIET_CORES = 0.3  #: cores that were busy before a benchmark began, at most, on a quiet machine
LOOK_S = 3.0  #: for how long this is looked at
Row = tuple[str, str, float, str]  # what, side, value, unit
NUMBER = r"([\d.]+)"


def peer(name: str, package: str | None = None) -> str:
    """``"MONAI 1.6.1"``: the name with the version that is installed here."""
    try:
        return f"{name} {version(package or name).partition('+')[0]}"
    except PackageNotFoundError:
        return name


def table(text: str, head: str) -> Iterator[list[str]]:
    """The rows of the Markdown table whose first cell is ``head``, as lists of cells."""
    found = re.search(
        rf"^\| {re.escape(head)} ?\|.*\n\|[-:| ]+\|\n((?:\|.*\n?)*)", text, flags=re.M
    )
    for line in found[1].splitlines() if found else ():
        yield [cell.strip() for cell in line.strip("|").split("|")]


def train_step(text: str) -> Iterator[Row]:
    torch = peer("PyTorch", "torch")
    names = {
        "MindSpore, oneDNN": "here",
        "MindSpore": "MindSpore's own kernels",
        "PyTorch": torch,
        "PyTorch, channels last": f"{torch}, channels last",
    }
    exported = {
        "ONNX Runtime": "here",
        **{side: name for side, name in names.items() if side.startswith("PyTorch")},
    }
    for what, head, sides in (
        ("training step", "training step", names),
        ("forward pass", "forward pass", names),
        ("forward pass of the exported network", "forward pass", exported),
    ):
        median = {side: float(value) for side, value, *_ in table(text, head)}
        yield from (
            (what, name, median[side], "s") for side, name in sides.items() if side in median
        )


def predict(text: str) -> Iterator[Row]:
    names = {
        "MindSpore": "MindSpore",
        "ONNX Runtime": "the same with " + peer("ONNX Runtime", "onnxruntime"),
    }
    for side, median, *_ in table(text, "unet3d predict, file to file"):
        yield "unet3d predict, file to file", names.get(side, side), float(median), "s"


def viewer(text: str) -> Iterator[Row]:
    for what, value in table(text, ""):
        if found := re.match(rf"\+?{NUMBER} (ms|s|MB)\b", value):
            yield f"viewer, {what}", "here", float(found[1]), found[2]


def sliding_window(text: str) -> Iterator[Row]:
    monai = f"{peer('MONAI', 'monai')}, {peer('PyTorch', 'torch')}"
    engines = peer("MindSpore", "mindspore"), peer("ONNX Runtime", "onnxruntime")
    measured = rf"{NUMBER} s, {NUMBER} GB"
    pattern = rf"ROI \((.+?)\): here {measured}; MindSpore {measured}; MONAI {measured}"
    for roi, *values in re.findall(pattern, text):
        onnx, mindspore, there = zip(values[::2], values[1::2], strict=True)
        for engine, ours in zip(engines, (mindspore, onnx), strict=True):
            what = f"whole CT, windows of {roi.replace(', ', ' x ')}, {engine}"
            for side, (seconds, memory) in {"here": ours, monai: there}.items():
                yield what, side, float(seconds), "s"
                yield what, side, float(memory), "GB"


def metrics(text: str) -> Iterator[Row]:
    for name, ours, theirs in re.findall(
        rf"^(hd95|assd|asd) +{NUMBER} +{NUMBER}", text, flags=re.M
    ):
        yield f"{name.upper()} of a lung, whole CT", "here", float(ours), "s"
        yield f"{name.upper()} of a lung, whole CT", peer("MedPy"), float(theirs), "s"


def onehot(text: str) -> Iterator[Row]:
    for loop, ours in re.findall(rf"loop {NUMBER} s, OneHot {NUMBER} s", text):
        yield "one-hot coding of a batch", "here", float(ours), "s"
        yield "one-hot coding of a batch", "Python loop over voxels", float(loop), "s"


def crops(text: str) -> Iterator[Row]:
    names = {"ours": "here"} | {
        name: f"{peer('MONAI', 'monai')}, {name}" for name in ("CacheDataset", "PersistentDataset")
    }
    for side, _, rate, held in re.findall(
        rf"^({'|'.join(names)}) +{NUMBER} +{NUMBER} +{NUMBER}", text, flags=re.M
    ):
        yield "training crops", names[side], float(rate), "crops/s"
        yield "training crops", names[side], float(held) / 1000, "GB"


def convert(text: str) -> Iterator[Row]:
    pattern = rf"(\d+x\d+x\d+) +{NUMBER} +{NUMBER} +{NUMBER} +{NUMBER} +{NUMBER} +{NUMBER}"
    for shape, _, ours, memory, _, theirs, _ in re.findall(pattern, text):
        what = f"converting {shape.replace('x', ' x ')}"
        yield what, "here, checked", float(ours), "s"
        yield what, "here, checked", float(memory) / 1000, "GB"
        yield what, f"{peer('SimpleITK')}, unchecked", float(theirs), "s"


READERS = {
    reader.__name__: reader
    for reader in (train_step, predict, sliding_window, metrics, onehot, crops, convert, viewer)
}


def run(name: str, log: Path) -> None:
    """Run one benchmark and keep what it prints; the first line tells how busy the machine was
    before it began.
    """
    busy = busy_cores()
    print(f"{name}, {busy:.2f} cores busy", flush=True)
    done = subprocess.run(
        [sys.executable, RESULTS.with_name(f"{name}.py")], capture_output=True, text=True
    )
    log.write_text(f"busy before: {busy:.2f} cores\n{done.stdout}", encoding="utf-8")
    if done.returncode:
        sys.exit(f"{name}: {done.stderr[-2000:]}")


def busy_cores() -> float:
    """How many cores are busy just now, as Linux counts.

    The load average would still hold the benchmark before.
    """
    before = _ticks()
    time.sleep(LOOK_S)
    return (_ticks() - before) / os.sysconf("SC_CLK_TCK") / LOOK_S


def _ticks() -> int:
    """Clock ticks that all cores together have worked: user, nice, system, then idle and waiting,
    which do not count.
    """
    user, nice, system, *_ = (
        Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    )
    return int(user) + int(nice) + int(system)


def is_shared(text: str) -> bool:
    """Whether a log says that others were busy when the benchmark began."""
    found = re.match(rf"busy before: {NUMBER}", text)
    return bool(found) and float(found[1]) > QUIET_CORES


def main() -> None:
    """Run what was asked for, and write the table anew from the logs."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("logs", type=Path, help="folder with NAME.log for each benchmark")
    parser.add_argument(
        "--run", nargs="*", choices=READERS, metavar="NAME", help="run these first, or all"
    )
    parser.add_argument(
        "--shared",
        nargs="*",
        default=[],
        choices=READERS,
        metavar="NAME",
        help="ran on a busy machine",
    )
    options = parser.parse_args()
    if options.run is not None:
        options.logs.mkdir(parents=True, exist_ok=True)
        for name in options.run or READERS:
            run(name, options.logs / f"{name}.log")
    with RESULTS.open(newline="", encoding="utf-8") as file:
        before = [tuple(row) for row in csv.reader(file)]
    rows = []
    for name, reader in READERS.items():
        log = options.logs / f"{name}.log"
        if not log.is_file():  # not measured this time
            rows += [row for row in before if row[0] == name]
            continue
        text = log.read_text(encoding="utf-8")
        machine = "shared" if name in options.shared or is_shared(text) else "quiet"
        rows += [
            (name, what, side, f"{value:g}", unit, machine)
            for what, side, value, unit in reader(text)
        ]
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    print(f"{RESULTS.name}: {len(rows)} measurements")


if __name__ == "__main__":
    main()
