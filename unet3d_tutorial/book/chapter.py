"""Functions for the first and the last cell of every chapter, and for listings of code.

The chapters are in ``notebooks/``; the data and the training run are next to that folder, in
``data/`` and ``runs/``.
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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import Markdown

#: what a chapter may need: the file that shows that it is complete, and the command to make it
NEEDS = {
    "phantom": ("data/phantom/done", ["data", "phantom", "--preset", "quick"]),
    "run": ("runs/quick/unet3d.ckpt", ["train", "--preset", "quick"]),
    "evaluation": ("runs/quick/evaluation.json", ["evaluate", "--preset", "quick"]),
}
MEASURED = "measured"  # the display that enter() opens and leave() fills
_start = 0.0


# --------------------------------------------------------------------- the first and the last cell


def enter(*needs: str) -> None:
    """Start a chapter in the project's folder, and make missing files that it needs.

    ``needs`` are keys of :data:`NEEDS`, in the order in which to make them. Shows a line that
    :func:`leave` replaces with time and memory.
    """
    global _start
    from IPython.display import Markdown, display

    os.chdir(project_folder())
    os.environ.setdefault("GLOG_v", "3")  # MindSpore then reports errors only
    for need in needs:
        _make_once(need)
    _start = time.perf_counter()
    placeholder = "*Time and memory: shown here once the last cell has run.*"
    display(Markdown(placeholder), display_id=MEASURED)


def _make_once(need: str) -> None:
    done, command = NEEDS[need]
    if Path(done).exists():
        return
    print(f"making {Path(done).parent} once: unet3d {' '.join(command)}", flush=True)
    subprocess.run([sys.executable, "-m", "unet3d_tutorial.cli", *command], check=True)


def leave() -> None:
    """End a chapter: show wall time and peak memory in the line that :func:`enter` displayed."""
    from IPython.display import Markdown, update_display

    seconds = time.perf_counter() - _start
    duration = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"
    gigabytes = peak_bytes() / 1e9
    measured = f"{duration}, {gigabytes:.1f} GB of memory at the peak, {os.cpu_count()} cores"
    line = f"*Time and memory of this chapter, measured: {measured}.*"
    update_display(Markdown(line), display_id=MEASURED)


def peak_bytes() -> int:
    """Return the peak memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux KiB


def project_folder() -> Path:
    """Return the project's folder: the working folder or the nearest one above it.

    Raises ``FileNotFoundError`` if none of them contains ``notebooks/`` and ``pyproject.toml``,
    because the chapters run inside a copy of the project.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    raise FileNotFoundError(f"no project with notebooks/ and pyproject.toml at or above {here}")


# ---------------------------------------------------------------------------------------- listings


def source(*objects: Any) -> "Markdown":
    """Return the source code of functions, classes or methods as a highlighted listing.

    Chapters show the code that they explain with this function, so that text and package always
    agree.
    """
    from IPython.display import Markdown

    listings = [textwrap.dedent(inspect.getsource(item)).rstrip() for item in objects]
    return Markdown("\n".join(f"```python\n{listing}\n```" for listing in listings))


# ----------------------------------------------------------------------------- another environment


def fresh_environment(folder: str | Path, packages: Sequence[str]) -> Path:
    """Make a virtual environment in ``folder``; return the path of its Python.

    It contains only this package, ``packages`` and what those require. All are links to the
    packages installed here, so nothing is downloaded.
    """
    venv.create(folder, symlinks=True)
    site = next(Path(folder).glob("lib/python*/site-packages"))
    package = Path(__file__).parents[1]
    (site / package.name).symlink_to(package)
    for name in _with_requirements(packages):
        _link_installed(metadata.distribution(name), site)
    return Path(folder).absolute() / "bin" / "python"


def _link_installed(distribution: metadata.Distribution, site: Path) -> None:
    """Link the folders and files of an installed package into another ``site-packages``."""
    files = distribution.files or []
    tops = {path.parts[0] for path in files} - {"..", "__pycache__"}
    for top in tops:
        (site / top).symlink_to(str(distribution.locate_file(top)))


def _with_requirements(packages: Sequence[str]) -> set[str]:
    """The names of ``packages`` and of all that they require, without extras."""
    names: set[str] = set()
    unseen = list(packages)
    while unseen:
        name = metadata.distribution(unseen.pop()).name.lower()
        if name not in names:
            names.add(name)
            unseen += _requirements(name)
    return names


def _requirements(name: str) -> list[str]:
    """The names of packages that an installed package requires here, without extras."""
    from packaging.requirements import Requirement

    requirements = [Requirement(line) for line in metadata.requires(name) or []]
    return [
        requirement.name
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
