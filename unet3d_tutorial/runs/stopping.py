"""Let a run finish its current step before it stops."""

import signal
import threading
from collections.abc import Mapping
from typing import Any


class StopRequest:
    """Note Ctrl-C, or SIGTERM from a cluster, so that the current step can be finished first.

    A second signal stops the run at once. Whenever MindSpore runs a graph, it replaces Python's
    handler by its own, which turns Ctrl-C into SIGTERM. So the training loop handles both signals,
    and calls :meth:`listen` again before each step.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.is_asked = False
        self.former_handlers = {number: signal.getsignal(number) for number in self.SIGNALS}

    def listen(self) -> None:
        """Install our handlers, unless a signal has already arrived."""
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
    # Python allows this only in the main thread.
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)
