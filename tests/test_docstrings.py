"""The examples in the package's docstrings give what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "unet3d_tutorial"
#: dotted names below the package of the modules that have examples
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    complaints: list[str] = []
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(importlib.import_module(f"unet3d_tutorial.{name}")):
        runner.run(example, out=complaints.append)
    assert runner.summarize(verbose=False).attempted > 0
    assert not complaints, "".join(complaints)


def test_what_a_reader_tries_first_has_an_example() -> None:
    topics = {name.partition(".")[0] for name in MODULES}
    assert {"config", "labels", "metrics", "schedule", "transforms", "volume"} <= topics
