"""What a chapter or a page says in words: its Markdown cut into blocks, and these into sentences.

Code, mathematics and the targets of links are no words; they are left out, and each leaves
:data:`GAP` in its place.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.myst_role import myst_role_plugin

GAP = "\N{REPLACEMENT CHARACTER}"
#: where a sentence ends: a full stop and so on, closing marks, white space, and a beginning that is
#: no small letter
SENTENCE_END = re.compile(r"(?<=[.!?:;])[*_)\"”]*\s+(?=[^a-z\s])")
PARSER = MarkdownIt("commonmark").enable("table")
PARSER.use(dollarmath_plugin).use(myst_role_plugin).use(colon_fence_plugin)


@dataclass(frozen=True)
class Block:
    """One paragraph, heading, item or table cell: its words, where its links lead, and where it
    stands.
    """

    text: str
    kind: str  # "h1" to "h6", "p", "td", ...
    # Position in the text and target, of links, images and citations.
    links: tuple[tuple[int, str], ...]
    section: str = ""  # text of the last h2, or ""
    part: str = ""  # text of the last heading
    folded: str = ""  # the <summary> of the <details> that it stands in, or ""


@dataclass
class _Place:
    """The headings and folds passed so far; it survives from cell to cell of a chapter."""

    section: str = ""
    part: str = ""
    folded: str = ""
    tags: list[str] = field(default_factory=list)

    def heading(self, kind: str, text: str) -> None:
        self.part = text
        if kind in ("h1", "h2"):
            self.section = text

    def html(self, text: str) -> None:
        if "<details" in text:
            self.folded = "details"
        if summary := re.search(r"<summary>(.*?)</summary>", text, flags=re.S):
            self.folded = summary[1].strip()
        if "</details>" in text:
            self.folded = ""


def blocks(texts: list[str]) -> Iterator[Block]:
    """The blocks of consecutive Markdown texts: the cells of a chapter, or one whole page."""
    place = _Place()
    for text in texts:
        kind = "p"
        for token in PARSER.parse(text):
            if token.nesting == 1:
                kind = token.tag or kind
            if token.type == "html_block":
                place.html(token.content)
            if token.type != "inline":
                continue
            words, links = _words(token.children or [])
            if kind in ("h1", "h2", "h3", "h4", "h5", "h6"):
                place.heading(kind, words)
            yield Block(words, kind, tuple(links), place.section, place.part, place.folded)


def page_blocks(path: Path) -> Iterator[Block]:
    """The blocks of a Markdown file."""
    return blocks([path.read_text(encoding="utf-8")])


def sentences(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Each sentence of a block, with the targets of the links in it."""
    start = 0
    for end in [*(found.end() for found in SENTENCE_END.finditer(block.text)), len(block.text)]:
        yield (
            block.text[start:end].strip(),
            [target for at, target in block.links if start <= at < end],
        )
        start = end


def _words(children: list[Token]) -> tuple[str, list[tuple[int, str]]]:
    text, links = "", []
    for child in children:
        if child.type == "text":
            text += child.content
        elif child.type in ("softbreak", "hardbreak"):
            text += " "
        elif child.type == "link_open":
            links.append((len(text), str(child.attrs["href"])))
        elif child.type == "image":
            links.append((len(text), str(child.attrs["src"])))
        elif child.type == "myst_role":
            links.append((len(text), f"{child.meta['name']}:{child.content}"))
            text += GAP
        elif child.type in ("code_inline", "math_inline", "math_inline_double", "math_single"):
            text += GAP
    return text, links
