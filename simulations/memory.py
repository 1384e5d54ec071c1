"""Memory of processes and all that descends from them, and what this machine has to give."""

from contextlib import suppress
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def tree_memory(root: psutil.Process) -> int:
    """Return the memory of a process and its descendants, in bytes.

    Parameters
    ----------
    root : psutil.Process
        The first process.

    Returns
    -------
    int
        Sum of proportional set sizes (PSS): a page that processes share counts once. Where the
        system does not tell these, of resident set sizes, which count it for each.
    """
    total = 0
    with suppress(psutil.Error):
        for process in (root, *root.children(recursive=True)):
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
