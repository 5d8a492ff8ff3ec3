"""What several files of tests need: the site, built once, and the locale as it was."""

import locale
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def same_locale() -> Iterator[None]:
    """A test that writes DICOM with ITK would leave the locale ``C`` to all that follow."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, from the notebooks as they are stored, with warnings as errors."""
    folder = tmp_path_factory.mktemp("site") / "html"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "tools/site.sh", "notebooks", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.fail(f"the site could not be built\n{done.stdout}\n{done.stderr}", pytrace=False)
    return folder
