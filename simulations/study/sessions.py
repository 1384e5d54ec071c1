"""When a study was computed, for how long and in how much memory, over all its sessions."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter

from common.files import write_atomic

FILE = "sessions.json"


@dataclass(frozen=True)
class Session:
    """A time at which a study's cells were computed."""

    began: datetime
    ended: datetime
    """When."""
    slots: int
    """How many cells at once, at the most."""
    peak_memory_bytes: int
    """Largest memory of all cells together."""


_SESSIONS = TypeAdapter(list[Session])


def note_session(folder: Path, began: datetime, slots: int, memory: int) -> None:
    """Write down that a session has lasted until now, so that a kill loses little of it.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    others = [one for one in read_sessions(folder) if one.began != began]
    ended = datetime.now().astimezone().replace(microsecond=0)
    sessions = [*others, Session(began, ended, slots, memory)]
    write_atomic(folder / FILE, _SESSIONS.dump_json(sessions, indent=2))


def read_sessions(folder: Path) -> list[Session]:
    """Return a study's sessions; a record that cannot be read is no reason to stop."""
    try:
        return _SESSIONS.validate_json((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return []
