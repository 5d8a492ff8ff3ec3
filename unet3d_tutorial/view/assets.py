"""The files of the viewer's front end, which are next to this module."""

from importlib import resources


def asset(name: str) -> str:
    """Return the text of ``viewer.js`` or ``viewer.css``."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
