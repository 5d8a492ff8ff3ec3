"""Text is read and written as UTF-8, whatever encoding the machine happens to prefer."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("unet3d_tutorial", "tools", "tests", "benchmarks", "notebooks")
MODE = re.compile(r"[rwax]\+?t?")  # of a file opened as text


def opens_text(call: ast.Call) -> bool:
    """Whether a call is one of ``read_text``, ``write_text``, ``open`` in a text mode, or a method
    ``open`` in one.
    """
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("read_text", "write_text"):
        return True
    method = isinstance(call.func, ast.Attribute)
    arguments = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if name != "open" or any("b" in mode and len(mode) <= 3 for mode in modes):
        return False
    if (
        method
    ):  # of a path; archives and stores have methods of the same name, which take a member's name
        return not arguments or any(MODE.fullmatch(mode) for mode in modes)
    return True


def without_encoding(source: str) -> list[ast.Call]:
    """The calls in ``source`` that leave the encoding of a text to the machine."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        call
        for call in calls
        if opens_text(call) and not any(word.arg == "encoding" for word in call.keywords)
    ]


@pytest.mark.parametrize(
    "code",
    [
        "path.read_text()",
        "path.write_text(text)",
        "open(path)",
        "open(path, 'w')",
        "path.open()",
        "path.open('a+')",
        "path.open(mode='r')",
        "path.open(newline='')",
    ],
)
def test_calls_that_leave_it_open_are_found(code: str):
    assert len(without_encoding(code)) == 1


@pytest.mark.parametrize(
    "code",
    [
        "path.read_text(encoding='utf-8')",
        "open(path, 'rb')",
        "path.open('r+b')",
        "path.open('w', encoding='utf-8')",
        "archive.open(member)",
        "gzip.open(path, 'rb')",
    ],
)
def test_other_calls_are_not(code: str):
    assert not without_encoding(code)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_text_says_its_encoding(folder: str):
    scripts = sorted((ROOT / folder).rglob("*.py"))
    assert scripts
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in scripts
        for call in without_encoding(path.read_text(encoding="utf-8"))
    ]
    assert not found, f'add encoding="utf-8": {", ".join(found)}'
