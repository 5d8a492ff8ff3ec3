"""What a newcomer meets first.

Citation, launch buttons, speed page, bibliography, and an API page that is complete.
"""

import ast
import csv
import re
import shlex
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import api  # noqa: E402
import collect  # noqa: E402
import results  # noqa: E402
import speed  # noqa: E402

from notebooks import cell_text, markdown, read  # noqa: E402
from unet3d_tutorial import cli  # noqa: E402
from unet3d_tutorial.config import Config  # noqa: E402

PACKAGE = ROOT / "unet3d_tutorial"
#: dotted names of all modules below the package
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def load_yaml(name: str) -> dict:
    return yaml.safe_load(text(name))


# ------------------------------------------------------------------------------------- who and what


def test_citation_names_this_version() -> None:
    citation, project = load_yaml("CITATION.cff"), tomllib.loads(text("pyproject.toml"))["project"]
    config = load_yaml("_config.yml")
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert citation["title"] == config["title"]
    assert [author["name"] for author in citation["authors"]] == [config["author"]]
    for name in ("book/intro.md", "CHANGELOG.md"):
        assert project["version"] in text(name), name
    assert citation["date-released"] in text("CHANGELOG.md")


def test_launch_page_names_the_configured_repository() -> None:
    repository = load_yaml("_config.yml")["repository"]
    page = text("book/launch.md")
    assert set(re.findall(r"https://github\.com/[\w.-]+/[\w.-]+", page)) == {repository["url"]}
    assert f"--branch {repository['branch']} {repository['url']}" in page
    assert f"%cd {repository['url'].rpartition('/')[2]}" in page


def test_binder_has_the_python_and_the_pins_of_the_project() -> None:
    packages = load_yaml("binder/environment.yml")["dependencies"]
    assert "python=3.11" in packages
    script = text("binder/postBuild")
    assert "--constraint constraints.txt" in script
    assert (ROOT / "binder" / "postBuild").stat().st_mode & 0o100, "not executable"


def test_workflow_runs_the_script_of_ci() -> None:
    steps = load_yaml(".github/workflows/ci.yml")["jobs"]["test"]["steps"]
    assert "bash .ci/run" in [step.get("run") for step in steps]


def test_hooks_call_commands_that_exist() -> None:
    for hook in load_yaml(".pre-commit-config.yaml")["repos"][0]["hooks"]:
        for path in re.findall(r"\b(?:tools|tests)/\S+\.py", hook["entry"]):
            assert (ROOT / path).is_file(), hook["id"]


# ---------------------------------------------------------------------------------------- the pages


def test_the_api_page_is_that_of_the_package() -> None:
    assert text("book/api.md") == api.page(), "run python tools/api.py"
    listed = set(re.findall(r"automodule:: unet3d_tutorial\.(\S+)", text("book/api.md")))
    assert set(MODULES) <= listed


@pytest.mark.parametrize("module", MODULES)
def test_public_names_have_docstrings(module: str) -> None:
    """What has none would stand on the API page without a word."""
    tree = ast.parse(text(f"unet3d_tutorial/{module.replace('.', '/')}.py"))
    assert ast.get_docstring(tree), f"{module} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module}.{node.name} has no docstring"


def test_every_work_that_a_chapter_refers_to_is_in_the_bibliography() -> None:
    bibliography = text("book/references.bib").lower()
    for chapter in sorted((ROOT / "notebooks").glob("[0-9]*.py")):
        source = chapter.read_text(encoding="utf-8").lower()
        for work in re.findall(r"doi\.org/([^)\s]+)|arxiv\.org/abs/([\d.]+)", source):
            assert "".join(work) in bibliography, f"{chapter.name}: {''.join(work)}"


def test_every_work_in_the_bibliography_is_referred_to() -> None:
    chapters = "".join(
        path.read_text(encoding="utf-8").lower()
        for path in sorted((ROOT / "notebooks").glob("[0-9]*.py"))
    )
    package = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    for entry in re.split(r"^@", text("book/references.bib"), flags=re.M)[1:]:
        addresses = [
            address.lower()
            for found in re.findall(r"doi = {(.*?)}|arXiv:([\d.]+)|url = {(.*?)}", entry)
            for address in found
            if address
        ]
        author = re.search(r"author = {([^,]+),", entry)[1]
        assert any(address in chapters for address in addresses) or author in package, entry


def test_glossary_is_in_order_and_names_each_word_once() -> None:
    words = re.findall(r"^(\S.*)\n: ", text("book/glossary.md"), flags=re.M)
    assert len(words) > 80
    assert words == sorted(set(words), key=str.lower)


# ------------------------------------------------------------------------- what one is told to type


def blocks(language: str, *names: str) -> list[str]:
    """The fenced code of pages and of chapters' texts."""
    texts = (
        re.sub("^# ?", "", text(name), flags=re.M) if name.endswith(".py") else text(name)
        for name in names
    )
    return [
        block
        for page in texts
        for block in re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.M | re.S)
    ]


@pytest.mark.parametrize("page", ["README.md", "book/intro.md"])
def test_python_on_the_first_pages_runs(page: str) -> None:
    found = blocks("python", page)
    assert found
    for code in found:
        exec(compile(code, page, "exec"), {})


def shown_commands() -> list[list[str]]:
    """Words of each call of ``unet3d`` that a page or a chapter shows, without those that stand for
    a name.
    """
    pages = [
        "README.md",
        *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "book").glob("*.md"))),
        *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "notebooks").glob("[0-9]*.py"))),
    ]
    lines = [
        line for block in blocks("bash", *pages) for line in block.replace("\\\n", " ").splitlines()
    ]
    calls = [
        re.search(r"(?:^|\")unet3d\b\)?\"?(.*)", re.sub(r"\$\(which unet3d\)", "unet3d", line))
        for line in lines
    ]
    return [shlex.split(call[1], comments=True) for call in calls if call]


@pytest.mark.parametrize("words", shown_commands(), ids=" ".join)
def test_commands_that_are_shown_are_understood(words: list[str]) -> None:
    if "-h" in words:
        with pytest.raises(SystemExit, match="0"):
            cli.main(words)
        return
    parser, words = cli._find_command(words)
    options = parser.parse_intermixed_args(words)
    cli._sort_settings(parser, options)
    # Refuses what is no setting.
    settings = getattr(options, "settings", [])
    Config.preset(getattr(options, "preset", None) or "quick").override(settings)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "book/intro.md", "book/launch.md"]
)
def test_targets_that_are_shown_exist(page: str) -> None:
    known = set(re.search(r"^\.PHONY: (help .*)$", text("Makefile"), flags=re.M)[1].split()) | {
        ".venv/installed"
    }
    assert set(re.findall(r"(?:^|`|&& )make ([a-z./]+)", text(page), flags=re.M)) <= known


# ------------------------------------------------------------------------------------- the pitfalls


def section(notebook: nbformat.NotebookNode, anchor: str) -> str:
    """The text of a chapter's section, from the heading that the site gives this anchor to the next
    heading.
    """
    parts = re.split(r"^#{1,3} (.*)\n", "\n\n".join(markdown(notebook)), flags=re.M)
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"): body
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }[anchor]


def pitfalls() -> dict[str, str]:
    """What the page says of each pitfall, by number."""
    parts = re.split(r"^## Pitfall (\d+)\n", text("book/pitfalls.md"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_there_are_thirteen_pitfalls() -> None:
    assert list(pitfalls()) == [str(number) for number in range(1, 14)]


@pytest.mark.parametrize(("number", "words"), pitfalls().items(), ids=pitfalls())
def test_each_pitfall_is_measured_in_a_section_that_leads_back(number: str, words: str) -> None:
    measured = words.partition("*Measured:*")[2]
    links = re.findall(r"\(\.\./notebooks/(\w+)\.ipynb#([\w-]+)\)", measured)
    assert links
    shown = ""
    for name, anchor in links:
        chapter = read(ROOT / "notebooks" / f"{name}.ipynb")
        assert f"(../book/pitfalls.md#pitfall-{number})" in section(chapter, anchor), (
            f"{name}, {anchor}"
        )
        shown += "\n".join(map(cell_text, chapter.cells))
    said = re.sub(r"\]\(.*?\)|`RAS`|HD95", "", measured)
    numbers = re.findall(r"\d(?:[\d.,]*\d)?%?", said)
    missing = [
        number
        for number in numbers
        if not re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", shown)
    ]
    assert not missing, f"no cell shows {missing}"


# ------------------------------------------------------------------------------------------ figures


def test_speed_page_shows_the_stored_measurements() -> None:
    measured = speed.load(ROOT / "benchmarks" / "results.csv")
    page = text("book/speed.md")
    assert speed.tables(measured) in page, "run python tools/speed.py"
    assert (ROOT / "book" / "_static" / "speed.png").stat().st_size < 200_000


def test_ratio_is_above_one_where_ours_is_better() -> None:
    rows = [
        ("loss", "ours", 2.0, "s"),
        ("loss", "theirs", 4.0, "s"),
        ("crops", "ours", 30.0, "crops/s"),
        ("crops", "theirs", 60.0, "crops/s"),
    ]
    pairs = speed.comparisons([speed.Measurement("b", *row, "shared") for row in rows])
    assert [pair.ratio for pair in pairs] == [2.0, 0.5]
    assert [speed.verdict(pair) for pair in pairs] == ["2 times faster", "2 times slower"]
    assert speed.shown(pairs[0].ours) == "(2 s)"
    near = [
        speed.Measurement("b", "loss", side, value, "s", "quiet")
        for side, value in (("ours", 1.0), ("theirs", 0.98))
    ]
    assert speed.verdict(speed.Comparison(*near)) == "as fast"


def test_logs_of_benchmarks_are_understood() -> None:
    log = (
        "| training step | median s |\n|---|--:|\n"
        "| MindSpore | 0.5 |\n| MindSpore, oneDNN | 0.3 |\n| PyTorch | 0.25 |\n"
        "\n| forward pass | median s |\n|---|--:|\n| ONNX Runtime | 0.05 |\n| PyTorch | 0.06 |\n"
    )
    found = [(what, value) for what, _, value, _ in collect.train_step(log)]
    step, exported = "training step", "forward pass of the exported network"
    assert found == [
        (step, 0.3),
        (step, 0.5),
        (step, 0.25),
        ("forward pass", 0.06),
        (exported, 0.05),
        (exported, 0.06),
    ]
    line = (
        "ROI (96, 96, 96): here 10.3 s, 0.86 GB; MindSpore 9.1 s, 0.96 GB; "
        "MONAI 23.8 s, 1.50 GB; at least 99% equal"
    )
    monai, found = [(23.8, "s"), (1.5, "GB")], [row[2:] for row in collect.sliding_window(line)]
    assert found == [(9.1, "s"), (0.96, "GB"), *monai, (10.3, "s"), (0.86, "GB"), *monai]
    assert collect.is_shared("busy before: 1.20 cores\n") and not collect.is_shared(
        "busy before: 0.10 cores\n"
    )


def test_measurements_name_their_machine() -> None:
    with (ROOT / "benchmarks" / "results.csv").open(newline="", encoding="utf-8") as file:
        assert {row["machine"] for row in csv.DictReader(file)} <= {"quiet", "shared"}


def test_text_between_marks_is_replaced_or_nothing_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- speed -->\nold\n<!-- /speed -->\nb\n", encoding="utf-8")
    results.replace_between(page, "new", "speed")
    assert page.read_text(encoding="utf-8") == "a\n<!-- speed -->\nnew\n<!-- /speed -->\nb\n"
    with pytest.raises(ValueError, match="expected the marks <!-- results -->"):
        results.replace_between(page, "new")


# ----------------------------------------------------------------------------------- another Python


def run_cells(*sources: str, folder: Path) -> list:
    """Run cells from a fresh kernel, errors included, and give the outputs of each."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources]
    )
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return [cell.outputs for cell in notebook.cells]


def test_cells_run_elsewhere_and_their_outputs_come_back(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    setup = f"%run {ROOT / 'tools' / 'elsewhere.py'} {sys.executable} {inner}"
    outputs = run_cells(
        setup,
        "import os\nprint(os.getcwd())",
        "x = 'a\\n\"b\"'\nx",
        "1 / 0",
        "%pwd",
        folder=tmp_path,
    )
    assert outputs[1][0].text.strip() == str(inner)
    assert outputs[2][0].data["text/plain"] == repr('a\n"b"')
    assert "ZeroDivisionError" in outputs[3][0].text and outputs[3][-1].output_type == "error"
    assert str(inner) not in str(outputs[4])


def test_a_missing_python_is_named(tmp_path: Path) -> None:
    (output,) = run_cells(f"%run {ROOT / 'tools' / 'elsewhere.py'} no/python .", folder=tmp_path)[0]
    assert output.evalue == "no/python: expected a Python to run the cells with, found no such file"
