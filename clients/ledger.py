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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.errors import LedgerError
from common.files import locked, write_atomic

FULL = 16 * 2**20
"""Bytes after which a ledger goes on in a new file."""
BEGINNING = "0" * 64
"""What stands for the hash of the line before the first one."""
OWNER_ONLY = 0o600


@dataclass(frozen=True)
class Part:
    """One thing in a message: a tensor, a number or a text.

    Attributes
    ----------
    record, name : str
        Where in the message it lies.
    shape : tuple of int
        Of a tensor; empty otherwise.
    dtype : str
        ``"float32"`` and the like; ``"text"``.
    size : int
        Its length in bytes: of a tensor or a number its values, of a text its UTF-8.
    sha256 : str
        Of these bytes.
    """

    record: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: one message.

    Attributes
    ----------
    number : int
        Its place, from 1.
    time : str
        ISO 8601, UTC.
    site, run : str
        Their names.
    round : int
        The round; 0 at the roll call, and where it is not known.
    message : str
        What kind of answer it is.
    verdict : str
        ``"sent"`` or ``"held back"``.
    reason : str
        Why it was held back.
    size : int
        Bytes of the whole message's content as it is sent; 0 if it was held back.
    parts : tuple of Part
        All that is in it, or was to be.
    previous, hash : str
        SHA-256 of the line before, and of this one without this key.
    """

    number: int
    time: str
    site: str
    run: str
    round: int
    message: str
    verdict: str
    reason: str
    size: int
    parts: tuple[Part, ...]
    previous: str
    hash: str

    def line(self) -> bytes:
        """Return the line, with its end."""
        return _canonical(asdict(self)) + b"\n"


@dataclass(frozen=True)
class Message:
    """What is to be entered; the attributes are those of :class:`Entry`."""

    site: str
    run: str
    round: int
    message: str
    verdict: str
    reason: str
    size: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Head:
    """How far a ledger goes: number of lines, hash of the last one."""

    entries: int
    hash: str


def enter(folder: Path, message: Message, full: int = FULL) -> Entry:
    """Write a message into the ledger; when this returns, it is on the disk.

    A line that a killed process left half written belongs to a message that never left; it is
    taken away.

    Parameters
    ----------
    folder : Path
        The ledger's; made where it is missing, for its owner alone.
    message : Message
        What leaves, or was to leave.
    full : int
        Bytes after which a new file begins.

    Raises
    ------
    LedgerError
        If the ledger does not end as it should, or cannot be written. Then nothing may leave.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(folder / ".lock"):
            head = _recover(folder)
            body: dict[str, Any] = {
                "number": head.entries + 1,
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                **{one.name: getattr(message, one.name) for one in fields(Message)},
                "previous": head.hash,
            }
            told = {**body, "parts": [asdict(part) for part in message.parts]}
            entry = Entry(**body, hash=hashlib.sha256(_canonical(told)).hexdigest())
            _append(_file_for(folder, full), entry.line())
            _write_head(folder, Head(entry.number, entry.hash))
            return entry
    except OSError as error:
        raise LedgerError(
            f"The ledger {folder} cannot be written ({error.strerror or error}). Nothing leaves "
            "this site before it can: free some space, or mend the folder's permissions."
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
        for place, line in enumerate(_lines(path), start=1):
            entry = _read(line, head, f"{path}, line {place}")
            head = Head(entry.number, entry.hash)
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
        found = Head(entry.number, entry.hash)
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


def _read(line: bytes, before: Head, where: str) -> Entry:
    """Return a line's entry; LedgerError if a byte of it is not what was written."""
    try:
        value = json.loads(line)
        value["parts"] = tuple(
            Part(**part | {"shape": tuple(part["shape"])}) for part in value["parts"]
        )
        entry = Entry(**value)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise LedgerError(f"{where} is no entry of a ledger. It was changed.") from error
    told = asdict(entry)
    claimed = told.pop("hash")
    if entry.line() != line or hashlib.sha256(_canonical(told)).hexdigest() != claimed:
        raise LedgerError(f"{where} (entry {before.entries + 1}) was changed after it was written.")
    if entry.number != before.entries + 1 or entry.previous != before.hash:
        raise LedgerError(
            f"{where} does not follow entry {before.entries}: lines are missing, or were moved."
        )
    return entry


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
    _drop_half_line(files[-1])
    last = _last_line(files)
    if last is None:
        end = Head(0, BEGINNING)
    else:
        value = _loads(last)
        end = Head(value.get("number", -1), value.get("hash", ""))
        if end.entries == head.entries + 1:
            _read(last, head, f"The last line of {files[-1]}")
            _write_head(folder, end)
            return end
    if end != head:
        raise LedgerError(
            f"The ledger {folder} should end with entry {head.entries} ({head.hash[:12]}…) but "
            f"ends with entry {end.entries}. Nothing leaves this site before that is explained: "
            "xsite ledger verify says more. Keep the folder, and name another one to go on."
        )
    return head


def _drop_half_line(path: Path) -> None:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())


def _last_line(files: Sequence[Path]) -> bytes | None:
    """Return the last line; a file that has just been begun may be empty."""
    for path in reversed(files):
        lines = _lines(path)
        if lines:
            return lines[-1]
    return None


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise LedgerError(f"Cannot read {path}: {error.strerror or error}.") from error


def _file_for(folder: Path, full: int) -> Path:
    files = _files(folder)
    if files and files[-1].stat().st_size < full:
        return files[-1]
    return folder / _name(len(files) + 1)


def _append(path: Path, line: bytes) -> None:
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
    write_atomic(folder / "head.json", _canonical(asdict(head)) + b"\n", mode=OWNER_ONLY)


def _read_head(folder: Path) -> Head:
    path = folder / "head.json"
    try:
        written = path.read_bytes()
    except OSError as error:
        raise LedgerError(f"Cannot read {path}: {error.strerror or error}.") from error
    head = Head(**_loads(written)) if set(_loads(written)) == {"entries", "hash"} else None
    if head is None or written != _canonical(asdict(head)) + b"\n":
        raise LedgerError(f"{path} was changed after it was written.")
    return head


def _loads(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {}


def _canonical(value: Any) -> bytes:
    """Return the one way in which a value is written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
