"""Check the spelling: ``python tools/spelling.py [FILE ...]``.

Unknown words are printed with their place. The prose of chapters and pages, and the docstrings and
comments of Python files, are held to the English dictionary that comes with the package spylls, and
to ``words.txt``: names and the words of the trade. The dictionary is American and the book is
British, so American forms are refused, and British ones looked up in their American form. ``--add``
adds the unknown words to ``words.txt``: read the difference before you commit it.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from prose import blocks
from spylls.hunspell import Dictionary

from notebooks import read_script

ROOT = Path(__file__).parents[1]
WORDS = Path(__file__).with_name("words.txt")
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
#: what is no prose although it stands in prose: addresses, file names, names with digits or
#: underscores, key names
NO_PROSE = re.compile(
    r"https?:\S+|\bdoi:\S+|\S*[/@_\\=<>]\S*|\b[\w-]*\d[\w-]*|\b\w+\.(?:\w+\.)*[a-z]{1,5}\b|\.\w+"
)
#: code and references in docstrings and comments
CODE = re.compile(r"``.*?``|:[\w:]+:`.*?`|`.*?`_*", flags=re.S)
#: American forms and what the book writes in their place
AMERICAN = [
    (re.compile(r"(col|behavi|neighb|fav|flav|hon|lab)or(?!at|ious|ary)(.*)"), r"\1our\2"),
    (re.compile(r"(cent|lit|fib|theat|calib|met|\w+limet|\w+timet|kilomet)er(s?)"), r"\1re\2"),
    (re.compile(r"(cent|fib)er(ed|ing)"), r"\1r\2"),
    (
        re.compile(r"(?!\w*siz|priz|seiz|capsiz)(\w+[iy])z(e|ed|es|er|ers|ing|ation|ations)"),
        r"\1s\2",
    ),
    (
        re.compile(r"(\w*(?:label|model|travel|cancel|signal|channel|level|total))(ed|ing|er)"),
        r"\1l\2",
    ),
    (re.compile(r"artifact(s?)"), r"artefact\1"),
    (re.compile(r"gray(s|ed|scale)?"), r"grey\1"),
    (re.compile(r"(def|off|pret)ense"), r"\1ence"),
    (re.compile(r"catalog(s?)"), r"catalogue\1"),
]
#: British forms, and the American ones under which the dictionary has the word
BRITISH = [
    (re.compile(r"(\w+[iy])s(e|ed|es|er|ers|ing|ation|ations)"), r"\1z\2"),
    (re.compile(r"(\w+)our(\w*)"), r"\1or\2"),
    (re.compile(r"(\w+)tre(s?)"), r"\1ter\2"),
    (re.compile(r"(\w+)l(led|ling|ler)"), r"\1\2"),
]


def main(arguments: list[str]) -> int:
    """Print the unknown words of the named files, or of all that are checked. 0 if none."""
    add = "--add" in arguments
    named = [Path(name) for name in arguments if name != "--add"]
    unknown = {path: list(misspelt(path)) for path in named or checked_files()}
    for path, words in unknown.items():
        for word, context in words:
            print(f"{path}: {word}: {context}")
    count = sum(map(len, unknown.values()))
    print(f"unknown words: {count}")
    if add:
        new = {
            _stem(word).lower()
            for words in unknown.values()
            for word, _ in words
            if not british(word)
        }
        _write_words(word_list() | new)
    return 1 if count else 0


def checked_files() -> list[Path]:
    """Chapters (their scripts), pages, the package and its tools."""
    patterns = (
        "*.md",
        "notebooks/[0-9]*.py",
        "book/*.md",
        "benchmarks/*.md",
        "unet3d_tutorial/**/*.py",
        "tools/*.py",
    )
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def misspelt(path: Path) -> Iterator[tuple[str, str]]:
    """Each unknown word of a file, once, with the words around it."""
    seen = set()
    for text in texts(path):
        for found in WORD.finditer(text):
            word = found.group().replace("’", "'")
            if word not in seen and not known(word):
                seen.add(word)
                better = british(word)
                hint = f"(British: {better}) " if better else ""
                yield (
                    word,
                    hint + text[max(0, found.start() - 40) : found.end() + 40].replace("\n", " "),
                )


def texts(path: Path) -> Iterator[str]:
    """The prose of a file, without code, addresses and names of files."""
    if path.suffix == ".md":
        source = [path.read_text(encoding="utf-8")]
    elif path.name[0].isdigit():
        source = [cell.source for cell in read_script(path).cells if cell.cell_type == "markdown"]
    else:
        yield from (NO_PROSE.sub(" ", text) for text in _docstrings_and_comments(path))
        return
    for block in blocks(source):
        if block.section != "References":
            yield NO_PROSE.sub(" ", block.text)


def _docstrings_and_comments(path: Path) -> Iterator[str]:
    code = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
            text := ast.get_docstring(node)
        ):
            # Examples are code.
            yield CODE.sub(" ", re.sub(r"^ *>>>.*(?:\n *\S.*)*", "", text, flags=re.M))
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(("#!", "# noqa", "# %%")):
            yield CODE.sub(" ", token.string)


def known(word: str) -> bool:
    """Whether a word is right: short forms in capitals, names written in one, words of the list,
    British English.
    """
    if len(word) == 1 or sum(letter.isupper() for letter in word) > 1:
        return True
    stem = _stem(word)
    if stem.lower() in word_list():
        return True
    american = [
        found.expand(form)
        for british_form, form in BRITISH
        if (found := british_form.fullmatch(stem))
    ]
    return british(stem) is None and any(map(dictionary().lookup, [stem, *american]))


def _stem(word: str) -> str:
    return re.sub(r"'s?$", "", word)


def british(word: str) -> str | None:
    """The British form of an American word, or ``None``."""
    for american, form in AMERICAN:
        found = american.fullmatch(_stem(word).lower())
        if found:
            return found.expand(form)
    return None


@cache
def dictionary() -> Dictionary:
    """The American dictionary that spylls brings."""
    return Dictionary.from_files("en_US")


@cache
def word_list() -> frozenset[str]:
    """The project's own words, in small letters."""
    return frozenset(WORDS.read_text(encoding="utf-8").split())


def _write_words(words: frozenset[str]) -> None:
    WORDS.write_text("".join(f"{word}\n" for word in sorted(words)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
