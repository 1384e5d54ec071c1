"""Checkpoints of the coordinator, spoilt before a run is resumed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from tests.corpus.case import Case
from tests.corpus.tensors import MISFITS, UNREADABLE, Spoil, changed, saying

NEWEST, FORMER = "round-0002.safetensors", "round-0001.safetensors"


def newest(spoil: Spoil) -> Callable[[Path], None]:
    return lambda folder: spoil(folder / NEWEST)


def both(spoil: Spoil) -> Callable[[Path], None]:
    """Return what spoils both checkpoints."""

    def make(folder: Path) -> None:
        for name in (NEWEST, FORMER):
            spoil(folder / name)

    return make


def state(**values: Any) -> Spoil:
    """Return what changes what a checkpoint says of the run; None takes it away."""

    def change(_: dict[str, Tensor], about: dict[str, str]) -> None:
        told = json.loads(about["state"]) | values
        about["state"] = json.dumps({k: v for k, v in told.items() if v is not None})

    return changed(change)


STRANGE: tuple[tuple[str, str, Spoil], ...] = (
    ("no state", "another version", saying("state", None)),
    ("state: a list", "another version", saying("state", [])),
    ("state: brackets", "a parser's stack ends", saying("state", "[" * 100_000)),
    ("a round of text", "edited", state(round="two")),
    ("another round", "a copy under another name", state(round=9)),
    ("a negative round", "edited", state(round=-2)),
    ("seconds of text", "edited", state(seconds="1")),
    ("completed of lists", "edited", state(completed={"north": [1]})),
    ("completed to come", "edited", state(completed={"north": 9, "south": 2})),
    ("no round", "another version", state(round=None)),
    ("images: a list", "another version", state(began_with=[])),
    ("images of text", "another version", state(began_with={"north": "12", "south": "8"})),
    ("prototypes of numbers", "another version", saying("prototypes", [1, 2])),
    ("prototypes of a stranger", "another run's", saying("prototypes", ["east"])),
)
CHECKPOINTS = (
    *(
        Case(f"newest: {name}", why, newest(spoil))
        for name, why, spoil in (*UNREADABLE[:2], *MISFITS, *STRANGE)
    ),
    *(
        Case(f"both: {name}", why, both(spoil), r"round-000\d\.safetensors")
        for name, why, spoil in (*UNREADABLE, *MISFITS, *STRANGE)
    ),
    Case(
        "another configuration's",
        "copied to the wrong place",
        newest(saying("config", "0" * 64)),
        "belongs to another configuration",
    ),
    Case(
        "other images",
        "a folder changed",
        newest(state(began_with={"north": 11, "south": 8})),
        "north has 12 training images; at the start of the run it had 11",
    ),
    Case(
        "a copy by hand",
        "kept to be safe",
        lambda folder: shutil.copy(folder / NEWEST, folder / "round-0002 (1).safetensors"),
    ),
    Case(
        "a name without a number",
        "kept to be safe",
        lambda folder: shutil.copy(folder / FORMER, folder / "round-old.safetensors"),
    ),
)
