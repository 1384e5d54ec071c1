"""What a study's figures are means of."""

import math
from pathlib import Path

import numpy as np
import pytest

from simulations.report.results import SPECIFICITY
from simulations.report.statistics import ALL_SITES
from tests.simulations.report.cells import fabricate_study


def test_the_deviation_is_over_seeds_of_the_mean_over_folds(tmp_path: Path) -> None:
    cells = {(0, 0): (0.8, 0.9), (1, 0): (0.6, 0.9), (0, 1): (0.9, 0.9), (1, 1): (0.7, 0.9)}
    results = fabricate_study(tmp_path, {"joint": cells}, "joint")
    # Seed 0: (0.8 + 0.6) / 2 = 0.7; seed 1: 0.8. Folds differ far more than seeds do.
    found = results.summary("joint", "site-a", "auc")
    assert (found.n, found.mean) == (2, pytest.approx(0.75))
    assert found.sd == pytest.approx(np.std([0.7, 0.8], ddof=1))
    assert results.summary("joint", "site-b", "auc").sd == pytest.approx(0, abs=1e-12)
    assert results.summary("joint", ALL_SITES, "auc").mean == pytest.approx(0.825)


def test_a_seed_that_lacks_a_fold_does_not_count(tmp_path: Path) -> None:
    cells = {(0, 0): (0.8, 0.9), (1, 0): (0.6, 0.9), (0, 1): (0.9, 0.9)}
    results = fabricate_study(tmp_path, {"joint": cells}, "joint")
    found = results.summary("joint", "site-a", "auc")
    assert (found.n, found.mean) == (1, pytest.approx(0.7))
    assert math.isnan(found.sd)


def test_specificity_comes_from_the_predictions(tmp_path: Path) -> None:
    results = fabricate_study(tmp_path, {"joint": {(0, 0): (1.0, 0.5)}}, "joint")
    # The fabricated scores of an AUC of 1.0 have one value in common; those of 0.5 are alike.
    assert results.summary("joint", "site-a", SPECIFICITY).mean > 0.9
    assert results.summary("joint", "site-b", SPECIFICITY).mean < 0.1


def test_calibration_is_of_all_folds_of_a_seed_together(tmp_path: Path) -> None:
    cells = {(0, 0): (0.5, 0.9), (1, 0): (0.5, 0.9)}
    results = fabricate_study(tmp_path, {"joint": cells}, "joint")
    found = results.reliability("joint", "site-a", [0])
    assert found is not None
    assert found.images.sum() == 80
    assert results.calibration("joint", "site-a").n == 1
