"""Handlers of signals for the length of a block."""

import os
import signal
import threading
from types import FrameType

import pytest

from common.signals import handling


def test_a_block_has_its_own_handler_and_gives_the_old_ones_back() -> None:
    met: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        met.append(number)

    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(RuntimeError, match="an error"), handling(note, *numbers):
        for number in numbers:
            os.kill(os.getpid(), number)
        raise RuntimeError("an error")
    assert met == list(numbers)
    assert [signal.getsignal(number) for number in numbers] == before


def test_another_thread_changes_nothing() -> None:
    found: list[object] = []

    def within() -> None:
        with handling(signal.SIG_IGN, signal.SIGUSR1):
            found.append(signal.getsignal(signal.SIGUSR1))

    before = signal.getsignal(signal.SIGUSR1)
    thread = threading.Thread(target=within)
    thread.start()
    thread.join()
    assert found == [before]
