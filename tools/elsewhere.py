"""Run a notebook's cells with another Python.

Its first cell says ``%run tools/elsewhere.py .venv/bin/python notebooks``.

For services such as Google Colab, whose own Python is too new for MindSpore. From then on every
cell goes to a second kernel, which runs on the named Python in the named folder; what it prints and
draws comes back. Widgets do not: they need a connection of their own to the kernel that made them.
Only IPython and jupyter_client are needed here.
"""

import queue
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from IPython import get_ipython
from IPython.display import publish_display_data
from jupyter_client.manager import KernelManager

STARTUP_S = 180  #: a first start compiles many modules
KERNEL = ("-m", "ipykernel_launcher", "--IPKernelApp.log_level=ERROR", "-f", "{connection_file}")
WIDGET = "application/vnd.jupyter.widget-view+json"


def start(python: str, folder: str) -> Callable[[str], None]:
    """Start a kernel on ``python`` in ``folder``, and give the function that runs a cell's source
    in it.
    """
    if not Path(python).is_file():
        raise FileNotFoundError(
            f"{python}: expected a Python to run the cells with, found no such file"
        )
    manager = KernelManager()
    manager.kernel_spec.argv = [str(Path(python).absolute()), *KERNEL]
    manager.start_kernel(cwd=folder)
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=STARTUP_S)

    def run(source: str) -> None:
        try:
            reply = client.execute_interactive(
                source, allow_stdin=False, store_history=True, output_hook=show, timeout=None
            )
        except KeyboardInterrupt:
            manager.interrupt_kernel()
            raise
        except queue.Empty as error:
            raise RuntimeError("the kernel does not answer; run the first cell again") from error
        if reply["content"]["status"] == "error":
            raise CellFailed(reply["content"]["ename"])

    return run


class CellFailed(Exception):
    """A cell ended in an error, which stands above in full.

    Stops "run all", and shows no traceback of its own.
    """

    def _render_traceback_(self) -> list[str]:
        return []


def show(message: dict[str, Any]) -> None:
    """Repeat an output of the other kernel here."""
    kind, content = message["msg_type"], message["content"]
    if kind == "stream":
        print(content["text"], end="", file=getattr(sys, content["name"]), flush=True)
    elif kind == "error":
        print("\n".join(content["traceback"]), file=sys.stderr)
    elif kind in ("display_data", "execute_result", "update_display_data"):
        data = {name: value for name, value in content["data"].items() if name != WIDGET}
        publish_display_data(
            data,
            content["metadata"],
            transient=content.get("transient"),
            update=kind == "update_display_data",
        )


def redirect(run: Callable[[str], None]) -> None:
    """Send the source of every later cell to ``run``.

    Cells that begin with ``%`` or ``!`` stay here.
    """
    shell = get_ipython()
    shell.user_ns["_run_elsewhere"] = run

    def transform(lines: list[str]) -> list[str]:
        source = "".join(lines)
        if not source.strip() or source.lstrip().startswith(("%", "!", "get_ipython()")):
            return lines
        return [f"_run_elsewhere({source!r})\n"]

    shell.input_transformers_cleanup.append(transform)


if __name__ == "__main__":
    redirect(start(*sys.argv[1:3]))
    print(f"Every cell from here on runs with {sys.argv[1]}.")
