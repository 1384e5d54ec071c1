"""When a study was computed, for how long and in how much memory, over all its sessions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from common.errors import CheckpointError
from common.files import read_json, write_json

FILE = "sessions.json"


@dataclass
class Session:
    """One time at which a study's cells were computed.

    Attributes
    ----------
    folder : Path
        The study's.
    began : datetime
        When.
    slots : int
        How many cells at once, at the most.
    memory : int
        Largest memory of all cells together, in bytes.
    """

    folder: Path
    began: datetime
    slots: int
    memory: int = 0

    def note_memory(self, memory: int) -> None:
        """Take note of what all cells take now, in bytes."""
        self.memory = max(self.memory, memory)

    def write(self) -> None:
        """Write down that it has lasted until now, so that a kill loses little of it.

        Raises
        ------
        RunError
            If it cannot be written.
        """
        now = {
            "began": self.began.isoformat(timespec="seconds"),
            "ended": _now().isoformat(timespec="seconds"),
            "slots": self.slots,
            "peak_memory_bytes": self.memory,
        }
        others = [one for one in _read(self.folder) if one["began"] != now["began"]]
        write_json(self.folder / FILE, [*others, now])


@dataclass(frozen=True)
class Sessions:
    """All of them.

    Attributes
    ----------
    count : int
        How many.
    seconds : float
        Of all together.
    slots, memory : int
        The most cells at once, and the most memory at once in bytes.
    """

    count: int
    seconds: float
    slots: int
    memory: int


@contextmanager
def session(folder: Path, slots: int) -> Iterator[Session]:
    """Note when computing began and when it ended, however it ends."""
    now = Session(folder, _now(), slots)
    try:
        yield now
    finally:
        now.write()


def read_sessions(folder: Path) -> Sessions | None:
    """Return what a study's sessions took together; None if there was none."""
    told = _read(folder)
    if not told:
        return None
    read = datetime.fromisoformat
    spans = [read(one["ended"]) - read(one["began"]) for one in told]
    return Sessions(
        len(told),
        sum(spans, timedelta()).total_seconds(),
        max(int(one["slots"]) for one in told),
        max(int(one["peak_memory_bytes"]) for one in told),
    )


def _read(folder: Path) -> Sequence[dict[str, Any]]:
    """Return what is written down; a record that cannot be read is no reason to stop."""
    try:
        held: list[dict[str, Any]] = read_json(folder / FILE) if (folder / FILE).exists() else []
    except CheckpointError:
        return []
    return held


def _now() -> datetime:
    return datetime.now().astimezone()
