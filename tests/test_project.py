"""The project as a whole: lint, chapters and scripts in step, results that agree."""

import re
import subprocess
import sys
from pathlib import Path

import check_pairs
import pytest

from unet3d_tutorial.predict.evaluate import REAL, load_evaluation

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.py"))


#: what looks at the code without running it: style, form, types, architecture
CHECKS = {
    "lint": [sys.executable, "-m", "ruff", "check", "."],
    "format": [sys.executable, "-m", "ruff", "format", "--check", "."],
    "types": [sys.executable, "-m", "mypy"],
    "imports": [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_code(name: str) -> None:
    done = subprocess.run(CHECKS[name], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_pair(chapter: str) -> None:
    found = list(check_pairs.defects(ROOT / "notebooks" / f"{chapter}.py"))
    assert not found, "\n".join(found)


def test_every_chapter_is_in_the_contents() -> None:
    listed = re.findall(r"file: notebooks/(\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    stored = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert listed == CHAPTERS == stored


def test_results_in_the_readme_are_those_of_the_run() -> None:
    """The table was written by the run that the authors stored; a run elsewhere may differ a
    little, not a lot.
    """
    stored = ROOT / "runs" / "quick" / "evaluation.json"
    if not stored.exists():
        pytest.skip("no evaluated run")
    methods = load_evaluation(stored.parent).get(REAL)
    if methods is None:
        pytest.skip("the run was evaluated without the real CT")
    for path in (ROOT / "README.md", ROOT / "book" / "intro.md"):
        text = path.read_text(encoding="utf-8")
        for method, rows in methods.items():
            line = re.search(rf"^\| {re.escape(method)} \| (.*) \|$", text, flags=re.M)
            assert line, f"{path.name} has no row for {method!r}"
            dices = [float(cell) for cell in line[1].split(" | ")[::2]]
            assert dices == pytest.approx([row.dice for row in rows], abs=0.03), (
                f"{path.name}, {method}"
            )
