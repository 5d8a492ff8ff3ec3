"""Hold chapters to the form that the book promises: ``python tools/structure.py [NOTEBOOK ...]``.

Promise, "You will learn", "You need", measured time, a failure on purpose, two or three exercises,
a quiz, "What to remember", "References", "Next"; headings in order; a caption with its number below
each figure; short cells whose lines and printed output fit the page.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from exercises import exercises, untouched_defects
from nbformat import NotebookNode
from prose import Block, blocks

from notebooks import VIEWER, all_notebooks, markdown, read

#: the last sections of a chapter, in this order
LAST = ["Exercises", "Quiz", "What to remember", "References", "Next"]
FIRST = ("**You will learn**", "**You need**")
EXERCISES, QUESTIONS = (2, 3), (3, 5)
CELL_LINES, COLUMNS = 15, 88
FEWEST_WORDS = 8  # of an answer: which one it is, and why
#: bold from end to end, over one line or several; it may stress a word
QUESTION = re.compile(r"^\*\*(\d+)\. (?:[^*\n]|\*(?!\*)|\n(?!\n))+(?<=[?.])\*\*\s*$", flags=re.M)
ANSWER = re.compile(
    r"^<details>\n<summary>Answer (\d+)</summary>\n\n(.*?)\n\n</details>$", flags=re.M | re.S
)
CAPTION = re.compile(r"\A\*Figure (\d+)\. [^*]+\*")


def main(names: list[str]) -> int:
    """Print what is wrong with the named notebooks, or with all. 0 if nothing is."""
    count = 0
    for path in [Path(name) for name in names] or all_notebooks():
        for defect in defects(read(path)):
            print(f"{path}: {defect}")
            count += 1
    print(f"defects of structure: {count}")
    return 1 if count else 0


def defects(notebook: NotebookNode) -> Iterator[str]:
    """All that a chapter lacks, in words."""
    texts = markdown(notebook)
    found = list(blocks(texts))
    yield from level_defects(found)
    yield from _section_defects([block for block in found if block.kind.startswith("h")])
    yield from _opening_defects(texts[0], found)
    yield from _frame_defects(notebook)
    yield from code_defects(notebook)
    yield from _exercise_defects(notebook)
    yield from _quiz_defects("\n\n".join(texts))
    yield from _figure_defects(notebook)


def code_defects(notebook: NotebookNode) -> Iterator[str]:
    """Cells that are too long to be read at once, and lines that a page would cut."""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        lines = cell.source.splitlines()
        if len(lines) > CELL_LINES:
            yield f"cell {number}: expected at most {CELL_LINES} lines of code, found {len(lines)}"
        printed = [
            line
            for output in cell.outputs
            if output.output_type == "stream"
            for line in output.text.splitlines()
        ]
        for line in [*lines, *printed]:
            if len(line) > COLUMNS:
                too_long = f"a line of {len(line)} characters, the page has {COLUMNS}"
                yield f"cell {number}: {too_long}: {line}"


def level_defects(found: list[Block]) -> Iterator[str]:
    """Whether a chapter or page has one title, at its top, and skips no level of headings below."""
    headings = [block for block in found if block.kind.startswith("h")]
    levels = [int(heading.kind[1]) for heading in headings]
    if levels[:1] != [1] or levels.count(1) != 1:
        yield f"expected one heading of level 1, the first; the levels are {levels}"
    for heading, before, level in zip(headings[1:], levels, levels[1:], strict=False):
        if level > before + 1:
            yield f"heading {heading.text!r} has level {level} after level {before}"


def _section_defects(headings: list[Block]) -> Iterator[str]:
    names = [heading.text for heading in headings if heading.kind == "h2"]
    if names[-len(LAST) :] != LAST:
        yield f"the last sections are {names[-len(LAST) :]}, expected {LAST}"
    if not any("failure" in heading.text.lower() for heading in headings):
        yield "no section on a failure on purpose: its heading has the word failure"


def _opening_defects(text: str, found: list[Block]) -> Iterator[str]:
    """Title, promise, what one learns and what one needs: all in the first cell."""
    if len(found) < 2 or found[1].kind != "p" or text.split("\n\n")[1].startswith("**"):
        yield "no promise: expected a paragraph after the title"
    places = [text.find(name) for name in FIRST]
    if -1 in places or places != sorted(places):
        yield f"expected {FIRST[0]} and then {FIRST[1]} in the first cell"
    elif not re.search(r"\*\*You will learn\*\*\s+- \S", text):
        yield "expected a list of items after You will learn"


def _frame_defects(notebook: NotebookNode) -> Iterator[str]:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if "chapter.enter(" not in code[0].source or "chapter.leave(" not in code[-1].source:
        yield "expected chapter.enter() in the first code cell and chapter.leave() in the last"
    if "measured:" not in str(code[0].outputs):
        yield "the first code cell shows no measured time"


def _exercise_defects(notebook: NotebookNode) -> Iterator[str]:
    try:
        count = len(exercises(notebook))
    except ValueError as error:
        yield str(error)
        return
    if not EXERCISES[0] <= count <= EXERCISES[1]:
        yield f"{count} exercises, expected {EXERCISES[0]} or {EXERCISES[1]}"
    yield from untouched_defects(notebook)


def _quiz_defects(text: str) -> Iterator[str]:
    """Numbered bold questions, each followed by its folded answer."""
    quiz = re.search(r"^## Quiz$(.*?)(?=^## |\Z)", text, flags=re.M | re.S)
    if not quiz:
        return  # the order of the last sections says so already
    asked = [(found.start(), "question", found[1]) for found in QUESTION.finditer(quiz[1])]
    answered = [(found.start(), "answer", found[1]) for found in ANSWER.finditer(quiz[1])]
    order = [f"{kind} {number}" for _, kind, number in sorted(asked + answered)]
    expected = [
        f"{kind} {number}" for number in range(1, len(asked) + 1) for kind in ("question", "answer")
    ]
    if order != expected or quiz[1].count("<details>") != len(answered):
        yield (
            f"the quiz has {', '.join(order) or 'nothing'}; expected **1. ...?** on a line, then "
            "<details>, <summary>Answer 1</summary>, an empty line, the text, an empty line, "
            "</details>, and so on"
        )
    elif not QUESTIONS[0] <= len(asked) <= QUESTIONS[1]:
        yield f"{len(asked)} questions in the quiz, expected {QUESTIONS[0]} to {QUESTIONS[1]}"
    for found in ANSWER.finditer(quiz[1]):
        if len(found[2].split()) < FEWEST_WORDS:
            yield f"answer {found[1]} of the quiz does not say why: {found[2]!r}"


def _figure_defects(notebook: NotebookNode) -> Iterator[str]:
    """Each cell with a picture or a slice viewer is followed by a caption, and the captions are
    numbered.
    """
    number = 0
    for index, cell in enumerate(notebook.cells):
        if not _shows_figure(cell):
            continue
        number += 1
        below = notebook.cells[index + 1].source if index + 1 < len(notebook.cells) else ""
        caption = CAPTION.match(below)
        if not caption or int(caption[1]) != number:
            yield (
                f"cell {index} shows a figure; the next must begin with *Figure {number}. ...*, "
                f"it begins {below[:40]!r}"
            )
            number = int(caption[1]) if caption else number - 1


def _shows_figure(cell: NotebookNode) -> bool:
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if any(kind.startswith("image/") for kind in data) or data.get("text/html", "").startswith(
            VIEWER
        ):
            return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
