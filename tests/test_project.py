"""The project as a whole: lint, chapters and scripts in step, versions that agree, a site without warnings."""

import os
import re
import subprocess
import sys
from pathlib import Path

import check_pairs
import pytest

from unet3d_tutorial.pipeline import REAL, load_evaluation

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.py"))


def run(*command: str) -> None:
    """Run a command in the project's folder; on failure show all that it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}", pytrace=False)


def test_lint() -> None:
    run(sys.executable, "-m", "ruff", "check", ".")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_pair(chapter: str) -> None:
    found = list(check_pairs.defects(ROOT / "notebooks" / f"{chapter}.py"))
    assert not found, "\n".join(found)


def test_every_chapter_is_in_the_contents() -> None:
    listed = re.findall(r"file: notebooks/(\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    stored = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert listed == CHAPTERS == stored


def test_site(tmp_path: Path) -> None:
    """The site from the notebooks as they are stored, with warnings as errors."""
    run("bash", "tools/site.sh", "notebooks", str(tmp_path / "html"))
    pages = {path.stem for path in (tmp_path / "html" / "notebooks").glob("*.html")}
    assert pages == set(CHAPTERS)
    loaded = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=[\"'](?:https?:)?//[^\"']+")
    for page in (tmp_path / "html").rglob("*.html"):
        assert not loaded.findall(page.read_text(encoding="utf-8")), f"{page.name} loads something from the network"


def test_results_in_the_readme_are_those_of_the_run() -> None:
    """The table was written by the run that the authors stored; a run elsewhere may differ a little, not a lot."""
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
            assert dices == pytest.approx([row.dice for row in rows], abs=0.03), f"{path.name}, {method}"
