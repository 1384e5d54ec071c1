"""Run folders, read back for a report."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.config.schema import Config
from common.errors import CheckpointError, RunError, XsiteError
from common.files import read_object
from common.runs.predictions import PredictionsTable, read_predictions
from common.runs.result import read_result, read_run_config
from server.metrics import MetricsRow, read_rows

Pair = tuple[int, int]
"""Fold and seed: what two runs of different modes must share to be compared."""


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder says."""

    path: Path
    """The folder."""
    config: Config
    """The run's configuration."""
    result: Mapping[str, Any]
    """``result.json``."""
    environment: Mapping[str, Any]
    """``environment.json``."""
    rows: tuple[MetricsRow, ...]
    """``metrics.csv``, the test subset alone: what a report speaks of."""
    weights: Literal["final", "best"] = "final"
    """Which weights' figures are told: the last step's, or those that validation chose."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def mode(self) -> str:
        """``"pooled"``, ``"federated"`` or ``"single"``."""
        return str(self.result.get("mode", ""))

    @property
    def pair(self) -> Pair:
        """Fold and seed."""
        return self.config.fold, self.config.seed

    @property
    def completed(self) -> bool:
        """Whether the run ended as it should; only then its figures count."""
        return self.result.get("status") == "completed"

    @property
    def seconds(self) -> float:
        """How long all rounds took; NaN where it does not say."""
        value = self.result.get("seconds")
        return math.nan if value is None else float(value)

    def figure(self, site: str, name: str) -> float:
        """Return a test figure of a site, such as ``"auc"`` or ``"auc_low"``; NaN if undefined."""
        told = self.result.get("metrics" if self.weights == "final" else "best") or {}
        value = told.get(site, {}).get("test", {}).get(name)
        return math.nan if value is None else float(value)

    def curve(self, site: str) -> list[MetricsRow]:
        """Return a site's rows, by step."""
        return sorted((row for row in self.rows if row.site == site), key=lambda row: row.step)

    @cached_property
    def predictions(self) -> dict[str, PredictionsTable]:
        """Predictions of test images in the order of their names, by site that has them."""
        name = "predictions.csv" if self.weights == "final" else "best-predictions.csv"
        found = {}
        for site in self.config.site_names:
            with suppress(CheckpointError):
                table = read_predictions(self.path / "sites" / site / name, "test")
                found[site] = table.by_name()
        return found


def read_record(path: Path) -> RunRecord:
    """Read one run's folder.

    Parameters
    ----------
    path : Path
        The folder of a run, finished or not.

    Raises
    ------
    RunError
        If it is no run's folder or cannot be read.
    """
    try:
        config = read_run_config(path)
        result = read_result(path)
        environment = read_object(path / "environment.json")
        rows = read_rows(path / "metrics.csv")
    except (OSError, ValueError, KeyError, XsiteError) as error:
        raise RunError(f"Cannot read the run {path}: {error}") from error
    tested = tuple(row for row in rows if row.subset == "test")
    return RunRecord(path, config, result, environment, tested)


def with_chosen_weights(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Let the runs tell of the weights that validation chose, if every completed one has them."""
    completed = [record for record in records if record.completed]
    chosen = completed and all(
        record.result.get("best", {}).get(site, {}).get("test")
        for record in completed
        for site in record.config.site_names
    )
    return [replace(record, weights="best" if chosen else "final") for record in records]


def has_every_class(table: PredictionsTable) -> bool:
    """Say whether there is an image of every class, as an AUC needs."""
    return len(np.unique(table.labels)) == len(table.classes)
