"""Run an exercise's solution and its check inside a chapter.

The cells that ``exercises.py`` adds to its copies do so. This module stands alone, because a
chapter's kernel does not find the other tools.
"""

from IPython import get_ipython
from IPython.utils.capture import capture_output

RIGHT = "Right"


def try_solution(number: int, solution: str, check: str) -> None:
    """Run solution and check as cells of this kernel, then put back every name that they bound.

    Raises ``AssertionError`` with what the check printed, if it does not begin with "Right", and
    what a cell raises.
    """
    shell = get_ipython()
    names = dict(shell.user_ns)
    try:
        with capture_output():
            shell.run_cell(solution).raise_error()
        with capture_output() as printed:
            shell.run_cell(check).raise_error()
    finally:
        shell.user_ns.clear()
        shell.user_ns.update(names)
    if not printed.stdout.startswith(RIGHT):
        raise AssertionError(
            f"exercise {number}: the check does not call the solution right; "
            f"it prints {printed.stdout!r}"
        )
