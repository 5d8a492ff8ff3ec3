"""Settings in YAML files and on the command line, read as they were written.

YAML guesses the type of a value from its spelling: ``007`` becomes the number 7, ``on`` becomes
true, and ``1e-3`` remains text. Here a value stays text until the type of its setting decides what
it means (:func:`value_of`).
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, TypeAlias, Union, get_args, get_origin

import yaml
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event

from .wording import shortened, unknown_name

#: a value as it was written: text, or a list of text
Written: TypeAlias = "str | list[Written]"

DEEPEST = 3  #: levels of nesting: the file, a section, a list
TRUE, FALSE = ("true", "yes", "on"), ("false", "no", "off")
NOTHING = ("", "~", "null", "none")
WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


# ------------------------------------------------------------------------------- from text to value


def value_of(written: Written, kind: Any) -> Any:
    """Convert ``written`` to the value that it means for a setting of type ``kind``.

    ``kind`` is ``str``, ``bool``, ``int``, ``float``, a ``Literal`` of strings, a tuple of numbers,
    or a union of one of these and ``None``. A value that does not fit the type is returned
    unchanged: the check of the setting refuses it with a better message.

    >>> value_of("007", str), value_of("007", int), value_of("1e-3", float), value_of("on", bool)
    ('007', 7, 0.001, True)
    >>> value_of("null", str), value_of("null", float | None), value_of("fast", float)
    ('null', None, 'fast')
    """
    if get_origin(kind) in (Union, UnionType):
        if isinstance(written, str) and written.lower() in NOTHING:
            return None
        kind = next(member for member in get_args(kind) if member is not NoneType)
    if isinstance(written, list):
        element = get_args(kind)[0] if get_origin(kind) is tuple else str
        return [value_of(item, element) for item in written]
    if kind is bool:
        return _truth(written)
    if kind in (int, float):
        return _number(written, kind)
    return written


def _truth(text: str) -> bool | str:
    if text.lower() in TRUE:
        return True
    return False if text.lower() in FALSE else text


def _number(text: str, kind: type[int] | type[float]) -> int | float | str:
    if kind is int and WHOLE.fullmatch(text):
        return int(text)
    if not NUMBER.fullmatch(text):
        return text
    number = float(text)
    return int(number) if kind is int and number.is_integer() else number


# ------------------------------------------------------------------------------------- reading YAML


def read_sections(
    text: str, source: str, names: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Written]]:
    """Read the settings in a YAML text, as ``values[section][name]``.

    ``names`` has the names of the settings in each section; ``source`` is the name of the file.

    Raises ``ValueError`` with a one-line message that names the file and, if known, the line
    number. Reasons are invalid YAML, a name that is unknown or given twice, and features that
    settings do not need: anchors, aliases, tags and deeper nesting.
    """
    try:
        root = _compose(text, source)
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is not valid YAML: {_problem(error)}") from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        found = "a list" if isinstance(root, yaml.SequenceNode) else shortened(root.value)
        raise ValueError(f"{source}: expected sections ({', '.join(names)}), found {found}")
    sections = {}
    for section, node in _pairs(root, list(names), "section"):
        settings = _pairs(
            _section(section, node), names[section], f"setting in section {section!r}"
        )
        sections[section] = {name: _written(value) for name, value in settings}
    return sections


def read_value(text: str, name: str) -> Written:
    """Read a value that was written after ``name=`` on the command line, as YAML: text or a list.

    Raises ``ValueError`` if it is not valid YAML.

    >>> read_value("[32, 48, 64]", "data.roi_size"), read_value("2024", "train.output_path")
    (['32', '48', '64'], '2024')
    """
    try:
        node = _compose(text, name)
    except yaml.YAMLError:
        raise ValueError(
            f"{name}: {shortened(text)} is not valid YAML; is a bracket or a quote missing?"
        ) from None
    return "" if node is None else _written(node)


def _compose(text: str, source: str) -> yaml.Node | None:
    """Parse YAML into a tree of nodes in which each scalar is text."""
    _check_events(_loader(text, source))
    return _loader(text, source).get_single_node()


def _loader(text: str, source: str) -> yaml.BaseLoader:
    loader = yaml.BaseLoader(text)
    loader.name = source  # for the marks that say where a node begins
    return loader


def _check_events(loader: yaml.BaseLoader) -> None:
    """Before a tree is built, refuse features that could expand a small file to a huge tree."""
    depth = 0
    while loader.check_event():
        event = loader.get_event()
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            raise _error(event, "anchors (&) and aliases (*) are not supported; repeat the value")
        if getattr(event, "tag", None):
            raise _error(event, f"tags are not supported, found {shortened(event.tag)}")
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > DEEPEST:
            raise _error(event, "expected a value or a list of values, found deeper nesting")


def _section(name: str, node: yaml.Node) -> yaml.MappingNode:
    """The node with the settings of a section; empty if only the section's name is given."""
    if isinstance(node, yaml.ScalarNode) and node.value.lower() in NOTHING:
        return yaml.MappingNode(node.tag, [], node.start_mark)
    if not isinstance(node, yaml.MappingNode):
        found = shortened(_written(node))
        raise _error(node, f"section {name!r}: expected name: value pairs, found {found}")
    return node


def _pairs(
    node: yaml.MappingNode, names: Sequence[str], kind: str
) -> Iterator[tuple[str, yaml.Node]]:
    """Yield each name with the node of its value; a name must be known and given only once."""
    lines: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            found = "a list" if isinstance(key, yaml.SequenceNode) else "name: value pairs"
            raise _error(key, f"expected the name of a {kind}, found {found}")
        name = key.value
        if name in lines:
            first = lines[name]
            raise _error(key, f"{shortened(name)} is given twice, first in line {first}")
        if name not in names:
            raise _error(key, unknown_name(name, names, kind))
        lines[name] = key.start_mark.line + 1
        yield name, value


def _written(node: yaml.Node) -> Written:
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode):
        return [_written(item) for item in node.value]
    raise _error(node, "expected a value or a list of values, found name: value pairs")


def _error(place: Event | yaml.Node, message: str) -> ValueError:
    mark = place.start_mark
    return ValueError(f"{mark.name}, line {mark.line + 1}: {message}")


def _problem(error: yaml.YAMLError) -> str:
    """PyYAML's error on one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        words = [text for text in (error.context, error.problem) if text]
        return f"line {error.problem_mark.line + 1}: {', '.join(words)}"
    return str(error).partition("\n")[0]


# ------------------------------------------------------------------------------------- writing YAML


def written_sections(values: Mapping[str, Mapping[str, Any]]) -> str:
    """Write sections of settings as YAML; lists, and sections without lists, in flow style."""
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None)


def notation(value: Any) -> str:
    """Write a value as in a YAML file or on the command line.

    >>> notation((64, 64, 48)), notation(None), notation(True), notation("runs/quick")
    ('[64, 64, 48]', 'null', 'true', 'runs/quick')
    """
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=math.inf)
    return text.removesuffix("...\n").strip()
