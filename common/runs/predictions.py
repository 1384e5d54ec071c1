"""``predictions.csv``: what a network said of each image of a site, and what is true."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import CheckpointError
from common.files import write_atomic

PATIENT = "patient"


@dataclass(frozen=True)
class PredictionsTable:
    """One subset of a site's predictions."""

    files: tuple[str, ...]
    """(n,) paths below the site's folder."""
    labels: NDArray[np.int64]
    """(n,) label of each image."""
    probabilities: NDArray[np.float64]
    """(n, classes)"""
    classes: tuple[str, ...]
    """Names of the classes, in label order."""
    patients: tuple[str | None, ...] = ()
    """(n,) patient of each image, where known."""
    further: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """(n,) each: what further targets are (``true/…``), and what was decided (``decided/…``)."""

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


def write_predictions(path: Path, told: Mapping[str, PredictionsTable]) -> None:
    """Write a site's predictions by subset, atomically.

    Columns: ``file``, ``patient``, ``label`` (the class's name), ``subset``, then one column a
    class, then those of further targets, whose names hold a slash as no class's does. Of further
    values of shape (n, values) each has a column.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, (subset, table) in enumerate(told.items()):
        columns = dict(_columns(table.further))
        if number == 0:
            writer.writerow(["file", PATIENT, "label", "subset", *table.classes, *columns])
        patients = table.patients or [None] * len(table.files)
        values = [*table.probabilities.T, *columns.values()]
        for file, who, label, *row in zip(
            table.files, patients, table.labels, *values, strict=True
        ):
            numbers = (repr(float(value)) for value in row)
            writer.writerow([file, who or "", table.classes[int(label)], subset, *numbers])
    write_atomic(path, text.getvalue().encode())


def read_predictions(path: Path, subset: str) -> PredictionsTable:
    """Read one subset of a table that :func:`write_predictions` wrote.

    Raises
    ------
    CheckpointError
        If the file is missing or is not such a table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
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
