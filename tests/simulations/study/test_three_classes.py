"""Studies and comparisons of three classes: none is positive, and nothing says that one is."""

import csv
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from clients.onboarding import onboard
from clients.prediction import find_images, predict_images
from common.config.schema import Config, about_keys
from common.console.progress import ProgressListener
from common.learning.local_site import open_site
from simulations.explain.activation import measure_lesions
from simulations.report.records import read_record
from simulations.study.plan import plan_study, read_file
from simulations.study.presets import compare
from simulations.study.progress import StudyProgress
from simulations.study.publish import publish
from simulations.study.run import open_study, refuse_failures, run_study
from tests.federation.hospitals import federate, run_of
from tests.simulations.tiny import SETTINGS

pytestmark = pytest.mark.slow

CLASSES = ("none", "mild", "severe")
METHODS = {"joint": "Joint, shared normalisation", "sepnorm": "SepNorm"}

Predicted = tuple[NDArray[np.int64], NDArray[np.float64]]


def write_site(root: Path, images: int, shift: int) -> None:
    """Write noise, of the second class with a bright square, of the third with two."""
    generator = np.random.default_rng(shift)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(images):
            pixels = generator.integers(0, 120, (32, 32), dtype=np.uint8) + np.uint8(shift)
            for place in range(label):
                pixels[4:12, 4 + 14 * place : 12 + 14 * place] += 100
            Image.fromarray(pixels).save(root / name / f"p{number:02d}.png")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("three")
    write_site(folder / "data" / "a", 8, 0)
    write_site(folder / "data" / "b", 10, 20)
    return Config().changed(
        **SETTINGS
        | {"data": str(folder / "data"), "sites": "a,b", "classes": ",".join(CLASSES)}
        | {"cache_dir": str(folder / "cache"), "folds": 2, "epochs": 5, "learning_rate": 0.01}
    )


@pytest.fixture(scope="module")
def study(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a study to its end and return its folder."""
    folder = tmp_path_factory.mktemp("study")
    of_the_study = {key for key, about in about_keys().items() if about.study}
    settings = {k: v for k, v in config.to_run_config().items() if k not in of_the_study}
    (folder / "study.toml").write_text(
        f'methods = {json.dumps(list(METHODS))}\nreference = "sepnorm"\n'
        "folds = [0, 1]\nseeds = [0]\n[run]\n"
        + "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    )
    file = read_file(folder / "study.toml")
    plan = plan_study(file, "study.toml", file.run)
    opened = open_study(plan, folder / "runs", ProgressListener())
    run_study(opened, 0, StudyProgress())
    refuse_failures(opened)
    publish(opened, ProgressListener())
    return folder / "runs"


def predicted(run: Path, site: str) -> Predicted:
    """Read a run's test predictions without xsite."""
    with (run / "sites" / site / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["subset"] == "test"]
    labels = np.array([CLASSES.index(row["label"]) for row in rows])
    return labels, np.array([[float(row[name]) for name in CLASSES] for row in rows])


def cells(study: Path) -> Iterator[tuple[str, str, list[Predicted]]]:
    """Go through method and site, each with the predictions of both folds."""
    told = json.loads((study / "study.json").read_text())
    for method in METHODS:
        runs = [study / "cells" / one["folder"] for one in told["cells"] if one["method"] == method]
        assert len(runs) == 2
        for site in ("a", "b"):
            yield method, site, [predicted(run, site) for run in runs]


def error_of_decisions(parts: list[Predicted]) -> float:
    """Return the calibration error of Guo et al., equation 3, bin by bin."""
    right = np.concatenate([said.argmax(1) == labels for labels, said in parts])
    sure = np.concatenate([said.max(1) for _, said in parts])
    bins = [np.floor(sure * 10) == k for k in range(9)] + [sure >= 0.9]
    return sum(one.mean() * abs(right[one].mean() - sure[one].mean()) for one in bins if one.any())


def test_every_figure_of_a_study_is_that_of_its_predictions(study: Path) -> None:
    told = json.loads((study / "study.json").read_text())
    figures = {(one["method"], one["site"], one["metric"]): one for one in told["figures"]}
    shown = [one["mean"] for one in told["figures"] if one["mean"] is not None]
    assert shown and all(0 <= value <= 1 for value in shown)
    for method, site, parts in cells(study):
        auc = np.mean([roc_auc_score(*part, multi_class="ovr") for part in parts])
        assert figures[method, site, "auc"]["mean"] == pytest.approx(auc)
        means = [
            precision_recall_fscore_support(
                labels, said.argmax(1), average="macro", zero_division=np.nan
            )
            for labels, said in parts
        ]
        for place, metric in enumerate(("precision", "sensitivity", "f1")):
            expected = np.mean([one[place] for one in means])
            assert figures[method, site, metric]["mean"] == pytest.approx(expected)
        # What is defined for two classes alone is undefined, and of another name if it is not it.
        assert figures[method, site, "specificity at 95 % sensitivity"]["mean"] is None
        assert (method, site, "calibration error") not in figures
        error = figures[method, site, "calibration error of the decision"]
        assert error["mean"] == pytest.approx(error_of_decisions(parts), abs=1e-6)
        found = told["auc_intervals"][site][method]
        assert found["delong"] == {
            "value": pytest.approx(auc),
            "low": None,
            "high": None,
            "p": None,
        }
        assert 0 <= found["bootstrap"][0] <= auc <= found["bootstrap"][1] <= 1
        assert found["images"] == {"a": 24, "b": 30}[site]
    assert told["auc_against_reference"]["a"]["joint"]["images"]["value"] is None


def test_the_three_classes_are_learnt(study: Path) -> None:
    # Chance is 0.5: below it, the figures would be of the wrong column.
    aucs = [roc_auc_score(*part, multi_class="ovr") for *_, parts in cells(study) for part in parts]
    assert np.mean(aucs) > 0.6


def test_a_study_says_what_its_figures_are_of(study: Path) -> None:
    tables, page = (study / "study.md").read_text(), (study / "study.html").read_text()
    for text in (tables, page):
        assert "defined for two classes alone, and left out" in text
        assert "AUC: mean of one class against the rest" in text
        assert "Calibration error: of the probability of the class decided for" in text
        assert "probability of the positive class" not in text
        assert "DeLong's interval" not in text
        assert "Specificity: at the highest threshold" not in text
    assert "the mean of the curves of one class, the positive one, against the rest" in page
    drawn = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)
    assert len(drawn) == (3 + 1) * 2  # kinds of curves and the histograms of greys, sites
    assert {"greys-a.svg", "greys-a.png"} <= {file.name for file in (study / "pictures").iterdir()}
    assert sum("Right decisions (%)" in b64decode(one).decode() for one in drawn) == 2
    # The key of the drawings tells the AUC of the tables.
    for method, _, parts in cells(study):
        auc = np.mean([roc_auc_score(*part, multi_class="ovr") for part in parts])
        assert f"{METHODS[method]}, AUC {100 * auc:.1f}" in page


def test_lesions_are_refused_for_want_of_a_positive_class(study: Path, config: Config) -> None:
    told = json.loads((study / "study.json").read_text())
    record = read_record(study / "cells" / told["cells"][0]["folder"])
    with pytest.raises(ValueError, match="Of 3 classes none is the positive one"):
        measure_lesions(record, open_site(config, "a"), Path(config.data) / "a")


def test_a_federated_run_predicts_and_meets_a_hospital(config: Config, tmp_path: Path) -> None:
    own = config.changed(runs_dir=str(tmp_path), run_name="run", join_timeout=0.2)
    federate(own)
    run = run_of(own)
    record = read_record(run)
    for site in ("a", "b"):
        labels, said = predicted(run, site)
        auc = roc_auc_score(labels, said, multi_class="ovr")
        assert record.figure(site, "auc") == pytest.approx(auc)
        assert 0 <= record.figure(site, "auc_low") <= auc <= record.figure(site, "auc_high") <= 1
    files = find_images([Path(config.data) / "a" / "severe"])
    found = predict_images(run, "a", files, device="cpu")
    assert found.classes == CLASSES
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    write_site(tmp_path / "c", 6, 10)
    met = onboard(run, "c", tmp_path / "c", device="cpu", evaluate=True)
    labels = np.array([CLASSES.index(file.parent.name) for file in met.files])
    for adaptation, said in met.probabilities.items():
        expected = roc_auc_score(labels, said, multi_class="ovr")
        assert met.figures[adaptation]["auc"] == pytest.approx(expected)


def test_a_comparison_says_what_its_figures_are_of(config: Config, tmp_path: Path) -> None:
    named = config.changed(run_name="compared")
    modes = ("pooled", "single")
    page = compare(named, tmp_path, (0,), (0,), modes, ProgressListener(), StudyProgress())
    text = page.read_text()
    assert "AUC: mean of one class against the rest" in text
    assert "the mean of the curves of one class, the positive one, against the rest" in text
    told = json.loads((page.parent / "comparison.json").read_text())
    aucs = {(o["site"], o["method"]): o for o in told["figures"] if o["metric"] == "auc"}
    for mode in modes:
        (run,) = (page.parent / "cells").glob(f"{mode}-fold0-seed0-*")
        for site in ("a", "b"):
            labels, said = predicted(run, site)
            expected = roc_auc_score(labels, said, multi_class="ovr")
            found = aucs[site, mode]
            assert found["mean"] == pytest.approx(expected)
            assert 0 <= found["low"] <= expected <= found["high"] <= 1
            assert re.search(rf"{100 * expected:.1f}\b", text)
