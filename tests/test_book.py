"""The chapters as a book: form, exercises from both sides, numbers and spelling."""

from pathlib import Path

import bare_numbers
import exercises
import nbformat
import prose
import pytest
import run_times
import spelling
import structure
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
#: the pages around the chapters, except those that only include another file
PAGES = [
    path
    for pattern in ("*.md", "book/*.md")
    for path in sorted(ROOT.glob(pattern))
    if "{include}" not in path.read_text(encoding="utf-8")
]
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)


@each_chapter
def test_structure(chapter: Path) -> None:
    found = list(structure.defects(nbformat.read(chapter, as_version=4)))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_headings_of_pages(page: Path) -> None:
    found = list(structure.level_defects(list(prose.page_blocks(page))))
    assert not found, "\n".join(found)


@each_chapter
def test_numbers(chapter: Path) -> None:
    found = [str(hit) for hit in bare_numbers.bare(chapter)]
    assert not found, "\n".join(found)


def test_every_allowed_number_is_still_needed() -> None:
    hits = {chapter.stem: list(bare_numbers.unshown(chapter)) for chapter in CHAPTERS}
    for name, fragment, _ in bare_numbers.allowances():
        chapters = hits if name == "*" else {name}
        needed = any(fragment in hit.sentence for chapter in chapters for hit in hits[chapter])
        assert needed, f"tools/allowed_numbers.txt: {fragment!r} is not needed any more in {name}"


@pytest.mark.parametrize(
    "path", spelling.checked_files(), ids=lambda path: str(path.relative_to(ROOT))
)
def test_spelling(path: Path) -> None:
    found = [f"{word}: {context}" for word, context in spelling.misspelt(path)]
    assert not found, "\n".join([*found, "Right after all? python tools/spelling.py --add"])


def test_the_word_list_is_sorted_and_without_repetition() -> None:
    words = spelling.WORDS.read_text(encoding="utf-8").split("\n")
    assert words == [*sorted(set(words) - {""}), ""]


def test_run_times_are_those_that_the_chapters_print() -> None:
    page = (ROOT / run_times.PAGE).read_text(encoding="utf-8")
    assert run_times.table([run_times.run_time(path) for path in CHAPTERS]) in page, (
        "python tools/run_times.py writes it"
    )


# ------------------------------------------------------------------------------ the checks can fail
STARTER = "answer = ..."
CHECK = 'print("Right." if answer == 4 else "Not yet: two and two.")'
SOLUTION = (
    "<details>\n<summary>Solution of exercise 1</summary>\n\nAdd.\n\n"
    "```python\nanswer = 2 + 2\n```\n\n</details>\n"
)
QUIZ = "\n\n".join(
    f"**{number}. Is it\n*really* so?**\n\n- (a) yes\n- (b) no\n\n"
    f"<details>\n<summary>Answer {number}</summary>\n\n"
    "(b), because the other one would need more than is there.\n\n</details>"
    for number in (1, 2, 3)
)
OPENING = (
    "# Adding\n\nYou learn to add.\n\n**You will learn**\n- to add\n\n**You need**: two hands."
)


def exercise(
    number: int = 1, starter: str = STARTER, check: str = CHECK, solution: str = SOLUTION
) -> list[NotebookNode]:
    """The cells of an exercise as they are stored, with the output of the untouched starter."""
    hint = new_output("stream", name="stdout", text="Not yet: two and two.\n")
    return [
        new_markdown_cell(f"### Exercise {number}: a sum"),
        new_code_cell(starter),
        new_code_cell(check, outputs=[hint]),
        new_markdown_cell(solution.replace("exercise 1", f"exercise {number}")),
    ]


def chapter_with(**changes: str) -> NotebookNode:
    """A small chapter of the right form, with parts replaced."""
    parts = {
        "opening": OPENING,
        "caption": "*Figure 1. A line.*",
        "failure": "## Failure on purpose",
        "quiz": QUIZ,
        "end": "## What to remember\n\n## References\n\n## Next",
        "check": CHECK,
        "solution": SOLUTION,
    } | changes
    measured = new_output("display_data", {"text/markdown": "*measured: 1 s*"})
    picture = new_output("display_data", {"image/png": ""})
    return new_notebook(
        cells=[
            new_markdown_cell(parts["opening"]),
            new_code_cell("chapter.enter()", outputs=[measured]),
            new_code_cell("plt.plot([0, 1])", outputs=[picture]),
            new_markdown_cell(parts["caption"]),
            new_markdown_cell(parts["failure"]),
            new_markdown_cell("## Exercises"),
            *exercise(1, check=parts["check"], solution=parts["solution"]),
            *exercise(2),
            new_markdown_cell("## Quiz\n\n" + parts["quiz"]),
            new_markdown_cell(parts["end"]),
            new_code_cell("chapter.leave()"),
        ]
    )


def test_a_chapter_of_the_right_form() -> None:
    assert list(structure.defects(chapter_with())) == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"opening": OPENING.replace("You learn to add.\n\n", "")}, "no promise"),
        ({"opening": OPENING.replace("**You need**", "You need")}, "**You need**"),
        ({"opening": OPENING.replace("- to add", "to add")}, "list of items"),
        ({"opening": OPENING.replace("# Adding", "## Adding")}, "heading of level 1"),
        ({"caption": "A line."}, "must begin with *Figure 1."),
        ({"caption": "*Figure 2. A line.*"}, "must begin with *Figure 1."),
        ({"failure": "## All is well"}, "failure on purpose"),
        ({"failure": "## Failure\n\n#### Too deep"}, "level 4 after level 2"),
        ({"end": "## What to remember\n\n## Next"}, "the last sections are"),
        ({"quiz": QUIZ.replace("**3. Is", "**Is")}, "answer 3"),
        ({"quiz": QUIZ.replace("Answer 2", "Answer 4")}, "answer 4"),
        ({"quiz": QUIZ[: QUIZ.index("**2.")]}, "1 questions"),
        (
            {"quiz": QUIZ.replace(", because the other one would need more than is there", "")},
            "does not say why",
        ),
        ({"solution": SOLUTION.replace("exercise 1", "exercise 3")}, "Solution of exercise 1"),
        ({"solution": SOLUTION.replace("```python", "```")}, "expected one ```python block"),
    ],
)
def test_defects_of_form(changes: dict[str, str], complaint: str) -> None:
    found = list(structure.defects(chapter_with(**changes)))
    assert any(complaint in defect for defect in found), found


@pytest.mark.parametrize(
    ("stored", "complaint"),
    [
        ([new_output("stream", text="Right.\n")], "calls the untouched starter right"),
        ([], "says nothing"),
        ([new_output("error", ename="TypeError", evalue="", traceback=[])], "ends in an error"),
    ],
)
def test_defects_of_an_untouched_starter(stored: list[NotebookNode], complaint: str) -> None:
    notebook = new_notebook(cells=exercise())
    notebook.cells[2].outputs = stored
    assert [complaint in defect for defect in exercises.untouched_defects(notebook)] == [True]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"starter": "answer = 3"}, "has no ... to replace"),
        ({"solution": "Add."}, "must begin with <details>"),
        ({"number": 2}, "have the numbers [2]"),
    ],
)
def test_exercises_of_another_form(changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match="exercise") as error:
        exercises.exercises(new_notebook(cells=exercise(**changes)))
    assert complaint in str(error.value)


def run_trial(**changes: str) -> NotebookNode:
    """Run a chapter of one exercise with its trial, and show the names afterwards."""
    after = new_code_cell("print(answer, 'extra' in dir(), kept, In[1])")
    cells = [new_code_cell("kept = [1]"), *exercise(**changes), after]
    notebook = exercises.with_trials(new_notebook(cells=cells))
    NotebookClient(
        notebook, kernel_name="python3", timeout=120, resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    return notebook


def test_a_right_solution_passes_and_leaves_no_trace() -> None:
    notebook = run_trial(
        solution=SOLUTION.replace(
            "answer = 2 + 2", "extra = 2\nprint('Wrong.')\nanswer = extra + 2"
        )
    )
    assert notebook.cells[-1].outputs[0].text == "Ellipsis False [1] kept = [1]\n"
    trial = notebook.cells[4]
    assert trial.outputs == [] and "try_solution" in trial.source


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"solution": SOLUTION.replace("2 + 2", "5")},
            "does not call the solution right; it prints 'Not yet: two and two.",
        ),
        ({"solution": SOLUTION.replace("2 + 2", "two")}, "name 'two' is not defined"),
        ({"check": CHECK.replace("== 4", "== 3")}, "does not call the solution right"),
        ({"check": "if answer is not ...: raise KeyError('broken')"}, "broken"),
    ],
)
def test_a_broken_solution_or_check_fails(changes: dict[str, str], complaint: str) -> None:
    with pytest.raises(CellExecutionError) as error:
        run_trial(**changes)
    assert complaint in str(error.value)


def test_copies_are_made_afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat.write(chapter_with(), tmp_path / "01_sum.ipynb")
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "02_deleted.ipynb").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(
        "sys.argv",
        ["exercises.py", str(tmp_path / "01_sum.ipynb"), "--to", str(tmp_path / "copies")],
    )
    assert exercises.main() == 0
    assert [path.name for path in (tmp_path / "copies").iterdir()] == ["01_sum.ipynb"]
    copy = nbformat.read(tmp_path / "copies" / "01_sum.ipynb", as_version=4)
    assert sum("try_solution" in cell.source for cell in copy.cells) == 2


def test_run_time_of_a_chapter(tmp_path: Path) -> None:
    path = tmp_path / "01_x.ipynb"
    for line, seconds in (("12 s, 0.9", 12), ("1.5 minutes, 0.9", 90)):
        text = (
            "*Time and memory of this chapter, measured: "
            f"{line} GB of memory at the peak, 2 cores.*"
        )
        cell = new_code_cell(
            "chapter.enter()", outputs=[new_output("display_data", {"text/markdown": text})]
        )
        nbformat.write(new_notebook(cells=[new_markdown_cell("# A title\n\nMore."), cell]), path)
        assert run_times.run_time(path) == run_times.RunTime("01_x", "A title", seconds, 0.9, 2)
    rows = run_times.table([run_times.run_time(path)] * 2).splitlines()
    assert rows[2] == "| [A title](../notebooks/01_x.ipynb) | 1.5 minutes | 0.9 GB |"
    assert rows[-3] == "| **all 2 chapters** | **3.0 minutes** | **0.9 GB** |"


def test_a_chapter_that_was_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "01_x.ipynb"
    nbformat.write(
        new_notebook(cells=[new_markdown_cell("# A"), new_code_cell("chapter.enter()")]), path
    )
    with pytest.raises(ValueError, match="01_x.ipynb: expected a line like"):
        run_times.run_time(path)


PROSE = [
    ("It took 17 ms.", []),
    ("It took 18 ms.", ["18"]),
    ("It took 16 to 17 ms.", ["16"]),
    ("17 mm are another thing than 17 ms.", ["17"]),
    ("A Dice of 0.75, or 75 %.", []),
    ("A Dice of 0.76.", ["0.76"]),
    ("It has 4,809,257 parameters, in 2016.", ["4,809,257"]),
    ("Three of 12 cases, in `0.76` and $0.76$ of [them](data_0.76.ipynb).", []),
    ("## Dice 0.76", []),
    ("Others report [0.76](https://example.org). We do not report 0.77.", ["0.77"]),
    ("Others report 0.76 {cite}`others2020`.", []),
    ("See figure 3.2 with NumPy 1.26.", []),
    ("Volatile: 31 ms.", ["31"]),
]


@pytest.mark.parametrize(("text", "expected"), PROSE, ids=[text for text, _ in PROSE])
def test_bare_numbers(tmp_path: Path, text: str, expected: list[str]) -> None:
    shown = new_output("stream", text="17 ms, Dice 0.75\n")
    volatile = new_code_cell("clock()", outputs=[new_output("stream", text="31 ms")])
    volatile.metadata.tags = ["nbval-ignore-output"]
    path = tmp_path / "01_x.ipynb"
    nbformat.write(
        new_notebook(
            cells=[new_code_cell("work()", outputs=[shown]), volatile, new_markdown_cell(text)]
        ),
        path,
    )
    assert [hit.number for hit in bare_numbers.bare(path)] == expected


def test_answers_may_use_the_numbers_of_their_question(tmp_path: Path) -> None:
    quiz = (
        "## Quiz\n\n**1. A Dice of 0.61?**\n\n<details>\n<summary>Answer 1</summary>\n\n"
        "Not 0.61 but 0.62.\n\n</details>\n\n"
        "**2. And then?**\n\n<details>\n<summary>Answer 2</summary>\n\nStill 0.61.\n\n</details>"
    )
    path = tmp_path / "01_x.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell(quiz)]), path)
    found = [(hit.number, hit.sentence) for hit in bare_numbers.bare(path)]
    assert found == [("0.62", "Not 0.61 but 0.62."), ("0.61", "Still 0.61.")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A mistaek in `mistaek` and https://mistaek.org.", ["mistaek"]),
        (
            "The color of the center, normalized, gray, labeled.",
            ["color", "center", "normalized", "gray", "labeled"],
        ),
        (
            "The colour of the centre, normalised, grey, labelled; "
            "parameters of a size, in a laboratory.",
            [],
        ),
        ("LUNA16's HU, SimpleITK and `naem`; a lung’s voxels.", []),
        ("## References\n\nA. Naem, *Mistaek*.", []),
    ],
)
def test_misspelt_words(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = tmp_path / "page.md"
    path.write_text(text, encoding="utf-8")
    assert [word for word, _ in spelling.misspelt(path)] == expected


def test_misspelt_words_of_a_module(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '"""A mistaek, not ``a naem``.\n\n>>> naem\n\'naem\'\n"""\nnaem = 1  # an errror\n',
        encoding="utf-8",
    )
    assert [word for word, _ in spelling.misspelt(path)] == ["mistaek", "errror"]


def test_blocks_know_their_place() -> None:
    text = (
        "# A\n\n## B\n\nOne. Two [c](d).\n\n"
        "### E\n\n<details>\n<summary>F</summary>\n\nG\n\n</details>\n\nH"
    )
    found = [
        (block.text, block.kind, block.section, block.part, block.folded)
        for block in prose.blocks([text])
    ]
    assert found[2:] == [
        ("One. Two c.", "p", "B", "B", ""),
        ("E", "h3", "B", "E", ""),
        ("G", "p", "B", "E", "F"),
        ("H", "p", "B", "E", ""),
    ]
    assert list(prose.sentences(list(prose.blocks([text]))[2])) == [("One.", []), ("Two c.", ["d"])]
