"""Write the table of book/run_times.md: what each chapter, as it is stored, measured of itself.

``make store`` calls it.
"""

import csv
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from results import replace_between

from notebooks import all_notebooks, output_text, read

PAGE, HISTORY = Path("book/run_times.md"), Path("runs/quick/history.csv")
MARK = "run times"
#: what unet3d_tutorial.book.chapter.leave() leaves in a chapter's first output
MEASURED = re.compile(
    r"measured: ([\d.]+) (s|minutes), ([\d.]+) GB of memory at the peak, (\d+) cores"
)


@dataclass(frozen=True)
class RunTime:
    """What one stored chapter says of itself."""

    name: str  # of the notebook, without its ending
    title: str
    seconds: float
    peak_gb: float
    cores: int


def run_time(path: Path) -> RunTime:
    """The measured line of a stored notebook. Raises ``ValueError`` if it has none."""
    notebook = read(path)
    outputs = next(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    found = MEASURED.search("\n".join(map(output_text, outputs)))
    if not found:
        raise ValueError(
            f"{path}: expected a line like 'measured: 12 s, 0.9 GB of memory at the peak, 2 cores' "
            "in the first code cell's output; tools/execute.py makes it"
        )
    title = notebook.cells[0].source.partition("\n")[0].removeprefix("# ")
    seconds = float(found[1]) * (60 if found[2] == "minutes" else 1)
    return RunTime(path.stem, title, seconds, float(found[3]), int(found[4]))


def table(times: list[RunTime]) -> str:
    """One row a chapter, and their sum."""
    lines = ["| chapter | time | memory at the peak |", "|:--|--:|--:|"]
    for each in times:
        link = f"[{each.title}](../notebooks/{each.name}.ipynb)"
        lines.append(f"| {link} | {_spoken(each.seconds)} | {each.peak_gb:.1f} GB |")
    total, peak = sum(each.seconds for each in times), max(each.peak_gb for each in times)
    lines.append(f"| **all {len(times)} chapters** | **{_spoken(total)}** | **{peak:.1f} GB** |")
    cores = sorted({each.cores for each in times})
    return "\n".join(lines) + f"\n\nMeasured on {' and '.join(map(str, cores))} processor cores."


def training_seconds(history: Path) -> float:
    """How long the steps of the training run took, its looks at held-out scans included."""
    with history.open(newline="", encoding="utf-8") as file:
        return float([*csv.DictReader(file)][-1]["seconds"])


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"


def main() -> int:
    """Write the table, and the time of the training run if there is one."""
    text = table([run_time(path) for path in all_notebooks()])
    if HISTORY.is_file():
        text += f" The training run took {_spoken(training_seconds(HISTORY))} more."
    replace_between(PAGE, f"\n{text}\n", MARK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
