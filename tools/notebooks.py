"""What the other tools share: reading a chapter's script, and cleaning a notebook so that only its content is left."""

from pathlib import Path

import jupytext
from nbformat import NotebookNode

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
METADATA = {"jupytext": {"formats": "ipynb,py:percent"}, "kernelspec": KERNEL, "language_info": {"name": "python"}}
#: cell metadata that means something; everything else is a trace of somebody's editor or clock
CELL_METADATA = ("tags", "mystnb")
#: an output that needs a kernel; the page that is stored after it does not
WIDGET = "application/vnd.jupyter.widget-view+json"


def read_script(path: Path) -> NotebookNode:
    """The notebook that a percent-format script describes, without outputs and with stable cell ids."""
    return clean(jupytext.read(path, fmt="py:percent"))


def clean(notebook: NotebookNode) -> NotebookNode:
    """Drop, in place, what changes from one execution or editor to the next; the outputs themselves stay."""
    notebook.metadata = NotebookNode(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index:03d}"
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in CELL_METADATA if key in cell.metadata})
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if list(output.get("data", {})) != [WIDGET]]
        for output in cell.get("outputs", []):
            output.pop("transient", None)
            if "metadata" in output:
                output.metadata = NotebookNode()
    return notebook
