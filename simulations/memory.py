"""The memory that processes take, and what this machine has left to give."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def memory_of(processes: Iterable[psutil.Process]) -> int:
    """Return the memory of processes together, in bytes.

    Parameters
    ----------
    processes : iterable of psutil.Process
        Those that have ended count nothing.

    Returns
    -------
    int
        Sum of proportional set sizes (PSS): a page that processes share counts once. Where the
        system does not tell these, of resident set sizes, which count it for each.
    """
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            info = process.memory_full_info()
            total += getattr(info, "pss", info.rss)
    return total


def free_memory() -> int:
    """Return the bytes that new processes may use: the machine's, or the container's if fewer."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        # Cached files count as used, but give way.
        statistics = dict(
            line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines()
        )
        used -= int(statistics.get("inactive_file", 0))
    except (OSError, ValueError):
        return available
    return available if limit == "max" else min(available, max(0, int(limit) - used))
