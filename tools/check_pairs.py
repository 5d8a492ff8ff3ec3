"""Hold stored notebooks to their scripts and to the book's rules.

``python tools/check_pairs.py [SCRIPT ...]``

A notebook and its script must have the same cells; the notebook must have been executed from top to
bottom and hold nothing but content. Prints one line a defect, and how many chapters are sound.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from notebooks import CELL_METADATA, METADATA, VIEWER, read_script

MAX_LINES = 15  # of a code cell
MAX_IMAGE_BYTES = 200_000
MAX_NOTEBOOK_BYTES = 2_500_000  # without its slice viewer
MAX_VIEWER_BYTES = 2_500_000  # of one slice viewer
MAX_VIEWERS_BYTES = 3_000_000  # of all that a notebook stores
MACHINE_PATH = re.compile(r"(?<![\w.:/~])/(?:home|root|Users|tmp|work|private|opt|usr)/[\w./-]+")


def main(arguments: list[str]) -> int:
    """Check the named scripts, or all chapters. 0 if all is well."""
    scripts = [Path(name).with_suffix(".py") for name in arguments] or _all_chapters()
    failed = 0
    for script in scripts:
        found = list(defects(script))
        failed += bool(found)
        for defect in found:
            print(f"{script.with_suffix('.ipynb')}: {defect}")
    print(f"pairs: {len(scripts) - failed} passed, {failed} failed")
    return 1 if failed or not scripts else 0


def _all_chapters() -> list[Path]:
    found = [*Path("notebooks").glob("[0-9]*.py"), *Path("notebooks").glob("[0-9]*.ipynb")]
    return sorted({path.with_suffix(".py") for path in found})


def defects(script: Path) -> Iterator[str]:
    """All that is wrong with one chapter, in words."""
    stored = script.with_suffix(".ipynb")
    for path in (script, stored):
        if not path.is_file():
            yield f"{path} is missing; tools/execute.py makes the notebook from the script"
            return
    notebook, expected = nbformat.read(stored, as_version=4), read_script(script)
    yield from _size_defects(stored.stat().st_size, [len(page) for page in _viewers(notebook)])
    yield from _difference(notebook, expected)
    if notebook.metadata != METADATA:
        yield f"metadata is {dict(notebook.metadata)}, expected {METADATA}"
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    if counts != list(range(1, len(counts) + 1)):
        yield f"not executed from top to bottom: the cells' counts are {counts}"
    for index, cell in enumerate(notebook.cells):
        for defect in _cell_defects(cell):
            yield f"cell {index} ({cell.source.strip()[:60].partition(chr(10))[0]}): {defect}"


def _viewers(notebook: NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            page = output.get("data", {}).get("text/html", "")
            if page.startswith(VIEWER):
                yield page


def _size_defects(size: int, viewers: list[int]) -> Iterator[str]:
    if viewers and (max(viewers) > MAX_VIEWER_BYTES or sum(viewers) > MAX_VIEWERS_BYTES):
        yield (
            f"slice viewers of {viewers} bytes, expected at most {MAX_VIEWER_BYTES} each, "
            f"{MAX_VIEWERS_BYTES} together: give them a smaller max_bytes"
        )
    rest = size - sum(viewers)
    if rest > MAX_NOTEBOOK_BYTES:
        yield f"{rest} bytes besides slice viewers, expected at most {MAX_NOTEBOOK_BYTES}"


def _difference(notebook: NotebookNode, expected: NotebookNode) -> Iterator[str]:
    """The first place where stored notebook and script part."""
    pairs = zip(notebook.cells, expected.cells, strict=False)
    for index, (cell, other) in enumerate(pairs):
        for part in ("cell_type", "source", "metadata", "id"):
            found, wanted = cell.get(part), other.get(part)
            if found != wanted:
                yield f"cell {index}: {part} is {found!r}, the script has {wanted!r}"
                return
    if len(notebook.cells) != len(expected.cells):
        yield f"{len(notebook.cells)} cells, the script has {len(expected.cells)}"


def _cell_defects(cell: NotebookNode) -> Iterator[str]:
    foreign = set(cell.metadata) - set(CELL_METADATA)
    if foreign:
        yield f"metadata {sorted(foreign)} is not content"
    if cell.cell_type != "code":
        return
    lines = len(cell.source.splitlines())
    if lines > MAX_LINES:
        yield f"{lines} lines, expected at most {MAX_LINES}: move the logic into the package"
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    for output in cell.outputs:
        yield from _output_defects(output, alt)


def _output_defects(output: NotebookNode, alt: str) -> Iterator[str]:
    if output.output_type == "error":
        yield f"ends in {output.ename}; catch the error that you mean to show, and print it"
        return
    data = output.get("data", {"text/plain": output.get("text", "")})
    for kind, content in data.items():
        if kind.startswith("image/"):
            size = len(content) * 3 // 4
            if size > MAX_IMAGE_BYTES:
                yield f"an image of {size} bytes, expected at most {MAX_IMAGE_BYTES}"
            if len(alt) < 10:
                yield (
                    "an image without alternative text: "
                    'add mystnb={"image": {"alt": "..."}} to the cell'
                )
        elif "widget" in kind:
            yield f"a widget ({kind}), which is blank without a kernel"
        elif (
            isinstance(content, str)
            and not content.startswith(VIEWER)
            and (path := MACHINE_PATH.search(content))
        ):
            yield f"shows a path of the machine it ran on: {path.group()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
