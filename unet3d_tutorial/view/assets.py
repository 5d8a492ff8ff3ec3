"""The front end's own files, which lie next to this module."""

from importlib import resources


def asset(name: str) -> str:
    """The text of ``viewer.js`` or ``viewer.css``."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
