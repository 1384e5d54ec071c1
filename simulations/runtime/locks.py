"""What guards a run: Ctrl-C ends it between two steps, and no two processes write one folder."""

import fcntl
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from common.errors import RunError
from common.signals import handling


@contextmanager
def stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM, as a batch system sends it) into a question to ask.

    Yields
    ------
    callable
        Whether somebody has asked to stop. A second signal interrupts at once.
    """
    asked = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    with handling(ask, signal.SIGINT, signal.SIGTERM):
        yield asked.is_set


@contextmanager
def alone_in(folder: Path, what: str = "the run") -> Iterator[None]:
    """Hold a folder for this process; the lock goes with the process, however it ends.

    Parameters
    ----------
    folder : Path
        Of a run, a comparison or a study.
    what : str
        Which of them, for the error's sentence.

    Raises
    ------
    RunError
        If another process holds it.
    """
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"Another process is writing {what} {folder}; wait for it.") from error
        yield
