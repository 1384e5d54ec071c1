"""Following a federated run from outside: what the server says, how far the sites are.

All of it is read from files that the server and the sites write; nothing is asked of them.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.console.progress import ProgressListener
from common.formatting.from_json import from_json

SERVER_OUTPUT = "flower.txt"
"""File in a run's folder that takes the output of Flower, Ray, server and sites."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# The last line of a traceback: the exception's name and what it says.
_ERROR = re.compile(r"^[\w.]*(?:Error|Exception): (.+)$", re.MULTILINE)
_REFERENCE = re.compile(r"reference ([0-9a-f]{8})")
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\S+  ", re.MULTILINE)


class Tail:
    """What is new in a file that grows, whole lines only.

    Parameters
    ----------
    path : Path
        The file, which may not exist yet.
    skip : bool
        Take what it holds by now as read.
    """

    def __init__(self, path: Path, skip: bool = False) -> None:
        self._path = path
        self._position = path.stat().st_size if skip and path.exists() else 0

    def read(self) -> bytes:
        """Return the whole lines since the last call."""
        if not self._path.exists():
            return b""
        with self._path.open("rb") as file:
            file.seek(self._position)
            lines, newline, _ = file.read().rpartition(b"\n")
        self._position += len(lines) + len(newline)
        return lines + newline


def copy_output(new: Tail, run: Path) -> None:
    """Append what is new of a server's output to a run's ``flower.txt``, without colours.

    The server makes the run's folder in its own time; until it is there, the output waits.
    """
    # config.toml is what makes a folder a run; until it is there the server makes the others.
    if (run / "config.toml").exists() and (output := new.read()):
        # It is a courtesy; that the disk is full is told where something depends on it.
        with suppress(OSError), (run / SERVER_OUTPUT).open("a", encoding="utf-8") as file:
            file.write(_plain(output))


def last_error(log: Path) -> str:
    """Return what the last exception in a server's output says, or ``""``."""
    errors: list[str] = _ERROR.findall(_plain(log.read_bytes()))
    return errors[-1].strip() if errors else ""


def what_sites_say(folders: Iterable[Path], reason: str) -> str:
    """Return what the sites' own logs say of the references in a server's reason.

    A site tells its server a reference and no more, since an exception's text may name patients.
    On one machine, whoever reads the reason may read the sites' logs as well.

    Parameters
    ----------
    folders : iterable of Path
        The sites' own.
    reason : str
        With references as :mod:`clients.client_errors` writes them.

    Returns
    -------
    str
        A sentence for each, or ``""``.
    """
    said = []
    for reference in _REFERENCE.findall(reason):
        for folder in folders:
            log = folder / "log.txt"
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            _, _, after = text.partition(f"reference {reference}: ")
            # The exception's text ends where the next line with a time begins.
            if errors := _ERROR.findall(_TIME.split(after, maxsplit=1)[0]):
                said.append(f"{folder.name} says: {errors[-1]}")
    return " ".join(said)


@dataclass(frozen=True)
class SiteProgress:
    """What a site wrote into its ``progress.json``."""

    round: int
    step: int
    total_steps: int
    loss: float
    images_per_second: float


class RunWatch:
    """Tells a report what the files in a run's folder say.

    Parameters
    ----------
    run : Path
        The run's folder, which may not exist yet.
    folders : sequence of Path
        The sites' own, of the sites' names.
    listener : ProgressListener
        Who is told.
    at_once : int
        How many sites train at a time; where these are fewer, they take turns.
    """

    def __init__(
        self,
        run: Path,
        folders: Sequence[Path],
        listener: ProgressListener,
        at_once: int,
    ) -> None:
        self._files = [folder / "progress.json" for folder in folders]
        self._report = listener
        self._share = min(1.0, at_once / len(folders))
        # What was said before a resumption is no news.
        self._said = Tail(run / "log.txt", skip=True)
        self._stale = {file: _modified(file) for file in self._files}
        self._total = self._done = 0

    def update(self) -> None:
        """Read the files and tell what is new."""
        for line in self._said.read().decode(errors="replace").splitlines():
            # The time in front is for those who read it later.
            self._report.message(line.partition("  ")[2])
        progress = [found for file in self._files if (found := self._read(file)) is not None]
        if not progress:
            return
        # The round ends when the slowest site does, so its steps are the run's.
        slowest = min(progress, key=lambda site: site.step)
        if self._total == 0:
            self._total = max(site.total_steps for site in progress)
            self._report.start(f"federated training of {len(self._files)} sites", self._total)
            # Not 0: a resumed run would seem to have done its earlier steps in no time.
            self._done = slowest.step
        if len(progress) == len(self._files):
            self._done = slowest.step
        speed = sum(site.images_per_second for site in progress) * self._share
        self._report.step(self._done, slowest.loss, speed)

    def _read(self, path: Path) -> SiteProgress | None:
        if _modified(path) == self._stale[path]:
            return None
        # Progress is a courtesy; the run does not depend on it.
        with suppress(OSError, ValueError):
            return from_json(SiteProgress, path.read_text(encoding="utf-8"))
        return None


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _plain(output: bytes) -> str:
    return _COLOURS.sub("", output.decode(errors="replace"))
