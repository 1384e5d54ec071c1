"""Folders of runs, read back: to predict, to go on, to compare."""

import json
import math
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from tests.corpus import tensors
from tests.corpus.case import Case
from tests.corpus.tensors import MISFITS, UNREADABLE

NEWEST = "checkpoint/unfinished/round-0003.safetensors"
OLDER = "checkpoint/round-0002.safetensors"
DONE = "memory/done"
"""What a round that was stopped says of what is done of it."""
SHARED, PRIVATE = "shared.safetensors", "sites/a/private.safetensors"


def at(file: str, spoil: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return what spoils one file of a run's folder."""

    def make(run: Path) -> None:
        assert (run / file).exists(), file
        spoil(run / file)

    return make


def says(text: str | bytes) -> Callable[[Path], object]:
    """Return what writes a text over a file."""
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


def result(**values: object) -> Callable[[Path], object]:
    """Return what changes result.json."""
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | values))


def line(number: int, old: str, new: str) -> Callable[[Path], object]:
    """Return what changes a text in a line of a table."""

    def spoil(path: Path) -> None:
        lines = path.read_text().splitlines(keepends=True)
        assert old in lines[number]
        lines[number] = lines[number].replace(old, new, 1)
        path.write_text("".join(lines))

    return spoil


def cut_short(held: dict[str, Tensor]) -> None:
    """Leave out the end of what is done."""
    held[DONE] = held[DONE][:3].clone()


DEEP = "[" * 100_000
PREDICTED = (
    Case("no config.toml", "half a copy", at("config.toml", Path.unlink), "There is no run"),
    Case("config.toml empty", "a full disk", at("config.toml", says("")), "no site of the run"),
    Case(
        "config.toml Latin-1", "edited", at("config.toml", says(b"# \xfc")), "config.toml is not T"
    ),
    Case(
        "config.toml of later",
        "of a later version",
        at("config.toml", says("folds = 3\nquantum = true")),
        r"'quantum' \(in .*config\.toml\)",
    ),
    *(
        Case(f"weights: {name}", why, at(SHARED, spoil), r"shared\.safetensors")
        for name, why, spoil in (*UNREADABLE, *MISFITS)
    ),
    Case("no private tensors", "they stay at the hospital", at(PRIVATE, Path.unlink), "is missing"),
    *(
        Case(f"private: {name}", why, at(PRIVATE, spoil), r"a/private\.safetensors")
        for name, why, spoil in (*UNREADABLE[:2], *MISFITS)
    ),
    Case(
        "another site's private tensors",
        "copied to the wrong place",
        lambda run: (run / PRIVATE).write_bytes((run / "sites/b/private.safetensors").read_bytes()),
        r"a/private\.safetensors",
    ),
)
"""To be predicted with."""
ENDED = (
    Case("no result", "half a copy", at("result.json", Path.unlink), r"result\.json"),
    Case("result: 0 bytes", "a full disk", at("result.json", says("")), r"result\.json"),
    Case("result: a list", "another program", at("result.json", says("[]")), r"result\.json"),
    Case("result: brackets", "a stack ends", at("result.json", says(DEEP)), r"result\.json"),
    Case("result: not UTF-8", "edited", at("result.json", says(b'{"a": "\xfc"}')), r"result\.json"),
    Case("result: no mode", "edited", at("result.json", result(mode=None)), "not pooled"),
    Case("result: a mode of a list", "edited", at("result.json", result(mode=[1])), "not pooled"),
)
"""To be gone on with, though they have ended."""
BOTH = tuple(
    Case(
        f"both: {name}",
        why,
        lambda run, spoil=spoil: [spoil(file) for file in (run / "checkpoint").glob("*.s*")],
        r"round-000\d\.safetensors",
    )
    for name, why, spoil in (*UNREADABLE, *MISFITS)
)
INTERRUPTED = (
    *BOTH,
    *(
        Case(f"newest: {name}", why, at(NEWEST, spoil))
        for name, why, spoil in (*UNREADABLE[:3], *MISFITS[2:])
    ),
    *(
        Case(f"newest: {name}", "of another version", at(NEWEST, spoil))
        for name, spoil in (
            ("no position", tensors.changed(lambda held, _: held.pop(DONE))),
            ("position cut short", tensors.changed(lambda held, _: cut_short(held))),
            ("position of NaN", tensors.changed(lambda held, _: held[DONE].fill_(math.nan))),
            ("position before the start", tensors.changed(lambda held, _: held[DONE].fill_(-9))),
        )
    ),
    Case(
        "another configuration's",
        "copied to the wrong place",
        at(NEWEST, tensors.saying("config", "0" * 64)),
    ),
    Case(
        "a copy by hand",
        "kept to be safe",
        lambda run: (run / NEWEST.replace("3.", "3 (1).")).write_bytes((run / NEWEST).read_bytes()),
    ),
    Case(
        "metrics: a line cut",
        "a kill",
        at("metrics.csv", lambda p: p.write_text(p.read_text()[:-9])),
    ),
    Case("metrics: text", "edited", at("metrics.csv", line(1, "1,", "one,")), r"metrics\.csv"),
    Case("metrics: no header", "edited", at("metrics.csv", line(0, "round", "r")), r"metrics\.csv"),
    Case("metrics: not UTF-8", "edited", at("metrics.csv", says(b"\xff\xfe\0")), r"metrics\.csv"),
    Case("environment: a list", "edited", at("environment.json", says("[]")), r"environment\.json"),
    Case(
        "environment: gone", "half a copy", at("environment.json", Path.unlink), "environment.json"
    ),
)
"""To be gone on with."""
