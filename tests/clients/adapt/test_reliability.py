"""Figures and sentences about a site without labels, from numbers that a test chose."""

import math
from pathlib import Path

import numpy as np
import pytest

from clients.adapt.distance import Distances
from clients.adapt.reliability import advise, judge_trust, threshold, trained_predictions
from common.runs.predictions import PredictionsTable, write_predictions

NEAR = Distances({"a": 1.0, "b": 2.0}, {("a", "b"): 1.5})
FAR = Distances({"a": 3.0, "b": 2.0}, {("a", "b"): 1.5})


def said(*positive: float) -> np.ndarray:
    return np.array([[1 - p, p] for p in positive])


def table(labels: list[int], *positive: float) -> PredictionsTable:
    return PredictionsTable(("x",) * len(labels), np.array(labels), said(*positive), ("n", "p"))


def test_the_threshold_leaves_as_many_below_as_are_wrong() -> None:
    confidence = np.array([0.9, 0.6, 0.8, 0.7])
    assert threshold(confidence, np.array([True, True, False, True])) == 0.7
    assert threshold(confidence, np.array([True, False, False, True])) == 0.8
    assert threshold(confidence, np.ones(4, bool)) == -math.inf
    assert threshold(confidence, np.zeros(4, bool)) == math.inf


def test_figures_by_hand() -> None:
    # Site a: confidences 0.9 0.8 0.7 0.6, one of four wrong. Site b: 0.95 0.85, one of two wrong.
    trained = {"a": table([1, 1, 0, 1], 0.9, 0.8, 0.3, 0.4), "b": table([0, 1], 0.95, 0.85)}
    probabilities = {
        "re-estimated": said(0.9, 0.75, 0.4, 0.45),
        "averaged": said(0.9, 0.75, 0.6, 0.55),
        "nearest": said(0.9, 0.25, 0.4, 0.45),
    }
    found = judge_trust(probabilities, NEAR, trained)
    assert found.agreement == 0.25 and found.disagreement == 0.75
    assert found.confidence == pytest.approx((0.9 + 0.75 + 0.6 + 0.55) / 4)
    assert found.trained_confidence == pytest.approx((3.0 + 1.8) / 6)
    assert found.trained_accuracy == pytest.approx(4 / 6)
    # Two of six are wrong, so two stay below: the threshold is 0.8, and one image reaches it.
    assert found.estimate == 0.25
    # b's threshold 0.95 lets none of a pass, 0.75 off; a's, 0.7, lets both of b pass, 0.5 off.
    assert found.estimate_error == 0.75
    assert found.distances == NEAR and not found.distances.is_far
    assert list(found.as_dict().items())[:2] == [("nearest_distance", 1.0), ("usual_distance", 1.5)]


def test_without_trained_predictions_half_of_it_is_undefined() -> None:
    found = judge_trust({"re-estimated": said(0.9)}, Distances({"a": 1.0}, {}), {})
    assert math.isnan(found.estimate) and math.isnan(found.trained_accuracy)
    assert found.agreement == 1 and found.disagreement == 0
    sentences = advise("new", 500, found)
    assert any("nothing to hold it against" in one for one in sentences)
    assert any("no labelled predictions" in one for one in sentences)


def test_predictions_of_a_run_are_found_where_there_are_any(tmp_path: Path) -> None:
    path = tmp_path / "sites" / "a" / "predictions.csv"
    told = {
        "test": PredictionsTable(["x.png"], np.array([1]), said(0.7), ("n", "p")),
        "validation": PredictionsTable(["y.png"], np.array([0]), said(0.1), ("n", "p")),
    }
    write_predictions(path, told)
    found = trained_predictions(tmp_path, ["a", "b"])
    assert list(found) == ["a"] and found["a"].files == ("x.png",)


def test_sentences_warn_where_there_is_reason_to() -> None:
    trained = {"a": table([1, 0], 0.9, 0.2), "b": table([1, 0], 0.8, 0.1)}
    probabilities = {"re-estimated": said(0.9, 0.8), "averaged": said(0.9, 0.2)}
    agreeing = {"re-estimated": said(0.9, 0.8), "averaged": said(0.7, 0.8)}
    calm = " ".join(advise("new", 64, judge_trust(agreeing, NEAR, trained)))
    assert "Warning" not in calm and "up to 0.00." in calm and "100 labelled images" in calm
    assert "Recommended: 're-estimated'." in calm
    assert "does not show that they are right" in calm
    wary = " ".join(advise("new", 63, judge_trust(probabilities, FAR, trained)))
    # All is right at the trained sites, so any difference is more than their errors.
    assert "Warning: All adaptations decide alike on 50%" in wary
    assert "differ on 50%" in wary and "wrong on 25% at least" in wary
    assert "63 images are few" in wary and "outside the trained sites" in wary
    assert "only where 'averaged' decides alike" in wary
    checked = " ".join(advise("new", 64, judge_trust(probabilities, FAR, trained)))
    assert "not before it has been checked" in checked
