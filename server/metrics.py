"""Figures of every round: ``metrics.csv``, a row a round, site and subset, and curves of them.

TensorBoard's own writer puts the host's name into a file's name; a run's folder is handed on. Where
TensorBoard is not installed, a run has no curves.
"""

import csv
import io
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import get_type_hints

import numpy as np

from common.errors import CheckpointError
from common.files import write_atomic
from common.tasks.figures import NAMES

try:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
    from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
except ModuleNotFoundError:
    TENSORBOARD = False
else:
    TENSORBOARD = True

NAN = math.nan


@dataclass(frozen=True)
class MetricsRow:
    """One row: the figures of one site's subset after one round.

    ``figures`` are those of :data:`common.tasks.figures.FIGURES`, by name. ``train_*`` are means
    over the round's steps; ``images_seen`` (the site's own, so far), ``seconds`` (so far) and bytes
    (of this round) are totals. NaN stands for "not defined".
    """

    round: int
    step: int
    site: str
    subset: str
    figures: Mapping[str, float] = field(default_factory=dict)
    train_loss: float = NAN
    train_cross_entropy: float = NAN
    train_contrastive: float = NAN
    images_seen: int = 0
    seconds: float = NAN
    bytes_down: int = 0
    bytes_up: int = 0

    def __post_init__(self) -> None:
        """Give every figure its place, in the registry's order."""
        whole = {name: float(self.figures.get(name, NAN)) for name in NAMES}
        object.__setattr__(self, "figures", whole)

    def scalars(self) -> dict[str, float]:
        """Return TensorBoard's tags and values; undefined ones are left out."""
        tags = {f"{self.subset}/{name}": value for name, value in self.figures.items()}
        tags |= {
            f"train/{name.removeprefix('train_')}": float(getattr(self, name))
            for name in ("train_loss", "train_cross_entropy", "train_contrastive", "images_seen")
        }
        return {tag: value for tag, value in tags.items() if math.isfinite(value)}


_OTHERS = tuple(item.name for item in fields(MetricsRow) if item.name != "figures")
COLUMNS = (*_OTHERS[:4], *NAMES, *_OTHERS[4:])


def _lines(rows: Sequence[MetricsRow], header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows({**vars(row), **row.figures} for row in rows)
    return text.getvalue()


def write_rows(path: Path, rows: Sequence[MetricsRow]) -> None:
    """Write the whole table, atomically."""
    write_atomic(path, _lines(rows, header=True).encode())


def append_rows(path: Path, rows: Sequence[MetricsRow]) -> None:
    """Append rows to a table that is there, and wait until they are on the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(_lines(rows, header=False))
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[MetricsRow]:
    """Read a table; a last line that a kill cut short is left out.

    A figure that its writer did not know is undefined.

    Returns
    -------
    list of MetricsRow
        Empty where there is no file yet.

    Raises
    ------
    CheckpointError
        If it is not such a table.
    """
    if not path.exists():
        return []
    kinds = get_type_hints(MetricsRow)
    try:
        whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
        return [
            MetricsRow(
                **{name: kinds[name](row[name]) for name in _OTHERS},
                figures={name: float(row[name]) for name in NAMES if name in row},
            )
            for row in csv.DictReader(io.StringIO(whole))
        ]
    # What a cell or a row lacks is a KeyError or a None.
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise CheckpointError(
            f"Cannot read the figures in {path} ({type(error).__name__}: {error}). Mend it, or "
            "move it away: the run can go on, without the figures of its earlier rounds."
        ) from error


class EventWriter:
    """One TensorBoard curve set: a folder to which every process adds a file of its own.

    Parameters
    ----------
    folder : Path
        Where the event files lie; TensorBoard shows the folder's name as the curve's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: Path | None = None

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append scalars of one step.

        The first call of a process also tells TensorBoard to forget what earlier processes wrote
        for this step and later ones, so that a resumed run's curves do not double back.

        Parameters
        ----------
        step : int
            The abscissa.
        scalars : mapping
            Value by tag.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        now = time.time()
        events = []
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = self._folder / f"events.out.tfevents.{time.time_ns():020d}"
            start = SessionLog(status=SessionLog.START)
            events.append(Event(wall_time=now, file_version="brain.Event:2"))
            events.append(Event(wall_time=now, step=step, session_log=start))
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        events.append(Event(wall_time=now, step=step, summary=Summary(value=values)))
        with self._file.open("ab") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())


def mean_defined(values: Iterable[float]) -> float:
    """Return the mean over the sites where a figure is defined, NaN where it is nowhere."""
    defined = [value for value in values if math.isfinite(value)]
    return float(np.mean(defined)) if defined else math.nan
