"""Handlers of signals for the length of a block."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def handling(handler: "signal._HANDLER", *numbers: signal.Signals) -> Iterator[None]:
    """Handle signals in a way of one's own within a block, and as before after it.

    In another thread than the main one nothing changes: Python lets the main thread alone set
    handlers, and delivers signals to it alone.

    Parameters
    ----------
    handler : callable or signal.SIG_IGN or signal.SIG_DFL
        As for :func:`signal.signal`.
    *numbers : signal.Signals
        Which.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
