"""Settings that are checked when they are created; an error says in one line what is wrong.

Pydantic does the checking: it reads types and bounds from the annotations of a dataclass. This
module turns its long reports into one-line ``ValueError`` messages.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import wraps
from typing import Any, Literal, TypeVar, dataclass_transform, get_args, get_origin

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from .wording import not_one_of, shortened, unknown_name
from .yaml_settings import notation

#: refuses text as a number, a number as a boolean, infinity, NaN and unknown names
STRICT = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")

Class = TypeVar("Class", bound=type)


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a setting expects, in words, where its type and its bounds do not say enough.

    Use it in a setting's annotation: ``Annotated[str, MinLen(1), Expected("a folder")]``.
    """

    words: str


# ------------------------------------------------------------------------------------------- checks


@dataclass_transform(frozen_default=True)
def checked(section: str = "") -> Callable[[Class], Class]:
    """Make a class a frozen dataclass whose values are checked.

    ``section`` precedes the names of its settings in messages. A list or a NumPy array may be given
    for a tuple, and a NumPy number for a number. Creating an object raises ``ValueError`` for a
    value that is not allowed.

    >>> from typing import Annotated
    >>> from annotated_types import Ge
    >>> @checked("train")
    ... class TrainConfig:
    ...     epoch_size: Annotated[int, Ge(1)] = 5
    >>> TrainConfig(epoch_size=0)
    Traceback (most recent call last):
    ValueError: train.epoch_size: expected a whole number of at least 1, found 0
    """

    def decorate(cls: Class) -> Class:
        made: Any = dataclass(frozen=True, config=STRICT)(cls)
        validate = made.__init__

        @wraps(validate)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            values = [_plain(value) for value in args]
            named = {name: _plain(value) for name, value in kwargs.items()}
            try:
                validate(self, *values, **named)
            except ValidationError as error:
                names = [entry.name for entry in fields(made)]
                given = dict(zip(names, args, strict=False)) | kwargs
                raise ValueError(_explained(error, made, section, given)) from None

        made.__init__ = __init__
        return made

    return decorate


def _plain(value: Any) -> Any:
    """Convert NumPy numbers to Python's, and NumPy arrays and lists to tuples."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return tuple(_plain(item) for item in value)
    return value


def _explained(error: ValidationError, made: Any, section: str, given: Mapping[str, Any]) -> str:
    """The first error in one line: the setting, what it expects, what was found."""
    problem = error.errors(include_url=False)[0]
    if problem["type"] == "value_error":  # raised by the class's own rules
        return str(problem["ctx"]["error"])
    settings: dict[str, FieldInfo] = made.__pydantic_fields__
    names = list(settings)
    if problem["type"] == "unexpected_positional_argument":
        return f"{made.__name__}: expected at most {len(names)} values, found more"

    place = problem["loc"][0]  # a name, or the number of an argument without one
    name = names[place] if isinstance(place, int) else place
    if name not in settings:
        kind = f"setting in section {section!r}" if section else "section"
        return unknown_name(name, names, kind)
    if problem["type"] == "multiple_argument_values":
        return f"{made.__name__}: {name} is given twice"
    setting = f"{section}.{name}" if section else name
    return _refusal(setting, settings[name], given[name], problem["type"])


def _refusal(setting: str, field: FieldInfo, value: Any, problem: str) -> str:
    """The message for a value that a setting does not accept."""
    if get_origin(field.annotation) is Literal:
        return not_one_of(setting, value, get_args(field.annotation))
    expected = _expected(field)
    if problem == "finite_number":
        expected = expected.replace("a number", "a finite number")
    return f"{setting}: expected {expected}, found {shortened(value)}"


def _expected(field: FieldInfo) -> str:
    """What a setting expects: the words of its annotation, or else its type and bounds."""
    for annotation in field.metadata:
        if isinstance(annotation, Expected):
            return annotation.words
    kind: Any = field.annotation
    words = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}
    if kind not in words:  # a section
        return kind.__name__
    return words[kind] + _bounds(field.metadata)


def _bounds(metadata: list[Any]) -> str:
    """Bounds in words, from annotations such as ``Ge(0)`` and ``Lt(1)``."""
    bounds = {}
    for entry in metadata:
        for name in ("gt", "ge", "lt", "le"):
            if hasattr(entry, name):
                bounds[name] = getattr(entry, name)
    if bounds.keys() == {"ge", "le"}:
        return f" from {bounds['ge']} to {bounds['le']}"
    words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}
    phrases = [f" {words[name]} {bound}" for name, bound in bounds.items()]
    return " and".join(phrases)


# ------------------------------------------------------------------------------------------ display


class Settings:
    """A section of settings that displays well: text when printed, a table in Jupyter."""

    def __str__(self) -> str:
        return "\n".join(setting_lines(self))

    def _repr_html_(self) -> str:
        return settings_table({"": self})


def setting_lines(section: Any) -> list[str]:
    """One line per setting; a star marks those that differ from their default, which follows."""
    entries = fields(section)
    width = max(len(entry.name) for entry in entries)
    rows = []
    for entry in entries:
        value, default = _value_and_default(section, entry)
        if default:
            rows.append(f"* {entry.name:{width}}  {value}  (default: {default})")
        else:
            rows.append(f"  {entry.name:{width}}  {value}")
    return rows


def settings_table(sections: Mapping[str, Any]) -> str:
    """An HTML table of the settings in ``sections``; defaults are shown only where they differ.

    ``sections`` maps the name of a section to the section; an empty name is left out.
    """
    from .tables import Table  # slow to load, and only Jupyter needs it

    rows = []
    for name, section in sections.items():
        for entry in fields(section):
            label = f"{name}.{entry.name}" if name else entry.name
            rows.append([label, *_value_and_default(section, entry)])
    return Table(["setting", "value", "default, if it differs"], rows)._repr_html_()


def _value_and_default(section: Any, entry: dataclasses.Field) -> tuple[str, str]:
    """A setting's value in YAML notation, and its default; empty if that is the same."""
    value = getattr(section, entry.name)
    if value == entry.default or entry.default is MISSING:
        return notation(value), ""
    return notation(value), notation(entry.default)
