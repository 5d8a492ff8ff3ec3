"""Parts of messages about settings: the nearest name, and values that fit on one line."""

import difflib
import reprlib
from collections.abc import Sequence
from typing import Any

LONGEST = 80  #: characters of a value in a message

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _brief.maxlong = LONGEST
_brief.maxlevel = 2


def shortened(value: Any) -> str:
    """A value on one line of at most :data:`LONGEST` characters; an empty string is ``none``.

    The value is cut before it is converted to text, so that a huge one costs nothing.

    >>> shortened("runs/quick"), shortened([64, 64, 48]), shortened("")
    ("'runs/quick'", '[64, 64, 48]', 'none')
    >>> len(shortened("a" * 1_000_000))
    80
    """
    if isinstance(value, str) and not value:
        return "none"
    try:
        text = " ".join(_brief.repr(value).split())
    except ValueError:  # Python converts no integer of more than 4300 digits to text
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def check_name(name: str, names: Sequence[str], kind: str) -> None:
    """Raise ``ValueError`` with the nearest of ``names`` unless ``name`` is one of them.

    ``kind`` says what they are names of, such as ``"section"``.

    >>> check_name("trian", ["data", "train"], "section")
    Traceback (most recent call last):
    ValueError: unknown section: 'trian'; did you mean 'train'?
    """
    if name not in names:
        raise ValueError(unknown_name(name, names, kind))


def unknown_name(name: str, names: Sequence[str], kind: str) -> str:
    """The message of :func:`check_name`."""
    hint = _nearest(name, names, cutoff=0.6) or f"there are {', '.join(names)}"
    return f"unknown {kind}: {shortened(name)}; {hint}"


def one_of(setting: str, name: str, names: Sequence[str]) -> None:
    """Raise ``ValueError`` with the nearest of ``names`` unless ``name`` is one of them.

    >>> one_of("model.norm", "grup", ["batch", "group"])
    Traceback (most recent call last):
    ValueError: model.norm: expected one of batch, group, found 'grup'; did you mean 'group'?
    """
    if name not in names:
        raise ValueError(not_one_of(setting, name, names))


def not_one_of(setting: str, name: str, names: Sequence[str]) -> str:
    """The message of :func:`one_of`."""
    message = f"{setting}: expected one of {', '.join(names)}, found {shortened(name)}"
    hint = _nearest(name, names, cutoff=0.4)
    return f"{message}; {hint}" if hint else message


def _nearest(name: str, names: Sequence[str], *, cutoff: float) -> str:
    """A question with the nearest name; empty if no similarity, 0 to 1, reaches ``cutoff``."""
    near = difflib.get_close_matches(str(name)[:LONGEST], names, n=1, cutoff=cutoff)
    return f"did you mean {near[0]!r}?" if near else ""
