"""Find numbers in a chapter's prose that nothing shows.

``python tools/bare_numbers.py [NOTEBOOK ...]``

A number with a decimal point, a percent sign, a unit or four digits must also stand in a code cell
or an output of the same chapter, or of a chapter that its sentence links to; with a unit, in a cell
where the unit occurs, too. Outputs that change from run to run show nothing. A sentence that names
its source may state what the source says. Questions of exercises and quizzes may suppose, and their
folded answers may use what was supposed. What is left and yet right stands in
``allowed_numbers.txt`` with its reason.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from exercises import CODE
from nbformat import NotebookNode
from prose import Block, blocks, sentences

from notebooks import all_notebooks, cell_text, markdown, read

ALLOWED = Path(__file__).with_name("allowed_numbers.txt")
#: how a unit is written in prose, and how one recognises it in a cell
UNITS = {
    "%": r"%|per ?cent|share",
    "times": r"times|ratio|\bx\b",
    "Dice": r"dice",
    "µs": r"[µu]s\b",
    "ms": r"ms\b|millisecond",
    "s": r"(?<![a-z'])s\b|seconds?|time",
    "minutes": r"minute|\bmin\b",
    "hours": r"hour",
    "bytes": r"byte",
    "kB": r"[kK]i?B\b",
    "MB": r"Mi?B\b|mega",
    "GB": r"Gi?B\b|giga",
    "mm": r"mm\b|millimetre",
    "cm": r"cm\b",
    "ml": r"ml\b|millilitre",
    "HU": r"hu(?![a-z])|hounsfield|window|min_val",
}
#: units whose sign in a cell must be written as it stands here; of the others capitals and small
#: letters are the same
EXACT = ("s", "ms", "µs", "kB", "MB", "GB")
WORDS = {
    "seconds": "s",
    "second": "s",
    "milliseconds": "ms",
    "minute": "minutes",
    "hour": "hours",
    "percent": "%",
    "per cent": "%",
    "millimetres": "mm",
    "millimetre": "mm",
    "millilitres": "ml",
    "megabytes": "MB",
    "gigabytes": "GB",
}
MINUS = "\N{MINUS SIGN}"
SPACE = " \N{NO-BREAK SPACE}"
NUMBER = rf"[-{MINUS}]?\d+(?:,\d{{3}})*(?:\.\d+)?(?:[eE][-+]?\d+)?"
UNIT = "|".join(sorted(map(re.escape, [*UNITS, *WORDS]), key=len, reverse=True))
#: a number, perhaps the first of "1 to 2 mm" or "1, 2 and 3 mm", and the unit that follows
IN_PROSE = re.compile(
    rf"(?<![\w.,/])(?P<number>{NUMBER})(?![\w/]|\.\d)"
    rf"(?=(?:(?: to| and| or| x| by) {NUMBER})*[{SPACE}]?(?P<unit>{UNIT})(?!\w))?"
)
IN_CELL = re.compile(rf"(?<![A-Za-z\d.]){NUMBER}")
COUNTED = "figure|chapter|exercise|pitfall|table|section|equation"
ORDINAL = re.compile(rf"\b(?:{COUNTED})s?\s+[\d.]*\d(?:(?:,| and| to)\s+[\d.]*\d)*", flags=re.I)
VERSION = re.compile(
    r"\b(?:[Vv]ersion|Python|NumPy|MindSpore|PyTorch|YAML|WebGL|Jupyter Book|CC BY)\s+\d+(?:\.\d+)*"
)
YEAR = re.compile("(?:19|20)[0-9]{2}")
SOURCE = re.compile(r"https?:|^cite")


@dataclass(frozen=True)
class Hit:
    """A number of the prose that no cell shows."""

    number: str
    unit: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.number} {self.unit}".strip() + f" is in no cell: {self.sentence}"


def main(names: list[str]) -> int:
    """Print the bare numbers of the named notebooks, or of all. 0 if there are none."""
    count = 0
    for path in [Path(name) for name in names] or all_notebooks():
        for hit in bare(path):
            print(f"{path}: {hit}")
            count += 1
    print(f"bare numbers: {count}")
    return 1 if count else 0


def bare(path: Path) -> Iterator[Hit]:
    """The bare numbers of one stored notebook that are not allowed."""
    allowed = [fragment for chapter, fragment, _ in allowances() if chapter in ("*", path.stem)]
    for hit in unshown(path):
        if not any(hit.number in fragment and fragment in hit.sentence for fragment in allowed):
            yield hit


def allowances() -> list[tuple[str, str, str]]:
    """The entries of ``allowed_numbers.txt``: chapter or ``*``, words around the number, reason.

    Raises ``ValueError`` for a line that has not these three.
    """
    entries = []
    for line in ALLOWED.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            entry = tuple(part.strip() for part in line.split("|"))
            if len(entry) != 3 or not all(entry):
                raise ValueError(
                    f"{ALLOWED}: expected 'chapter | words with the number | reason', "
                    f"found {line!r}"
                )
            entries.append(entry)
    return entries


def unshown(path: Path) -> Iterator[Hit]:
    """The bare numbers of one stored notebook, allowed or not."""
    notebook = read(path)
    shown = _Shown(notebook)
    question: set[Decimal] = set()
    for block in blocks(markdown(notebook)):
        if _begins_question(block):
            question = set()
        if not block.folded:
            question |= set(numbers(block.text))
        if block.kind.startswith("h") or block.section == "References":
            continue
        if _supposes(block) and not block.folded:
            continue
        own = question if block.folded else set()
        for sentence, links in sentences(block):
            linked = [
                _Shown(read(path.parent / link.partition("#")[0]))
                for link in links
                if _is_chapter(path.parent, link)
            ]
            if any(SOURCE.search(link) for link in links):
                continue
            for hit in _numbers_of_results(sentence):
                value = _value(hit.number)
                if value not in own and not any(
                    place.has(value, hit.unit) for place in (shown, *linked)
                ):
                    yield hit


def _begins_question(block: Block) -> bool:
    return (
        block.kind.startswith("h")
        or bool(re.match(r"\d+\. ", block.text))
        and block.section == "Quiz"
    )


def _supposes(block: Block) -> bool:
    """Whether a block asks: questions suppose numbers, and their answers may use them."""
    return block.section == "Quiz" or block.part.startswith("Exercise")


def _is_chapter(folder: Path, link: str) -> bool:
    return link.partition("#")[0].endswith(".ipynb") and (folder / link.partition("#")[0]).is_file()


def _numbers_of_results(sentence: str) -> Iterator[Hit]:
    for found in IN_PROSE.finditer(VERSION.sub("", ORDINAL.sub("", sentence))):
        unit = found["unit"] or ""
        large = len(found["number"].lstrip("-")) > 3 and not YEAR.fullmatch(found["number"])
        if unit or large or not found["number"].lstrip("-" + MINUS).isdigit():
            yield Hit(found["number"], WORDS.get(unit, unit), sentence)


def numbers(text: str) -> Iterator[Decimal]:
    """The values of all numbers in a text."""
    for found in IN_CELL.finditer(text):
        yield _value(found.group())


def _value(number: str) -> Decimal:
    return abs(Decimal(number.replace(",", "").replace(MINUS, "-"))).normalize()


class _Shown:
    """The numbers in the code and in the outputs of a notebook, cell by cell; the code of solutions
    is run, too.
    """

    def __init__(self, notebook: NotebookNode) -> None:
        texts = [cell_text(cell) or "\n".join(CODE.findall(cell.source)) for cell in notebook.cells]
        self.cells = [(text, set(numbers(text))) for text in texts if text]

    def has(self, value: Decimal, unit: str) -> bool:
        """Whether a cell shows the value, and speaks of the unit if there is one; 40 % may be shown
        as 0.4, too.
        """
        like = re.compile(UNITS.get(unit, ""), flags=0 if unit in EXACT else re.I)
        if any(value in found and like.search(text) for text, found in self.cells):
            return True
        return unit == "%" and self.has((value / 100).normalize(), "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
