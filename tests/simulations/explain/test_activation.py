"""Examples of what a run's network looks at: chosen by their figures, drawn the same every time."""

from pathlib import Path

import numpy as np
import pytest
import torch

from common.data.cache import SiteData
from common.data.folder import LUNG_MASKS, MASKS
from common.data.folds import split_site
from common.errors import RunError
from common.learning.local_site import LocalSite
from common.methods.fedrdn import channel_statistics
from common.models.network import build_network
from common.models.sharing import shared_names
from common.runs.predictions import PredictionsTable
from common.runs.weights import load_run_network
from simulations.explain.activation import (
    activation_examples,
    choose_rows,
    draw_examples,
    measure_lesions,
)
from simulations.explain.activation_maps import METHODS
from simulations.explain.masks import load_masks
from simulations.explain.projections import network_images, network_of, prepared_images
from simulations.report.pictures import save_figure
from simulations.report.records import RunRecord
from tests.simulations.report.pictured_run import pictured_run, write_hospitals

CLASSES = ("non-covid", "covid")
Run = tuple[RunRecord, list[SiteData]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    base = tmp_path_factory.mktemp("activation")
    return pictured_run(base / "runs", write_hospitals(base / "data"))


@pytest.fixture(autouse=True)
def two_in_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.explain.activation.IN_A_GROUP", 2)


def root_of(run: Run, name: str) -> Path:
    return Path(run[0].config.data) / name


def table(positive: list[float], labels: list[int]) -> PredictionsTable:
    score = np.array(positive)
    return PredictionsTable(
        tuple(f"{number}.png" for number in range(len(labels))),
        np.array(labels),
        np.stack([1 - score, score], axis=1),
        CLASSES,
    )


def test_the_surest_are_chosen_rightly_decided_ones_first_positive_ones_first() -> None:
    scores = [0.9, 0.6, 0.8, 0.7, 0.2, 0.4, 0.1, 0.95, 0.3]
    labels = [1, 1, 1, 1, 1, 1, 0, 0, 0]
    rows = choose_rows(table(scores, labels), [None] * 9)
    # Right: 0.9 and 0.8 of class 1, 0.1 and 0.3 of class 0; wrong: 0.2 and 0.4, then 0.95.
    assert rows == [0, 2, 6, 8, 4, 5, 7]


def test_a_patient_is_shown_once_in_a_group_and_ties_go_by_name() -> None:
    scores, labels = [0.9, 0.9, 0.8, 0.7, 0.1], [1, 1, 1, 1, 1]
    assert choose_rows(table(scores, labels), ["p", "p", "q", "r", "p"]) == [0, 2, 4]


def test_examples_tell_what_the_table_and_the_image_say(run: Run) -> None:
    record, sites = run
    data = sites[1]
    found = activation_examples(record, data, root_of(run, "b"))
    predictions = record.predictions.get("b")
    assert predictions is not None and 3 <= len(found) <= 8
    for example in found:
        row = predictions.files.index(example.file)
        assert example.truth == CLASSES[predictions.labels[row]]
        assert example.decision == CLASSES[predictions.probabilities[row].argmax()]
        assert example.probability == predictions.probabilities[row].max() >= 0.5
        assert example.image.shape == (48, 48) and 0 <= example.image.min() < example.image.max()
        assert example.lesion is not None
        assert example.lesion.any() == (example.truth == "covid")
        for method in METHODS:
            assert example.maps[method].shape == (48, 48)
            assert example.maps[method].max() in (0, 1)
    assert any(example.maps["grad-cam"].any() for example in found)
    bare = activation_examples(record, data)
    assert all(example.lesion is None for example in bare)
    np.testing.assert_array_equal(bare[0].image, found[0].image)


def test_other_images_than_the_run_predicted_are_told(run: Run) -> None:
    record, sites = run
    with pytest.raises(RunError, match="the site has no such image any more"):
        activation_examples(record, SiteData(**vars(sites[0]) | {"name": "b"}))
    with pytest.raises(RunError, match="no predictions of test images of c"):
        activation_examples(record, SiteData(**vars(sites[0]) | {"name": "c"}))


def test_lesions_are_measured_on_every_positive_test_image_before_and_after(run: Run) -> None:
    record, sites = run
    data = sites[0]
    test = split_site(data, record.config).test
    after, before = (
        measure_lesions(record, data, root_of(run, "a"), when) for when in ("after", "before")
    )
    positive = [data.files[place] for place in test[data.labels[test] == 1]]
    lesions, lungs = (
        load_masks(root_of(run, "a") / of, positive, record.config) for of in (MASKS, LUNG_MASKS)
    )
    within = np.minimum(lesions, lungs).sum(axis=(1, 2))
    area = float((within / lungs.sum(axis=(1, 2))).mean())
    for method in METHODS:
        assert after[method].area == before[method].area == pytest.approx(area)
        assert after[method].gain != before[method].gain
        assert 0 < area < 1


def test_the_network_before_is_the_one_that_every_mode_starts_from(run: Run) -> None:
    record, sites = run
    start = build_network(record.config, ["a", "b"])
    before = network_of(record, sites[0], "before")
    expected, found = start.state_dict(), before.state_dict()
    for name in shared_names(before):
        assert torch.equal(expected[name], found[name])
    moved = [
        not torch.equal(found[name], expected[name]) for name in found if "running_mean" in name
    ]
    assert moved and all(moved)  # estimated on the site's own images
    after = network_of(record, sites[0], "after").state_dict()
    loaded = load_run_network(record.path, "a")[0].state_dict()
    assert all(torch.equal(after[name], loaded[name]) for name in loaded)


def test_a_figure_has_a_column_an_example_and_is_written_the_same_twice(
    run: Run, tmp_path: Path
) -> None:
    record, sites = run
    examples = activation_examples(record, sites[0], root_of(run, "a"))
    figure = draw_examples(examples, "a")
    assert len(figure.axes) == (1 + len(METHODS)) * len(examples)
    titles = [axes.get_title() for axes in figure.axes[: len(examples)]]
    for example, title in zip(examples, titles, strict=True):
        assert title == (
            f"truth {example.truth}\ndecided {example.decision}\np = {example.probability:.3f}"
        )
    outlined = [bool(axes.collections) for axes in figure.axes]
    assert outlined[: len(examples)] == [example.truth == "covid" for example in examples]
    first = save_figure(figure, tmp_path / "one", "a")
    again = save_figure(draw_examples(examples, "a"), tmp_path / "two", "a")
    for suffix in (".png", ".svg"):
        one, two = first.with_suffix(suffix), again.with_suffix(suffix)
        assert one.read_bytes() == two.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG")
    text = first.with_suffix(".svg").read_text()
    assert text.count("<image") >= 3 * len(examples)
    assert 'href="http' not in text and "data:image/png;base64" in text


def test_images_are_those_that_the_run_s_method_evaluates(run: Run) -> None:
    """Of FedRDN normalised by the site's own statistics; the picture of an image stays."""
    record, sites = run
    settings = record.config.changed(algorithm="fedrdn", normalisation="shared")
    some = np.array([2, 0])
    mean, deviation = channel_statistics(LocalSite.of(sites[0], settings), settings)
    plain = prepared_images(sites[0], some, settings).numpy()
    expected = (plain - mean[:, None, None]) / deviation[:, None, None]
    found = network_images(sites[0], some, settings).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found - plain).max() > 0.1


def test_images_are_prepared_as_in_evaluation(run: Run) -> None:
    record, sites = run
    images = network_images(sites[0], np.array([2, 0]), record.config)
    assert images.shape == (2, 3, 48, 48)
    alone = network_images(sites[0], np.array([0]), record.config)
    assert torch.equal(images[1], alone[0])
