"""The HTML of a stored viewer, which needs nothing but a browser."""

import html
import json
from typing import Any

from .assets import asset

NO_KEY = "00000000"  #: the key of a page that no live viewer hides
VOLUME_PLACE = "<volume>"  #: placeholder for the volume; names cannot contain it: see fragment()
ASLEEP = (
    "Slice viewer. It starts where scripts may run: run this cell, or trust the notebook "
    "(in JupyterLab: View, Activate Command Palette, Trust Notebook)."
)


def fragment(description: dict[str, Any]) -> str:
    """Return HTML with description and program that runs on any page.

    The volume is still missing: :data:`VOLUME_PLACE` marks its place.
    """
    # Without "<" a name cannot end the script element.
    text = json.dumps(description, separators=(",", ":")).replace("<", "\\u003c")
    host = f'<div class="slice-viewer" data-key="{NO_KEY}"><p>{html.escape(ASLEEP)}</p></div>'
    meta = f'<script type="application/json" class="meta">{text}</script>'
    volume = f'<script type="text/plain" class="volume">{VOLUME_PLACE}</script>'
    program = f'<script type="module">{asset("viewer.js")}\nwake();</script>'
    return f"<div data-slice-viewer>{host}{meta}{volume}{program}</div>"


def with_volume(fragment: str, packed: str) -> str:
    """Return the fragment with its volume, which is compressed and in base64."""
    return fragment.replace(VOLUME_PLACE, packed)


def with_key(fragment: str, key: str) -> str:
    """Return the fragment with the key of a live viewer; next to that viewer it stays hidden."""
    return fragment.replace(f'data-key="{NO_KEY}"', f'data-key="{key}"', 1)


def whole_page(fragment: str) -> str:
    """Return a complete HTML page around a fragment."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<title>Slice viewer</title>"
    )
    body = f"<body><main>{fragment}</main></body>"
    return f'<!doctype html>\n<html lang="en">{head}\n{body}</html>\n'
