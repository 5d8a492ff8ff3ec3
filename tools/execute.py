"""Execute chapters: ``python tools/execute.py notebooks/01_config.py ... --to FOLDER``.

Each script becomes FOLDER/NAME.ipynb with its outputs. The cells run with ``notebooks/`` as the
working folder, as in JupyterLab. A notebook is written to a temporary name and renamed, so that a
half-executed one is never left behind.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from notebooks import clean, read_script

QUIET_KERNEL = ["--IPKernelApp.log_level=ERROR"]


def execute(script: Path, folder: Path, timeout_s: int) -> None:
    """Run one chapter from a fresh kernel and write its notebook.

    Raises what nbclient raises if a cell fails.
    """
    notebook = read_script(script)
    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        kernel_name="python3",
        extra_arguments=QUIET_KERNEL,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(script.parent)}},
    )
    client.execute()
    target = folder / script.with_suffix(".ipynb").name
    part = target.with_name(target.name + ".part")
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(clean(notebook), part)
    os.replace(part, target)


def main() -> int:
    """Execute every named script; stop at the first that fails and say which cell it was."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scripts", nargs="+", type=Path)
    parser.add_argument("--to", required=True, type=Path, help="folder for the executed notebooks")
    parser.add_argument(
        "--timeout", type=int, default=1800, help="seconds that one cell may take (%(default)s)"
    )
    args = parser.parse_args()
    for script in args.scripts:
        print(f"  {script} ...", end=" ", flush=True)
        start = time.perf_counter()
        try:
            execute(script, args.to, args.timeout)
        except (CellExecutionError, DeadKernelError, TimeoutError) as error:
            print(f"failed\n{error}", file=sys.stderr)
            return 1
        print(f"{time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
