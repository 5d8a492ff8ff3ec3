"""Settings in YAML: every value as text, and one line for what cannot be read."""

import doctest
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet3d_tutorial.config import Config
from unet3d_tutorial.files import checked_settings, wording, yaml_settings
from unet3d_tutorial.files.yaml_settings import notation, read_sections, read_value

NAMES = {"data": ["roi_size", "augment"], "train": ["lr", "output_path"]}


def test_values_stay_text():
    text = "train: {lr: 1e-3, output_path: 007}\ndata:\n  roi_size: [64, 0x10, on]\n"
    assert read_sections(text, "c.yaml", NAMES) == {
        "train": {"lr": "1e-3", "output_path": "007"},
        "data": {"roi_size": ["64", "0x10", "on"]},
    }


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "train:\n", "train: ~\n", "---\ntrain: {}\n", "\ufefftrain:\r\n"]
)
def test_a_file_may_be_empty_and_so_may_a_section(text, tmp_path):
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    assert Config.load(tmp_path / "c.yaml") == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "train: {lr: 1}\ntrain: {lr: 2}",
            "c.yaml, line 2: 'train' is given twice, first in line 1",
        ),
        ("train:\n  lr: 1\n  lr: 2", "c.yaml, line 3: 'lr' is given twice, first in line 2"),
        ("on: 1", "c.yaml, line 1: unknown section: 'on'; there are data, train"),
        ("train:\n  1: 2", "c.yaml, line 2: unknown setting in section 'train': '1'"),
        ("train:\n  ~: 2", "c.yaml, line 2: unknown setting in section 'train': '~'"),
        ("train: {Lr: 2}", "c.yaml, line 1: unknown setting in section 'train': 'Lr'"),
        ("trian: {}", "c.yaml, line 1: unknown section: 'trian'; did you mean 'train'?"),
        ("train:\n  [lr]: 2", "c.yaml, line 2: expected the name of a setting in section 'train'"),
        (
            "? {a: b}\n: 2",
            "c.yaml, line 1: expected the name of a section, found name: value pairs",
        ),
        ("train: 3", "c.yaml, line 1: section 'train': expected name: value pairs, found '3'"),
        (
            "train: [lr]",
            "c.yaml, line 1: section 'train': expected name: value pairs, found ['lr']",
        ),
        (
            "train:\n  lr: {a: 1}",
            "c.yaml, line 2: expected a value or a list of values, found name",
        ),
        ("train: {lr: &a 1}", "c.yaml, line 1: anchors (&) and aliases (*) are not supported"),
        ("train: {lr: *a}", "c.yaml, line 1: anchors (&) and aliases (*) are not supported"),
        ("train: {lr: !!int 1}", "c.yaml, line 1: tags are not supported, found"),
        (
            "data: {roi_size: [[[1]]]}",
            "c.yaml, line 1: expected a value or a list of values, found de",
        ),
        ("[" * 10**5, "c.yaml, line 1: expected a value or a list of values, found deeper nesting"),
        ("- 1", "c.yaml: expected sections (data, train), found a list"),
        ("train", "c.yaml: expected sections (data, train), found 'train'"),
        ("train: {lr: 1", "c.yaml is not valid YAML: line 1: while parsing a flow mapping"),
        ("train:\n\tlr: 1", "c.yaml is not valid YAML: line 2: "),
        (
            "train: {}\n---\ntrain: {}",
            "c.yaml is not valid YAML: line 2: expected a single document",
        ),
        ("\0", "c.yaml is not valid YAML: unacceptable character #x0000"),
    ],
)
def test_what_cannot_be_read_is_one_line(text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as caught:
        read_sections(text, "c.yaml", NAMES)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_a_billion_laughs_are_refused():
    text = "a: &a [x, x, x]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True):
        text += f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}]\n"
    with pytest.raises(ValueError, match=r"^c.yaml, line 1: anchors \(&\)"):
        read_sections(text, "c.yaml", NAMES)


def test_a_value_that_cannot_be_used_names_the_file(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("train: {lr: fast}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"c\.yaml: train\.lr: expected a number above 0"):
        Config.load(tmp_path / "c.yaml")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="train: {}[]lr,\n\t-&*!#'\"0.1e~", max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text):
    for read in (
        lambda: read_sections(text, "c.yaml", NAMES),
        lambda: read_value(text, "train.lr"),
    ):
        try:
            read()
        except ValueError as error:
            assert re.match(r"c\.yaml|train\.lr", str(error)) and len(str(error)) < 300
            assert "\n" not in str(error)


@pytest.mark.parametrize("module", [checked_settings, wording, yaml_settings])
def test_examples(module):
    failed, attempted = doctest.testmod(module)
    assert attempted and not failed


def test_notation_can_be_read_back():
    for value in ("", "runs/quick", "007", "a: b", "[x", "Größe", "it's"):
        assert read_value(notation(value), "x") == value
    assert notation((4.0, 4.0)) == "[4.0, 4.0]" and notation(1e-5) == "1.0e-05"
    long = "word " * 100
    assert "\n" not in notation(long.strip())
