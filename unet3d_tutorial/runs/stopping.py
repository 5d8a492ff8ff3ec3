"""A run that is asked to stop finishes its step first."""

import signal
import threading
from collections.abc import Mapping
from typing import Any


class StopRequest:
    """Notice Ctrl-C, or SIGTERM from a cluster, so that the step can be finished first.

    The second signal stops at once. MindSpore puts its own handler in the place of Python's
    whenever it runs a graph, and that one turns Ctrl-C into SIGTERM. So the loop listens to both,
    and calls :meth:`listen` again before each step.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.is_asked = False
        self.former_handlers = {number: signal.getsignal(number) for number in self.SIGNALS}

    def listen(self) -> None:
        """Put our handlers in place, unless a signal has already come."""
        if not self.is_asked:
            _set_handlers(dict.fromkeys(self.SIGNALS, self._note))

    def _note(self, *_: Any) -> None:
        self.is_asked = True
        _set_handlers(self.former_handlers)

    def __enter__(self) -> "StopRequest":
        return self

    def __exit__(self, *_: Any) -> None:
        _set_handlers(self.former_handlers)


def _set_handlers(handlers: Mapping[signal.Signals, Any]) -> None:
    # Python allows it in the main thread only.
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)
