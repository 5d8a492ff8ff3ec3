"""Try every exercise from both sides: ``python tools/exercises.py --to FOLDER [NOTEBOOK ...]``.

An exercise is a heading ``### Exercise N: title``, a starter cell with ``...`` in it, a cell that
checks the answer, and a folded solution that replaces the starter. The check must print a text that
begins with "Right" for the solution, and another text for the untouched starter. The second is read
off the stored outputs. For the first, FOLDER gets a copy of each notebook with one more cell after
each check; it runs the solution and the check where the chapter stands, and leaves no name behind.
nbval then runs the copies in place of the notebooks, which costs no second run.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from try_solution import RIGHT

from notebooks import all_notebooks, output_text, read

HEADING = re.compile(r"^### Exercise (\d+): (\S.*)$", flags=re.M)
FOLD = re.compile(
    r"\A<details>\n<summary>Solution of exercise (\d+)</summary>\n\n(.*?)\n</details>", flags=re.S
)
CODE = re.compile(r"^```python\n(.*?)^```$", flags=re.M | re.S)
#: what the copies run after a check; the chapters make the project's folder the working folder
TRIAL = """\
import runpy
runpy.run_path("tools/try_solution.py")["try_solution"]({number}, {solution!r}, {check!r})"""


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook: where its cells are, and the code of its solution."""

    number: int
    title: str
    starter: int
    check: int
    solution: str


def exercises(notebook: NotebookNode) -> list[Exercise]:
    """The exercises of a notebook, in order.

    Raises ``ValueError`` where one is not of the form that is described above.
    """
    found = []
    for index, cell in enumerate(notebook.cells):
        headings = HEADING.findall(cell.source) if cell.cell_type == "markdown" else []
        if len(headings) > 1:
            together = [int(number) for number, _ in headings]
            raise ValueError(
                f"cell {index}: exercises {together} stand in one cell; "
                "expected a starter cell and a check cell after each"
            )
        if headings:
            found.append(_exercise(notebook, index, int(headings[0][0]), headings[0][1]))
    numbers = [exercise.number for exercise in found]
    if numbers != list(range(1, len(found) + 1)):
        raise ValueError(
            f"the exercises have the numbers {numbers}, expected {list(range(1, len(found) + 1))}"
        )
    return found


def _exercise(notebook: NotebookNode, index: int, number: int, title: str) -> Exercise:
    """The exercise whose heading stands in cell ``index``."""
    name = f"exercise {number} ({title})"
    cells = notebook.cells[index + 1 : index + 4]
    kinds = [cell.cell_type for cell in cells]
    if kinds != ["code", "code", "markdown"]:
        raise ValueError(
            f"{name}: expected starter, check and solution in the cells after its text, "
            f"found {kinds}"
        )
    if "..." not in cells[0].source:
        raise ValueError(f"{name}: the starter cell has no ... to replace")
    fold = FOLD.match(cells[2].source)
    if not fold or int(fold[1]) != number:
        raise ValueError(
            f"{name}: the cell after the check must begin with <details> and "
            f"<summary>Solution of exercise {number}</summary>, and close it; "
            f"found {cells[2].source[:80]!r}"
        )
    blocks = CODE.findall(fold[2])
    if len(blocks) != 1:
        raise ValueError(
            f"{name}: expected one ```python block in the solution, found {len(blocks)}"
        )
    return Exercise(number, title, index + 1, index + 2, blocks[0])


def untouched_defects(notebook: NotebookNode) -> Iterator[str]:
    """What is wrong with the checks of the untouched starters, by their stored outputs."""
    for exercise in exercises(notebook):
        outputs = notebook.cells[exercise.check].outputs
        text = "\n".join(map(output_text, outputs)).strip()
        name = f"exercise {exercise.number}"
        if any(output.output_type == "error" for output in outputs):
            yield f"{name}: the check of the untouched starter ends in an error"
        elif not text:
            yield f"{name}: the check says nothing to the untouched starter, expected a hint"
        elif text.startswith(RIGHT):
            yield f"{name}: the check calls the untouched starter right: {text!r}"


def with_trials(notebook: NotebookNode) -> NotebookNode:
    """The notebook, changed in place: after each check a cell that tries the solution."""
    for exercise in reversed(exercises(notebook)):
        check = notebook.cells[exercise.check].source
        code = TRIAL.format(number=exercise.number, solution=exercise.solution, check=check)
        notebook.cells.insert(
            exercise.check + 1, new_code_cell(code, id=f"trial-{exercise.number}")
        )
    return notebook


def main() -> int:
    """Make the copies afresh.

    A chapter whose exercises have not the form is copied as it is; ``structure.py`` tells.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument(
        "--to", required=True, type=Path, help="folder for the copies; the notebooks in it go"
    )
    args = parser.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    for stale in args.to.glob("*.ipynb"):
        stale.unlink()
    for path in args.notebooks or all_notebooks():
        notebook = read(path)
        try:
            with_trials(notebook)
        except ValueError as error:
            print(f"{path}: {error}", file=sys.stderr)
        nbformat.write(notebook, args.to / path.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
