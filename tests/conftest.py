"""What all tests stand on."""

import gc
import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start too;
# but how xsite takes it is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """Take a worker more than there are processors: slow tests wait for what they start.

    Returns
    -------
    int
        What ``-n auto`` means.
    """
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of most slow tests, so that no worker is left with one at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Keep Ctrl-C from being lost where Python cannot raise it.

    Hypothesis has the garbage collector call it; what is raised during that call is ignored.
    """
    kept = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = kept
