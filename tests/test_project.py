"""The project as a whole: lint, chapters and scripts in step, versions that agree, a site without warnings."""

import os
import re
import subprocess
import sys
from pathlib import Path

import check_pairs
import pytest

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
    listed = re.findall(r"file: notebooks/(\S+)", (ROOT / "_toc.yml").read_text())
    stored = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert listed == CHAPTERS == stored


def test_site(tmp_path: Path) -> None:
    """The site from the notebooks as they are stored, with warnings as errors."""
    run("bash", "tools/site.sh", "notebooks", str(tmp_path / "html"))
    pages = {path.stem for path in (tmp_path / "html" / "notebooks").glob("*.html")}
    assert pages == set(CHAPTERS)
    loaded = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=[\"'](?:https?:)?//[^\"']+")
    for page in (tmp_path / "html").rglob("*.html"):
        assert not loaded.findall(page.read_text()), f"{page.name} loads something from the network"
