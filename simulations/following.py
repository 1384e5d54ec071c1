"""Following a federated run from outside: its log, its sites' progress, its rounds' figures.

All of it is read from files that the server and the sites write; nothing is asked of them.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.metrics_table import MetricsRow, read_rows
from simulations.progress import Report

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# The last line of a traceback: the exception's name and what it says.
_ERROR = re.compile(r"^[\w.]*(?:Error|Exception): (.+)$", re.MULTILINE)


class LogCopy:
    """The copy of a server's output in its run's folder, which the server makes at its leisure.

    Parameters
    ----------
    source : Path
        File that grows.
    run : Path
        The run's folder; what comes before it exists is kept until then.
    """

    def __init__(self, source: Path, run: Path) -> None:
        self._source = source
        self._run = run
        self._copied = 0

    def update(self) -> None:
        """Append what is new to ``log.txt``, without the colours of a terminal."""
        # config.toml is what makes a folder a run; the server is writing the others until then.
        if not (self._run / "config.toml").exists() or not self._source.exists():
            return
        with self._source.open("rb") as file:
            file.seek(self._copied)
            new, newline, _ = file.read().rpartition(b"\n")
        if newline:
            with (self._run / "log.txt").open("a") as log:
                log.write(_plain(new + newline))
            self._copied += len(new) + 1

    def last_error(self) -> str:
        """Return what the last exception in the output says, or ``""``."""
        text = _plain(self._source.read_bytes()) if self._source.exists() else ""
        errors: list[str] = _ERROR.findall(text)
        return errors[-1].strip() if errors else ""


@dataclass(frozen=True)
class SiteProgress:
    """What a site wrote into its ``progress.json``."""

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
    sites : sequence of str
        The sites' names.
    report : Report
        Who is told.
    """

    def __init__(self, run: Path, sites: Sequence[str], report: Report) -> None:
        self._run = run
        self._sites = sites
        self._report = report
        # A resumed run's earlier rounds are no news.
        self._told = {row.round for row in read_rows(run / "metrics.csv")}
        self._stale = {name: _modified(self._progress_file(name)) for name in sites}
        self._total = 0

    def update(self) -> None:
        """Read the files and tell what is new."""
        self._tell_rounds()
        progress = [found for name in self._sites if (found := self._read(name)) is not None]
        if not progress:
            return
        if self._total == 0:
            self._total = max(site.total_steps for site in progress)
            self._report.start(f"federated training of {len(self._sites)} sites", self._total)
        # The round ends when the slowest site does, so its steps are the run's.
        slowest = min(progress, key=lambda site: site.step)
        done = slowest.step if len(progress) == len(self._sites) else 0
        speed = sum(site.images_per_second for site in progress)
        self._report.step(done, slowest.loss, speed)

    def _tell_rounds(self) -> None:
        by_round: dict[int, list[MetricsRow]] = defaultdict(list)
        for row in read_rows(self._run / "metrics.csv"):
            if row.round not in self._told and row.subset == "test":
                by_round[row.round].append(row)
        for number, rows in sorted(by_round.items()):
            self._told.add(number)
            self._report.message(f"round {number}: {'; '.join(_figures(row) for row in rows)}")

    def _progress_file(self, site: str) -> Path:
        return self._run / "sites" / site / "progress.json"

    def _read(self, site: str) -> SiteProgress | None:
        path = self._progress_file(site)
        if _modified(path) == self._stale[site]:
            return None
        try:
            said = json.loads(path.read_text())
            return SiteProgress(
                int(said["step"]),
                int(said["total_steps"]),
                float(said["loss"]),
                float(said["images_per_second"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            # Progress is a courtesy; the run does not depend on it.
            return None


def _figures(row: MetricsRow) -> str:
    parts = [f"{row.site} accuracy {row.accuracy:.3f}"]
    if math.isfinite(row.auc):
        parts.append(f"AUC {row.auc:.3f}")
    return " ".join(parts)


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _plain(output: bytes) -> str:
    return _COLOURS.sub("", output.decode(errors="replace"))
