"""Read a chapter's script, and clean a notebook so that only its content is left.

The other tools share this.
"""

from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": KERNEL,
    "language_info": {"name": "python"},
}
#: cell metadata that means something; everything else is a trace of somebody's editor or clock
CELL_METADATA = ("tags", "mystnb")
#: an output that needs a kernel; the page that is stored after it does not
WIDGET = "application/vnd.jupyter.widget-view+json"
#: how the page of a stored slice viewer begins
VIEWER = "<div data-slice-viewer>"


def read_script(path: Path) -> NotebookNode:
    """The notebook that a percent-format script describes, without outputs and with stable cell
    ids.
    """
    return clean(jupytext.read(path, fmt="py:percent"))


def clean(notebook: NotebookNode) -> NotebookNode:
    """Drop, in place, what changes from one execution or editor to the next; the outputs themselves
    stay.
    """
    notebook.metadata = NotebookNode(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index:03d}"
        cell.metadata = NotebookNode(
            {key: cell.metadata[key] for key in CELL_METADATA if key in cell.metadata}
        )
        if "outputs" in cell:
            cell.outputs = [
                output for output in cell.outputs if list(output.get("data", {})) != [WIDGET]
            ]
        for output in cell.get("outputs", []):
            output.pop("transient", None)
            if "metadata" in output:
                output.metadata = NotebookNode()
    return notebook


def all_notebooks() -> list[Path]:
    """The stored notebooks of all chapters, in reading order."""
    return sorted(Path(__file__).parents[1].glob("notebooks/[0-9]*.ipynb"))


def read(path: Path) -> NotebookNode:
    """A stored notebook."""
    return nbformat.read(path, as_version=4)


def markdown(notebook: NotebookNode) -> list[str]:
    """The text of each Markdown cell."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def cell_text(cell: NotebookNode) -> str:
    """What a reader sees of a code cell: its code, and the text of its outputs.

    Empty for other cells.
    """
    if cell.cell_type != "code":
        return ""
    volatile = "nbval-ignore-output" in cell.metadata.get("tags", [])
    return "\n".join([cell.source, *([] if volatile else map(output_text, cell.outputs))])


def output_text(output: NotebookNode) -> str:
    """The text of one output, without its pictures and without pages of HTML that hold data."""
    data = output.get("data", {"text/plain": output.get("text", "")})
    kinds = ("text/markdown", "text/html", "text/plain", "text/latex")
    return "\n".join(
        data[kind] for kind in kinds if kind in data and not data[kind].startswith(VIEWER)
    )
