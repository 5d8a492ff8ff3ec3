"""Make the API page from the package: ``python tools/api.py``. A test compares it.

The modules of the top level come first, in the order of the chapters, then the rooms.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "unet3d_tutorial"
PAGE = ROOT / "book" / "api.md"

#: The chapters' modules in reading order; a module that is not named here comes after them.
READING_ORDER = (
    "labels volume sample_ct config transforms augment dataset cache model schedule losses "
    "training_step training inference sliding_window postprocessing metrics evaluation baseline "
    "viewer export doctor cli"
).split()
ROOMS = "transforms files luna16 phantom runs predict view cpu case book".split()

HEAD = """# API reference

Made from the package's own docstrings. Arrays are `(I, J, K)`, or `(C, I, J, K)` with channels;
lengths are millimetres, intensities Hounsfield units (HU).

## The front door

`import unet3d_tutorial as u3` offers these names; each is loaded when it is first used.

| name | from |
|:--|:--|
"""
ROOM = """## Room `{name}`

```{{eval-rst}}
.. automodule:: unet3d_tutorial.{name}
```
"""
MODULE = """```{{eval-rst}}
.. automodule:: {name}
   :members:
   :undoc-members:
```
"""


def front_door() -> list[str]:
    """A row for each name that the package offers, by its stub."""
    rows = []
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            rows += [
                f"| `{alias.name}` | `unet3d_tutorial.{node.module}` |" for alias in node.names
            ]
    return rows


def top_level() -> list[str]:
    """Names of the modules at the top, in reading order."""
    names = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    known = [name for name in READING_ORDER if name in names]
    return known + sorted(names - set(known))


def rooms() -> list[str]:
    """Names of the rooms."""
    names = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    known = [name for name in ROOMS if name in names]
    return known + sorted(names - set(known))


def page() -> str:
    """The whole page."""
    parts = [HEAD + "\n".join(front_door()) + "\n", "## The chapters' modules\n"]
    parts += [MODULE.format(name=f"unet3d_tutorial.{name}") for name in top_level()]
    for room in rooms():
        parts.append(ROOM.format(name=room))
        for path in sorted((PACKAGE / room).glob("*.py")):
            if path.stem != "__init__":
                parts.append(MODULE.format(name=f"unet3d_tutorial.{room}.{path.stem}"))
    return "\n".join(parts)


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
