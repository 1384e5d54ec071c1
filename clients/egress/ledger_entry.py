"""A line of a site's ledger: what it holds, how it is written, and how a change of it is seen."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from common.errors import LedgerError
from common.formatting.from_json import from_json

BEGINNING = "0" * 64
"""What stands for the hash of the line before the first one."""


@dataclass(frozen=True)
class LedgerPart:
    """One thing in a message: a tensor, a number or a text."""

    record: str
    name: str
    """Where in the message it lies."""
    shape: tuple[int, ...]
    """Of a tensor; empty otherwise."""
    dtype: str
    """``"float32"`` and the like; ``"text"``."""
    size: int
    """Its length in bytes: of a tensor or a number its values, of a text its UTF-8."""
    sha256: str
    """Of these bytes."""


@dataclass(frozen=True)
class Release:
    """Gaussian noise on one kind of thing in a message."""

    record: str
    """On what: the name of the record in which it lies."""
    multiplier: float
    """Its standard deviation, as a multiple of how far other images could move the value."""
    times: int
    """How many such values there are, each with noise of its own."""


@dataclass(frozen=True)
class Noise:
    """All noise in a message."""

    unit: str
    """What is protected: ``"site"``, all of a site's images together."""
    delta: float
    """At which δ the site tells its ε."""
    releases: tuple[Release, ...]
    """On what there is noise."""


@dataclass(frozen=True)
class Message:
    """What is to be entered."""

    site: str
    run: str
    """Their names."""
    round: int
    """The round; 0 at the join request, and where it is not known."""
    message: str
    """What kind of answer it is."""
    verdict: str
    """``"sent"`` or ``"held back"``."""
    reason: str
    """Why it was held back."""
    size: int
    """Bytes of the whole message's content as it is sent; 0 if it was held back."""
    parts: tuple[LedgerPart, ...]
    """All that is in it, or was to be."""
    noise: Noise | None = field(default=None, kw_only=True)
    """What of it has noise, where something has; a line of the ledger lacks the key otherwise."""


@dataclass(frozen=True)
class Entry(Message):
    """A line of the ledger: a message, and its place."""

    number: int
    """Its place, from 1."""
    time: str
    """ISO 8601, UTC."""
    previous: str
    hash: str
    """SHA-256 of the line before, and of this one without this key."""

    def line(self) -> bytes:
        """Return the line, with its end."""
        return canonical(self._told()) + b"\n"

    def digest(self) -> str:
        """Return what its hash must be."""
        told = self._told()
        del told["hash"]
        return hashlib.sha256(canonical(told)).hexdigest()

    def head(self) -> "Head":
        """Return how far a ledger goes that ends with it."""
        return Head(self.number, self.hash)

    def _told(self) -> dict[str, Any]:
        told = asdict(self)
        if self.noise is None:
            del told["noise"]
        return told


@dataclass(frozen=True)
class Head:
    """How far a ledger goes: number of lines, hash of the last one."""

    entries: int
    hash: str


def entry_after(head: Head, message: Message) -> Entry:
    """Return the entry of a message that comes after a ledger's end."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = Entry(**vars(message), number=head.entries + 1, time=time, previous=head.hash, hash="")
    return replace(entry, hash=entry.digest())


def read_line(line: bytes, before: Head, where: str) -> Entry:
    """Return a line's entry.

    Parameters
    ----------
    line : bytes
        The line, with its end.
    before : Head
        How far the ledger goes before it.
    where : str
        What to call it in an error.

    Raises
    ------
    LedgerError
        If a byte of it is not what was written, or it does not follow.
    """
    try:
        entry = from_json(Entry, line)
    except ValueError as error:
        raise LedgerError(f"{where} is no entry of a ledger. It was changed.") from error
    if entry.line() != line or entry.digest() != entry.hash:
        raise LedgerError(f"{where} (entry {before.entries + 1}) was changed after it was written.")
    if entry.number != before.entries + 1 or entry.previous != before.hash:
        raise LedgerError(
            f"{where} does not follow entry {before.entries}: lines are missing, or were moved."
        )
    return entry


def canonical(value: Any) -> bytes:
    """Return the one way in which a value is written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
