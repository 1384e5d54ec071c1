"""Ledgers that were damaged, or that somebody wrote by hand."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clients.egress.ledger import canonical
from tests.corpus.case import Case

LINES, HEAD = "ledger-0001.jsonl", "head.json"
Change = Callable[[list[bytes]], list[bytes]]


def lines(change: Change) -> Callable[[Path], None]:
    """Return what changes the lines and leaves the head."""

    def make(ledger: Path) -> None:
        held = (ledger / LINES).read_bytes().splitlines(keepends=True)
        (ledger / LINES).write_bytes(b"".join(change(held)))

    return make


def head(content: bytes) -> Callable[[Path], None]:
    """Return what writes another head."""
    return lambda ledger: (ledger / HEAD).write_bytes(content)


def forged(**values: Any) -> Callable[[Path], None]:
    """Return what changes the last line, and hash and head with it: a chain that is whole."""

    def make(ledger: Path) -> None:
        *before, last = (ledger / LINES).read_bytes().splitlines()
        told = json.loads(last) | values
        told.pop("hash")
        told["hash"] = hashlib.sha256(canonical(told)).hexdigest()
        (ledger / LINES).write_bytes(b"\n".join([*before, canonical(told), b""]))
        about = {"entries": len(before) + 1, "hash": told["hash"]}
        (ledger / HEAD).write_bytes(canonical(about) + b"\n")

    return make


def replaced(file: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return what puts something in a file's place."""

    def spoil(ledger: Path) -> None:
        (ledger / file).unlink()
        make(ledger / file)

    return spoil


def nested(depth: int) -> bytes:
    return b'{"number":' + b"[" * depth + b"]" * depth + b"}\n"


PART = {"record": "r", "name": "n", "shape": [], "dtype": "text", "size": 1, "sha256": "0"}
IS_NONE, CHANGED = "is no entry of a ledger", "was changed after it was written"
LEDGERS = (
    Case("no lines", "taken away", lambda one: (one / LINES).unlink(), "ends with entry 0"),
    Case("no head", "taken away", lambda one: (one / HEAD).unlink(), "holds no ledger"),
    Case("0 bytes", "a full disk", lines(lambda held: []), "ends with entry 0"),
    Case("a line cut off", "a kill", lines(lambda held: [*held[:-1], held[-1][:99]]), IS_NONE),
    Case("no line's end", "an editor", lines(lambda held: [*held[:-1], held[-1][:-1]]), CHANGED),
    Case("two lines changed places", "sorted", lines(lambda h: [h[1], h[0], *h[2:]]), "not follow"),
    Case("a line twice", "copied", lines(lambda held: [*held, held[-1]]), "does not follow"),
    Case("an empty line", "an editor", lines(lambda held: [held[0], b"\n", *held[1:]]), IS_NONE),
    Case("junk at the end", "a full disk", lines(lambda held: [*held, bytes(100), b"\n"]), IS_NONE),
    Case("not UTF-8", "a damaged disk", lines(lambda held: [*held, b'"\xff"\n']), IS_NONE),
    Case("CRLF", "an editor", lines(lambda h: [one[:-1] + b"\r\n" for one in h]), CHANGED),
    Case(
        "NaN",
        "JSON knows none",
        lines(lambda h: [h[0].replace(b'"size":', b'"size":NaN,"z":'), *h[1:]]),
        IS_NONE,
    ),
    Case(
        "size NaN",
        "JSON has none",
        lines(lambda h: [*h[:-1], h[-1].replace(b'"round":4', b'"round":NaN')]),
        IS_NONE,
    ),
    Case(
        "100,000 brackets", "a stack ends", lines(lambda h: [*h, b"[" * 100_000 + b"\n"]), IS_NONE
    ),
    Case("900 brackets", "a stack nearly ends", lines(lambda h: [*h, nested(900)]), IS_NONE),
    Case("a text", "not an object", lines(lambda held: [b'"entry"\n']), IS_NONE),
    Case(
        "another second file",
        "misnamed",
        lambda one: (one / "ledger-0009.jsonl").write_bytes(b""),
        "lacks ledger-0002",
    ),
    Case("lines are a folder", "in the file's place", replaced(LINES, Path.mkdir), "Cannot read"),
    Case(
        "lines link to themselves",
        "the wrong way",
        replaced(LINES, lambda p: p.symlink_to(p)),
        "Cannot read",
    ),
    Case("head: 0 bytes", "a full disk", head(b""), CHANGED),
    Case("head: a list", "another program", head(b"[]\n"), CHANGED),
    Case("head: brackets", "a stack ends", head(b"[" * 100_000), CHANGED),
    Case("head: a number for a hash", "by hand", head(b'{"entries":5,"hash":5}\n'), CHANGED),
    Case("head: text for a number", "by hand", head(b'{"entries":"5","hash":"ab"}\n'), CHANGED),
    Case("head: a list for a number", "by hand", head(b'{"entries":[5],"hash":"ab"}\n'), CHANGED),
    Case(
        "head: more lines",
        "it lies",
        head(b'{"entries":9,"hash":"' + b"a" * 64 + b'"}\n'),
        "ends with entry 5",
    ),
    Case("head: a folder", "in the file's place", replaced(HEAD, Path.mkdir), "Cannot read"),
    Case("forged: a number for a time", "by hand", forged(time=5), IS_NONE),
    Case("forged: text for a size", "by hand", forged(size="large"), IS_NONE),
    Case("forged: a list for a run", "by hand", forged(run=["run"]), IS_NONE),
    Case("forged: true for a number", "by hand", forged(round=True), IS_NONE),
    Case("forged: parts of text", "by hand", forged(parts=["weights"]), IS_NONE),
    Case("forged: a part's size", "by hand", forged(parts=[PART | {"size": "1"}]), IS_NONE),
    Case("forged: a key more", "by hand", forged(remark="all is well"), IS_NONE),
    Case("forged: a time that is none", "by hand", forged(time="soon")),
)
"""Of a ledger of five lines. The last one is odd but whole: what is written is shown."""
