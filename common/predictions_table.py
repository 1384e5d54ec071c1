"""``predictions.csv``: a site's predicted probabilities, one row an image."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import CheckpointError
from common.files import write_atomic


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
    """

    files: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    classes: tuple[str, ...]

    def by_name(self) -> "PredictionsTable":
        """Return the same in the order of the images' names, whoever wrote it."""
        order = np.argsort(np.array(self.files, dtype=np.str_))
        return replace(
            self,
            files=tuple(self.files[place] for place in order),
            labels=self.labels[order],
            probabilities=self.probabilities[order],
        )


def write_predictions(
    path: Path,
    files: Sequence[str],
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    subset: str,
) -> None:
    """Write one subset's predictions, atomically; rows of other subsets stay.

    Columns: ``file``, ``label`` (the class's name), ``subset``, then one column a class.
    """
    header = ["file", "label", "subset", *classes]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    if path.exists():
        writer.writerows(row for row in _kept(path, len(header)) if row[2] != subset)
    for file, label, row in zip(files, labels, probabilities, strict=True):
        writer.writerow([file, classes[int(label)], subset, *(repr(float(p)) for p in row)])
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
        classes = tuple(header[3:])
        chosen = [row for row in rows if row[2] == subset]
        labels = [classes.index(row[1]) for row in chosen]
        probabilities = [[float(value) for value in row[3:]] for row in chosen]
        return PredictionsTable(
            files=tuple(row[0] for row in chosen),
            labels=np.array(labels, dtype=np.int64),
            probabilities=np.array(probabilities, np.float64).reshape(len(chosen), len(classes)),
            classes=classes,
        )
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise CheckpointError(f"Cannot read the predictions in {path}: {error}.") from error


def _kept(path: Path, columns: int) -> list[list[str]]:
    """Return the rows of a table; what is damaged is not worth a run's last step."""
    try:
        return [row for row in _rows(path)[1:] if len(row) == columns]
    except (OSError, ValueError, csv.Error):
        return []


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))
