"""What a case of the corpus is, and how one is put to the command line."""

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from numpy.typing import NDArray

from simulations.cli import app
from tests.simulations.tiny import SETTINGS

TINY = [
    part
    for key, value in SETTINGS.items()
    for part in ("--set", f"{key.replace('_', '-')}={value}")
]
WRONG = {1, 2}
"""Exit codes of an error that was foreseen: in the input, or in the configuration."""


@dataclass(frozen=True)
class Case:
    """Something malformed, or odd.

    Attributes
    ----------
    name : str
        Short, and the test's id.
    why : str
        How a person or a machine comes to make such a thing, or what it would do.
    make : callable
        Writes it into the folder that it is given.
    said : str
        A regular expression that the sentence must match; "" where the thing is odd but valid.
    shows : callable, optional
        Returns the greys that an odd but valid image shows, (height, width) of each of its frames.
    rows : mapping, optional
        Class and patient of each image of an odd but valid site.
    """

    name: str
    why: str
    make: Callable[[Path], None]
    said: str = ""
    shows: Callable[[], Sequence[NDArray[Any]]] | None = None
    rows: Mapping[str, tuple[str, str | None]] | None = None


def ids(cases: Sequence[Case]) -> list[str]:
    """Return the names, for pytest."""
    return [case.name for case in cases]


def held(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return everything below a folder: its mode, and its bytes or where it links to."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            inside = b""
            if stat.S_ISLNK(mode):
                inside = os.fsencode(path.readlink())
            elif stat.S_ISREG(mode):
                inside = path.read_bytes()
            found[str(path)] = (mode, inside)
    return found


def call(*words: object) -> Result:
    """Call the command ``xsite``."""
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(said: str, *words: object) -> Result:
    """Call ``xsite`` and check that it ends in one sentence that says so."""
    done = call(*words)
    assert done.exit_code in WRONG, (done.exit_code, done.output)
    assert_sentence(done.stderr, said)
    assert "Traceback" not in done.output
    return done


def assert_sentence(text: str, said: str) -> None:
    """Check that a text is one line, which matches and holds no control character."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text), repr(text)
    assert "Traceback" not in text and "Error(" not in text
    assert len(text) < LONGEST, len(text)
    assert re.search(said, lines[0]), text


LONGEST = 2000
"""Characters of a sentence that somebody reads."""
