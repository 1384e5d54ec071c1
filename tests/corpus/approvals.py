"""What a site was asked for (approvals), as a person finds it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.corpus.case import Case

FILE = "north.run.json"
DAMAGED = r"north\.run\.json is damaged; remove it"


def says(content: bytes) -> Callable[[Path], None]:
    """Return what writes another file."""
    return lambda folder: (folder / FILE).write_bytes(content)


def with_values(**values: Any) -> Callable[[Path], None]:
    """Return what changes values of the file."""

    def make(folder: Path) -> None:
        told = json.loads((folder / FILE).read_text()) | values
        (folder / FILE).write_text(json.dumps({k: v for k, v in told.items() if v is not None}))

    return make


def a_folder(folder: Path) -> None:
    (folder / FILE).unlink()
    (folder / FILE).mkdir()


APPROVALS = (
    Case("0 bytes", "a full disk", says(b""), DAMAGED),
    Case("cut short", "a full disk", says(b'{"run": "run", '), DAMAGED),
    Case("a list", "another program", says(b"[]"), DAMAGED),
    Case("not UTF-8", "edited", says(b'{"run": "\xff"}'), DAMAGED),
    Case("brackets", "a parser's stack ends", says(b"[" * 100_000), DAMAGED),
    Case("a folder", "in the file's place", a_folder, DAMAGED),
    Case("a key less", "another version", with_values(code=None), DAMAGED),
    Case("a key more", "another version", with_values(signed="yes"), DAMAGED),
    Case("a number for a time", "edited", with_values(asked=5), DAMAGED),
    Case("a list for settings", "edited", with_values(settings=["epochs"]), DAMAGED),
    Case("a table in settings", "edited", with_values(settings={"epochs": {"n": 3}}), DAMAGED),
    Case("approved by a number", "edited", with_values(approved_by=7), DAMAGED),
    Case("true for approved", "a yes without a time", with_values(approved=True), DAMAGED),
    Case("leads elsewhere", "its yes would be written there", with_values(site="../../x"), DAMAGED),
    Case("another run's", "copied", with_values(run="other"), DAMAGED),
)
