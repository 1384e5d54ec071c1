"""``metrics.csv``: one row for each round, site and subset."""

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from common.errors import CheckpointError
from common.files import write_atomic
from common.tasks.figures import NAMES

NAN = math.nan
PATIENT = "patient"


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

    def cells(self) -> list[Any]:
        """Return it as a line of the table."""
        about, after = _OTHERS[:4], _OTHERS[4:]
        return [
            *(getattr(self, name) for name in about),
            *self.figures.values(),
            *(getattr(self, name) for name in after),
        ]


_OTHERS = tuple(item.name for item in fields(MetricsRow) if item.name != "figures")
COLUMNS = (*_OTHERS[:4], *NAMES, *_OTHERS[4:])


def _lines(rows: Sequence[MetricsRow], header: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    writer.writerows(row.cells() for row in rows)
    return text.getvalue()


def write_rows(path: Path, rows: Sequence[MetricsRow]) -> None:
    """Write the whole table, atomically."""
    write_atomic(path, _lines(rows, header=True).encode())


def append_rows(path: Path, rows: Sequence[MetricsRow]) -> None:
    """Append rows to a table that is there, and wait until they are on the disk."""
    with path.open("a") as file:
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
        whole, _, _ = path.read_text().rpartition("\n")
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


@dataclass(frozen=True)
class PredictionsTable:
    """One subset of a site's predictions.

    Attributes
    ----------
    files : tuple of str
        (n,) paths below the site's folder.
    labels : ndarray of int64
        (n,) label of each image.
    probabilities : ndarray of float64
        (n, classes)
    classes : tuple of str
        Names of the classes, in label order.
    patients : tuple of (str or None)
        (n,) patient of each image, where known.
    further : mapping of str to ndarray of float64
        (n,) each: what further targets are (``true/…``), and what was decided (``decided/…``).
    """

    files: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    classes: tuple[str, ...]
    patients: tuple[str | None, ...] = ()
    further: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def positive(self) -> NDArray[np.float64]:
        """(n,) probability of the positive class, for figures that need one.

        Raises
        ------
        ValueError
            Unless there are two classes.
        """
        if len(self.classes) != 2:
            raise ValueError(f"Of {len(self.classes)} classes none is the positive one.")
        return self.probabilities[:, 1]

    def by_name(self) -> "PredictionsTable":
        """Return the same in the order of the images' names, whoever wrote it."""
        order = np.argsort(np.array(self.files, dtype=np.str_))
        return replace(
            self,
            files=tuple(self.files[place] for place in order),
            labels=self.labels[order],
            probabilities=self.probabilities[order],
            patients=tuple(self.patients[place] for place in order) if self.patients else (),
            further={name: values[order] for name, values in self.further.items()},
        )


def write_predictions(
    path: Path,
    files: Sequence[str],
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    subset: str,
    patients: Sequence[str | None] = (),
    further: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Write one subset's predictions, atomically; rows of other subsets stay.

    Columns: ``file``, ``patient``, ``label`` (the class's name), ``subset``, then one column a
    class, then those of further targets, whose names hold a slash as no class's does.

    Parameters
    ----------
    path : Path
        The table.
    files, labels, probabilities, classes, patients
        As of :class:`PredictionsTable`.
    subset : str
        Which.
    further : mapping of str to ndarray, optional
        (n,) or (n, values) each: a column, or one a value.
    """
    columns = dict(_columns(further or {}))
    header = ["file", PATIENT, "label", "subset", *classes, *columns]
    patients = patients or [None] * len(files)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    if path.exists():
        writer.writerows(row for row in _kept(path, header) if row[3] != subset)
    values = [*np.asarray(probabilities).T, *columns.values()]
    for file, who, label, *row in zip(files, patients, labels, *values, strict=True):
        numbers = (repr(float(value)) for value in row)
        writer.writerow([file, who or "", classes[int(label)], subset, *numbers])
    write_atomic(path, text.getvalue().encode())


def read_predictions(path: Path, subset: str) -> PredictionsTable:
    """Read one subset of a table that :func:`write_predictions` wrote.

    Raises
    ------
    CheckpointError
        If the file is missing or is not such a table.
    """
    try:
        header, *rows = _rows(path)
        # A table of before patients were written has none.
        known = header[1:2] == [PATIENT]
        first = 4 if known else 3
        classes = tuple(name for name in header[first:] if "/" not in name)
        chosen = [row for row in rows if row[first - 1] == subset]
        values = np.array([[float(cell) for cell in row[first:]] for row in chosen], np.float64)
        values = values.reshape(len(chosen), len(header) - first)
        return PredictionsTable(
            files=tuple(row[0] for row in chosen),
            labels=np.array([classes.index(row[first - 2]) for row in chosen], dtype=np.int64),
            probabilities=np.ascontiguousarray(values[:, : len(classes)]),
            classes=classes,
            patients=tuple(row[1] or None for row in chosen) if known else (),
            further={
                name: values[:, place]
                for place, name in enumerate(header[first:])
                if place >= len(classes)
            },
        )
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise CheckpointError(f"Cannot read the predictions in {path}: {error}.") from error


def _columns(further: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    for name, values in further.items():
        if values.ndim == 1:
            yield name, values
        else:
            yield from ((f"{name}/{place}", column) for place, column in enumerate(values.T))


def _kept(path: Path, header: list[str]) -> list[list[str]]:
    """Return the rows of a table; what is damaged is not worth a run's last step."""
    try:
        first, *rows = _rows(path)
        return [row for row in rows if first == header and len(row) == len(header)]
    except (OSError, ValueError, csv.Error):
        return []


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))
