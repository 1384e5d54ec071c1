"""The cells that a report is of, by method, fold and seed, and the figures over them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from common.methods.method import Variant
from common.runs.predictions import PredictionsTable
from common.tasks.figures import FIGURES, NAMES, Figure, tabled
from server.metrics import mean_defined
from simulations.report.calibration import ReliabilityDiagram, reliability, specificity_at
from simulations.report.records import Pair, RunRecord
from simulations.report.statistics import (
    ALL_SITES,
    Difference,
    Summary,
    paired_difference,
    summarise,
)
from simulations.study.plan import StudyPlan

SPECIFICITY = "specificity at 95 % sensitivity"

Key = tuple[str, int, int]
"""A method's name, fold and seed."""


@dataclass(frozen=True)
class StudyResults:
    """What a study found."""

    plan: StudyPlan
    """What was to be run."""
    records: Mapping[Key, RunRecord]
    """The cells that are done."""
    missing: Mapping[str, str]
    """Cells that are not, by name: why they failed, or '' if they have not ended."""
    cells: Mapping[Key, Mapping[str, Any]]
    """What the cells that are done took, as their records say it: ``seconds`` by the clock, None
    where it is not known, and ``peak_memory_bytes``."""

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The sites, in the configuration's order."""
        return next((run.config.site_names for run in self.records.values()), ())

    @property
    def places(self) -> tuple[str, ...]:
        """The sites, and their mean where there are several."""
        return (*self.sites, ALL_SITES) if len(self.sites) > 1 else self.sites

    @cached_property
    def binary(self) -> bool:
        """Whether all runs tell two classes apart, of which the second is positive."""
        return all(len(run.config.class_names) == 2 for run in self.records.values())

    @cached_property
    def figures(self) -> tuple[Figure, ...]:
        """What tables of all these runs show, whatever their numbers of classes."""
        sizes = {len(run.config.class_names) for run in self.records.values()} or {2}
        return tuple(dict.fromkeys(figure for size in sorted(sizes) for figure in tabled(size)))

    def label(self, method: str) -> str:
        """Return how tables call a method."""
        return next(one.label for one in self.plan.methods if one.name == method)

    def runs(self, method: str) -> list[RunRecord]:
        """Return a method's cells."""
        return [run for (name, _, _), run in self.records.items() if name == method]

    def values(self, method: str, place: str, metric: str) -> dict[Pair, float]:
        """Return a test figure by fold and seed; the mean of the sites is the mean of theirs."""
        found = {}
        for (name, fold, seed), run in self.records.items():
            if name == method:
                sites = self.sites if place == ALL_SITES else (place,)
                held = [self._figure(run, site, metric) for site in sites]
                found[fold, seed] = mean_of_sites(metric, held)
        return found

    def summary(self, method: str, place: str, metric: str) -> Summary:
        """Return a test figure's mean and deviation over a comparison's runs, or a study's seeds.

        Of a comparison's single run the AUC comes with its bootstrap interval, which is then the
        only measure of uncertainty.
        """
        values = self.values(method, place, metric)
        if not self.plan.comparison:
            return self.over_seeds(values)
        found = summarise(values.values())
        if found.n != 1 or metric != "auc" or place == ALL_SITES:
            return found
        (pair,) = [pair for pair, value in values.items() if math.isfinite(value)]
        run = self.records[method, *pair]
        return replace(found, low=run.figure(place, "auc_low"), high=run.figure(place, "auc_high"))

    def difference(self, method: str, place: str, metric: str) -> Difference:
        """Return a method's test figure less the reference's, over pairs of runs."""
        reference = self.values(self.plan.reference, place, metric)
        return paired_difference(self.values(method, place, metric), reference)

    @property
    def others(self) -> tuple[Variant, ...]:
        """The methods that are held against the reference; none where there is no reference."""
        names = [method.name for method in self.plan.methods]
        if self.plan.reference not in names:
            return ()
        return tuple(method for method in self.plan.methods if method.name != self.plan.reference)

    def over_seeds(self, values: Mapping[Pair, float]) -> Summary:
        """Return mean and deviation over the seeds of the mean over all folds.

        A seed of which a fold is missing is left out: its mean would be of other images.
        """
        whole = [
            float(np.mean([values[fold, seed] for fold in self.plan.folds]))
            for seed in self.plan.seeds
            if all((fold, seed) in values for fold in self.plan.folds)
        ]
        return summarise(whole)

    def calibration(self, method: str, site: str) -> Summary:
        """Return the calibration error over all folds' test images, over the seeds."""
        found = [self.reliability(method, site, [seed]) for seed in self.plan.seeds]
        return summarise(one.error for one in found if one is not None)

    def reliability(
        self, method: str, site: str, seeds: Sequence[int]
    ) -> ReliabilityDiagram | None:
        """Hold every fold's predictions against what came true; None where there are none.

        The networks of different folds together: good for calibration, not for a ROC curve.
        """
        tables = self.tables(method, site, seeds)
        if not tables:
            return None
        labels = np.concatenate([table.labels for table in tables])
        return reliability(labels, np.concatenate([table.probabilities for table in tables]))

    def tables(
        self, method: str, site: str, seeds: Sequence[int], folds: Sequence[int] | None = None
    ) -> list[PredictionsTable]:
        """Return a method's predictions of a site's test images, a table a cell that has them."""
        folds = self.plan.folds if folds is None else folds
        cells = [(fold, seed) for seed in seeds for fold in folds]
        found = [self.predictions(method, site, *cell) for cell in cells]
        return [table for table in found if table is not None]

    def predictions(self, method: str, site: str, fold: int, seed: int) -> PredictionsTable | None:
        """Return a cell's predictions of a site's test images, None where there are none."""
        run = self.records.get((method, fold, seed))
        return None if run is None else run.predictions.get(site)

    def _figure(self, run: RunRecord, site: str, metric: str) -> float:
        if metric in NAMES:
            return run.figure(site, metric)
        table = run.predictions.get(site)
        if metric != SPECIFICITY or table is None or not self.binary:
            return math.nan
        return specificity_at(table.labels, table.positive)


def mean_of_sites(name: str, values: Iterable[float]) -> float:
    """Return a figure's mean over the sites.

    Over those where it is defined, if labels decide that. Where predictions do, a mean over other
    sites for each method would not compare, and it is NaN unless all are defined.
    """
    if any(figure.name == name and figure.of_labels for figure in FIGURES):
        return mean_defined(values)
    return float(np.mean(list(values)))
