"""How dense the package's code is, next to that of others: ``python tools/compass.py [FOLDER]``.

A compass, not a gate: it says where to look. Syntax nodes are statements and expressions of the
syntax tree. Code lines are neither blank nor comments nor docstrings. The numbers of the peers were
measured with this script, except those of nanoGPT, whose code is not in a package registry.
"""

import ast
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from unet3d_tutorial.files.tables import Table

ROOT = Path(__file__).parents[1]
LIMIT = 100  #: columns
PEERS = [
    ["torchio 1.2.1", "106 / 16,012", "1034", "11 / 34 / 120", "3.7", "0.6%", "1.6%"],
    ["mindcv 0.3.0", "109 / 30,160", "882", "9 / 36 / 180", "4.7", "4.0%", "1.5%"],
    ["nanoGPT", "15 / 1,220", "330", "10.5 / 25 / 55", "5.8", "3.2%", "18%"],
]
WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Module:
    """What was counted in one file."""

    path: Path
    lines: int
    code_lines: int
    long_lines: int
    comment_lines: int
    nodes: int
    functions: dict[str, int]  #: name -> lines


def measure(path: Path) -> Module:
    """Count lines, syntax nodes and functions of one file."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    nodes = list(ast.walk(ast.parse(text)))
    docstrings: set[int] = set()
    functions = {}
    for node in nodes:
        if isinstance(node, WITH_DOCSTRING) and ast.get_docstring(node) is not None:
            first = node.body[0]
            docstrings.update(range(first.lineno, first.end_lineno + 1))
        if isinstance(node, FUNCTION):
            functions[f"{path}:{node.name}"] = node.end_lineno - node.lineno + 1
    comments = {number for number, line in enumerate(lines, 1) if line.strip().startswith("#")}
    filled = {number for number, line in enumerate(lines, 1) if line.strip()}
    return Module(
        path,
        lines=len(lines),
        code_lines=len(filled - comments - docstrings),
        long_lines=sum(len(line) > LIMIT for line in lines),
        comment_lines=len(comments),
        nodes=sum(isinstance(node, ast.expr | ast.stmt) for node in nodes),
        functions=functions,
    )


def row(name: str, modules: list[Module]) -> list[str]:
    """One line of the table."""
    lines = sum(module.lines for module in modules)
    code = sum(module.code_lines for module in modules)
    lengths = sorted(n for module in modules for n in module.functions.values())
    longest_module = max(module.lines for module in modules)
    typical = statistics.median(lengths)
    ninetieth = lengths[int(0.9 * len(lengths))]
    return [
        name,
        f"{len(modules)} / {lines:,}",
        str(longest_module),
        f"{typical:g} / {ninetieth} / {lengths[-1]}",
        f"{sum(module.nodes for module in modules) / code:.1f}",
        f"{sum(module.long_lines for module in modules) / lines:.1%}",
        f"{sum(module.comment_lines for module in modules) / lines:.1%}",
    ]


HEADINGS = [
    "package",
    "modules / lines",
    "longest module",
    "function: median / 90 % / longest",
    "nodes a code line",
    f"lines over {LIMIT}",
    "comment lines",
]


def main() -> int:
    """Print the table, then the modules and functions to look at."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "unet3d_tutorial"
    modules = [measure(path) for path in sorted(folder.rglob("*.py"))]
    rows = [row(folder.name, modules), *PEERS]
    print(Table(HEADINGS, rows, align=["left", *["right"] * (len(HEADINGS) - 1)]))

    print("\nModules over 400 lines:")
    for module in sorted(modules, key=lambda module: -module.lines):
        if module.lines > 400:
            print(f"  {module.lines} {module.path.relative_to(folder)}")
    print("Functions over 40 lines:")
    functions = {name: n for module in modules for name, n in module.functions.items()}
    for name, lines in sorted(functions.items(), key=lambda item: -item[1]):
        if lines > 40:
            print(f"  {lines} {name.removeprefix(str(folder) + '/')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
