"""Put the results of the run into README.md and book/intro.md: a table, the costs and one figure. ``make store`` calls it.

The table stands between ``<!-- results -->`` and ``<!-- /results -->``; everything between is replaced.
"""

import os
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from unet3d_tutorial.config import Config
from unet3d_tutorial.evaluation import StructureScore
from unet3d_tutorial.inference import segment
from unet3d_tutorial.pipeline import REAL, load_evaluation, trained_predictor
from unet3d_tutorial.plotting import show_planes
from unet3d_tutorial.sample_ct import fetch
from unet3d_tutorial.training import load_result
from unet3d_tutorial.volume import load_volume

FIGURE = Path("book/_static/results.png")


def table(methods: dict[str, list[StructureScore]]) -> str:
    """One row a method: Dice and HD95 of each structure."""
    names = [row.structure for row in next(iter(methods.values()))]
    head = " | ".join(f"{name}, Dice | HD95 (mm)" for name in names)
    lines = [f"| | {head} |", "|:--" + "|--:" * (2 * len(names)) + "|"]
    for method, rows in methods.items():
        lines.append(f"| {method} | " + " | ".join(f"{row.dice:.3f} | {row.hd95_mm:.1f}" for row in rows) + " |")
    return "\n".join(lines)


def replace_between(path: Path, text: str, mark: str = "results") -> None:
    """Replace what stands between ``<!-- mark -->`` and ``<!-- /mark -->``, whole file or not at all."""
    old, marks = path.read_text(encoding="utf-8"), (f"<!-- {mark} -->", f"<!-- /{mark} -->")
    pattern = ".*?".join(f"({re.escape(each)})" for each in marks)
    new, count = re.subn(pattern, lambda found: f"{found[1]}\n{text}\n{found[2]}", old, flags=re.S)
    if count != 1:
        raise ValueError(f"{path}: expected the marks {' and '.join(marks)} once")
    part = path.with_name(path.name + ".part")
    part.write_text(new, encoding="utf-8")
    part.replace(path)


def main() -> None:
    """Write the table and the figure of the finished run."""
    config = Config.preset("quick")
    methods = load_evaluation(config.train.output_path).get(REAL)
    if methods is None:
        sys.exit("the run was evaluated without the real CT; run unet3d data sample, then make store")
    minutes = load_result(config.train.output_path).history["seconds"][-1] / 60
    text = (f"\n{table(methods)}\n\nOne real CT, never trained on, scored on its own grid. "
            f"Training took {minutes:.1f} minutes on {os.cpu_count()} cores.\n")
    for path in (Path("README.md"), Path("book/intro.md")):
        replace_between(path, text)
    sample = fetch()
    image = load_volume(sample.image)
    figure = show_planes(image, load_volume(sample.label), segment(image, trained_predictor(config), config))
    part = FIGURE.with_suffix(".part.png")
    figure.savefig(part, dpi=80)
    part.replace(FIGURE)
    plt.close(figure)


if __name__ == "__main__":
    main()
