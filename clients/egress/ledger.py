"""A site's ledger: what left it, when, how much, and what was held back.

::

    ledger/ledger-0001.jsonl  …   one JSON object a line, one line a message
    ledger/head.json              how many lines there are, and the hash of the last one

A line is written, and is on the disk, before its message leaves. It holds the SHA-256 of the line
before it, so that no byte of the past can change unnoticed; when a file is full the next one goes
on with the same chain. Who may write here may also write it all anew, or leave out the end:
against that, note the last hash now and then where nobody at this machine can change it, and ask
:func:`verify` for it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.errors import LedgerError, RunError
from common.files import locked, why, write_atomic
from common.formatting.from_json import from_json

BEGINNING = "0" * 64
"""What stands for the hash of the line before the first one."""
FULL = 16 * 2**20
"""Bytes after which a ledger goes on in a new file."""
BLOCK = 2**16
OWNER_ONLY = 0o600


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


def enter(
    folder: Path,
    message: Message,
    allow: Callable[[Iterable[Entry]], None] | None = None,
) -> Entry:
    """Write a message into the ledger; when this returns, it is on the disk.

    A line that a killed process left half written belongs to a message that never left; it is
    taken away.

    Parameters
    ----------
    folder : Path
        The ledger's; made where it is missing, for its owner alone.
    message : Message
        What leaves, or was to leave.
    allow : callable, optional
        Is given the lines so far, and raises where the message shall not be entered. Nobody else
        enters anything meanwhile.

    Raises
    ------
    LedgerError
        If the ledger does not end as it should, or cannot be written. Then nothing may leave.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(folder / ".lock"):
            head = _recover(folder)
            if allow is not None:
                allow(entries(folder))
            entry = entry_after(head, message)
            _append(folder, entry.line())
            _write_head(folder, entry.head())
            return entry
    except (OSError, RunError) as error:
        reason = why(error, folder) if isinstance(error, OSError) else error
        raise LedgerError(
            f"The ledger {folder} cannot be written: {reason} Nothing leaves this site before it "
            "can."
        ) from error


def entries(folder: Path) -> Iterator[Entry]:
    """Read a ledger from its beginning, checking every line.

    Raises
    ------
    LedgerError
        Naming the file and the line at which it is not what was written.
    """
    head = Head(0, BEGINNING)
    for number, path in enumerate(_files(folder), start=1):
        if path.name != _name(number):
            raise LedgerError(f"{folder} lacks {_name(number)}; its next file is {path.name}.")
        for place, line in enumerate(_content(path).splitlines(keepends=True), start=1):
            entry = read_line(line, head, f"{path}, line {place}")
            head = entry.head()
            yield entry


def verify(folder: Path, containing: Sequence[str] = ()) -> Head:
    """Check a whole ledger.

    Parameters
    ----------
    folder : Path
        The ledger's.
    containing : sequence of str
        Hashes that were noted elsewhere and must be there.

    Returns
    -------
    Head
        How far it goes.

    Raises
    ------
    LedgerError
        If there is none, a byte of it has changed, its end is missing, or a noted hash is.
    """
    if not (folder / "head.json").exists():
        raise LedgerError(f"{folder} holds no ledger: there is no head.json in it.")
    missing, found = set(containing), Head(0, BEGINNING)
    for entry in entries(folder):
        found = entry.head()
        missing.discard(entry.hash)
    head = _read_head(folder)
    if found != head:
        raise LedgerError(
            f"The ledger {folder} ends with entry {found.entries} ({found.hash[:12]}…), but its "
            f"head.json says {head.entries} ({head.hash[:12]}…). Lines are missing, or were added "
            "by something else than xsite."
        )
    if missing:
        raise LedgerError(
            f"The ledger {folder} is whole in itself, but no entry has the hash "
            f"{', '.join(sorted(missing))}: it was written anew, or is another site's."
        )
    return head


def _recover(folder: Path) -> Head:
    """Return where the ledger ends, mending what a kill can leave and nothing else.

    A kill leaves half a line, or a line that the head does not know of yet.
    """
    files = _files(folder)
    if not files:
        if (folder / "head.json").exists():
            raise LedgerError(f"The ledger {folder} has a head.json but no lines: they were taken.")
        return Head(0, BEGINNING)
    known = (folder / "head.json").exists()
    head = _read_head(folder) if known else Head(0, BEGINNING)
    # A file that has just been begun may be empty.
    last = next((line for path in reversed(files) if (line := _tail(path)[0])), b"")
    end = _end_of(last) if last else Head(0, BEGINNING)
    if end.entries == head.entries + 1:
        read_line(last, head, f"The last line of {files[-1]}")
        _drop_half_line(files[-1])
        _write_head(folder, end)
        return end
    if end != head:
        raise LedgerError(
            f"The ledger {folder} should end with entry {head.entries} ({head.hash[:12]}…) but "
            f"ends with entry {end.entries}. Nothing leaves this site before that is explained: "
            "xsite ledger verify says more. Keep the folder, and name another one to go on."
        )
    # Not before: what does not end as it should stays as it is, for who looks at it.
    _drop_half_line(files[-1])
    return head


def _end_of(line: bytes) -> Head:
    """Return what a line says of its place; -1 if it is no line of a ledger."""
    try:
        return from_json(Entry, line).head()
    except ValueError:
        return Head(-1, "")


def _drop_half_line(path: Path) -> None:
    _, half = _tail(path)
    if half:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - len(half))
            os.fsync(file.fileno())


def _tail(path: Path) -> tuple[bytes, bytes]:
    """Return a file's last whole line, and the half one after it, each perhaps empty.

    No more is read than that needs: a ledger grows to megabytes, and every message asks for this.
    """
    with path.open("rb") as file:
        start, tail = file.seek(0, os.SEEK_END), b""
        # Where the line before ends, the last whole one begins.
        while start and tail.count(b"\n") < 2:
            length = min(BLOCK, start)
            start -= length
            file.seek(start)
            tail = file.read(length) + tail
    end = tail.rfind(b"\n") + 1
    begin = tail.rfind(b"\n", 0, max(0, end - 1)) + 1
    return tail[begin:end], tail[end:]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LedgerError(f"Cannot read {path}: {error.strerror or error}.") from error


def _append(folder: Path, line: bytes) -> None:
    files = _files(folder)
    begun = bool(files) and files[-1].stat().st_size < FULL
    path = files[-1] if begun else folder / _name(len(files) + 1)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, OWNER_ONLY)
    with os.fdopen(descriptor, "ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("ledger-*.jsonl"))


def _name(number: int) -> str:
    return f"ledger-{number:04d}.jsonl"


def _write_head(folder: Path, head: Head) -> None:
    write_atomic(folder / "head.json", canonical(asdict(head)) + b"\n", mode=OWNER_ONLY)


def _read_head(folder: Path) -> Head:
    path = folder / "head.json"
    written = _content(path)
    with suppress(ValueError):
        head = from_json(Head, written)
        if written == canonical(asdict(head)) + b"\n":
            return head
    raise LedgerError(f"{path} was changed after it was written.")


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
