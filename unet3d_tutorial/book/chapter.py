"""What every chapter's first and last cell call: find the project's files, measure time and memory,
show source.

The chapters sit in ``notebooks/``; the data and the training run sit beside it, in ``data/`` and
``runs/``.
"""

import inspect
import os
import resource
import subprocess
import sys
import textwrap
import time
import venv
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

#: what a chapter may need: the file that says that it is complete, and the commands that make it
NEEDS = {
    "phantom": ("data/phantom/done", ["data", "phantom", "--preset", "quick"]),
    "run": ("runs/quick/unet3d.ckpt", ["train", "--preset", "quick"]),
    "evaluation": ("runs/quick/evaluation.json", ["evaluate", "--preset", "quick"]),
}
_start = 0.0


def enter(*needs: str) -> None:
    """Start a chapter: make the project's folder the working folder, and make what is needed and
    not there yet.

    ``needs`` are keys of :data:`NEEDS`, in order. Shows a line that :func:`leave` fills with time
    and memory.
    """
    global _start
    from IPython.display import Markdown, display

    os.chdir(project_folder())
    os.environ.setdefault("GLOG_v", "3")  # MindSpore then reports errors only
    for need in needs:
        done, command = NEEDS[need]
        if not Path(done).exists():
            print(f"making {Path(done).parent} once: unet3d {' '.join(command)}", flush=True)
            subprocess.run([sys.executable, "-m", "unet3d_tutorial.cli", *command], check=True)
    _start = time.perf_counter()
    display(
        Markdown("*Time and memory: shown here once the last cell has run.*"), display_id="measured"
    )


def leave() -> None:
    """End a chapter: put the wall time since :func:`enter` and the peak memory of this process
    where it began.
    """
    from IPython.display import Markdown, update_display

    seconds = time.perf_counter() - _start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    text = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"
    measured = f"{text}, {peak / 1e9:.1f} GB of memory at the peak, {os.cpu_count()} cores"
    update_display(
        Markdown(f"*Time and memory of this chapter, measured: {measured}.*"), display_id="measured"
    )


def project_folder() -> Path:
    """The nearest folder, from the working folder upwards, that holds ``notebooks/`` and
    ``pyproject.toml``.

    Raises ``FileNotFoundError`` where there is none: the chapters run inside a copy of the project.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    raise FileNotFoundError(f"no project with notebooks/ and pyproject.toml at or above {here}")


def source(*objects: Any) -> Any:
    """The package's own source of functions, classes or methods, as a highlighted listing.

    A chapter that explains code shows it with this, so that text and package cannot drift apart.
    """
    from IPython.display import Markdown

    listings = [textwrap.dedent(inspect.getsource(item)).rstrip() for item in objects]
    return Markdown("\n".join(f"```python\n{listing}\n```" for listing in listings))


def fresh_environment(folder: str | Path, packages: Sequence[str]) -> Path:
    """Make a virtual environment in ``folder`` with this package, ``packages``, and what those
    need; give its Python.

    The packages are links to the ones installed here, so nothing is downloaded. What is not listed
    is not there.
    """
    venv.create(folder, symlinks=True)
    site = next(Path(folder).glob("lib/python*/site-packages"))
    package = Path(__file__).parents[1]
    (site / package.name).symlink_to(package)
    for name in _with_requirements(packages):
        installed = metadata.distribution(name)
        for top in {
            path.parts[0] for path in installed.files if path.parts[0] not in ("..", "__pycache__")
        }:
            (site / top).symlink_to(installed.locate_file(top))
    return Path(folder).absolute() / "bin" / "python"


def _with_requirements(packages: Sequence[str]) -> set[str]:
    """The names of ``packages`` and of all that they require without extras, as installed here."""
    from packaging.requirements import Requirement

    found, unseen = set(), list(packages)
    while unseen:
        name = metadata.distribution(unseen.pop()).name.lower()
        if name not in found:
            found.add(name)
            requirements = map(Requirement, metadata.requires(name) or [])
            unseen += [
                each.name
                for each in requirements
                if each.marker is None or each.marker.evaluate({"extra": ""})
            ]
    return found
