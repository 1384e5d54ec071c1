"""A table of predictions is read as it was written."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import CheckpointError
from common.runs.predictions import PredictionsTable, read_predictions, write_predictions


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    table = tmp_path / "sites" / "a" / "predictions.csv"
    classes = ("non-covid", "covid")
    files = ['covid/a, "b".png', "non-covid/ä.png"]
    probabilities = np.array([[0.1, 0.9], [1 / 3, 2 / 3]])
    told = {
        "test": PredictionsTable(files, np.array([1, 0]), probabilities, classes),
        "validation": PredictionsTable(["v.png"], np.array([1]), probabilities[:1], classes),
    }
    write_predictions(table, told)
    found = read_predictions(table, "test")
    assert found.files == tuple(files) and found.classes == classes
    assert found.labels.tolist() == [1, 0]
    assert (found.probabilities == probabilities).all()
    assert read_predictions(table, "validation").files == ("v.png",)
    assert read_predictions(table, "other").probabilities.shape == (0, 2)


def test_predictions_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="absent"):
        read_predictions(tmp_path / "absent.csv", "test")
    (tmp_path / "odd.csv").write_text("file,label,subset,x\n1,z,test,0.5\n")
    with pytest.raises(CheckpointError, match=r"odd\.csv"):
        read_predictions(tmp_path / "odd.csv", "test")
    with pytest.raises(ValueError, match="zip"):
        write_predictions(
            tmp_path / "x.csv", {"test": PredictionsTable(["a"], np.array([0, 1]), np.eye(2), "xy")}
        )
