"""Does the disease cluster, or the hospital? Coefficients by hand, and maps of a small run."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.data.cache import SiteData
from common.errors import RunError
from simulations.explain.projections import (
    draw_projections,
    embed,
    projection_map,
    silhouette,
)
from simulations.report.pictures import save_figure
from simulations.report.records import RunRecord
from tests.simulations.report.pictured_run import pictured_run, write_hospitals

Run = tuple[RunRecord, list[SiteData]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    base = tmp_path_factory.mktemp("projections")
    return pictured_run(base / "runs", write_hospitals(base / "data"))


@pytest.fixture(autouse=True)
def six_images_of_a_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.explain.projections.MOST", 6)


def test_the_silhouette_is_taken_over_angles() -> None:
    # Two rays: within 0, between 1 − cos 90° = 1, whatever the lengths.
    vectors = np.array([[1.0, 0], [5, 0], [0, 2], [0, 9]])
    assert silhouette(vectors, np.array([0, 0, 1, 1])) == pytest.approx(1)
    # Mixed: for each image a = 1 (its one fellow is across), b = (0 + 1) / 2.
    assert silhouette(vectors, np.array([0, 1, 0, 1])) == pytest.approx(-0.5)


def test_one_group_or_as_many_as_images_have_no_silhouette() -> None:
    vectors = np.eye(3)
    assert math.isnan(silhouette(vectors, np.zeros(3, np.int64)))
    assert math.isnan(silhouette(vectors, np.arange(3)))


def test_the_plane_keeps_clusters_apart_and_is_the_same_twice() -> None:
    generator = np.random.default_rng(0)
    centres = np.repeat(np.eye(6)[:2] * 10, 12, axis=0)
    vectors = centres + 0.1 * generator.standard_normal((24, 6))
    places = embed(vectors)
    assert places.shape == (24, 2) and np.isfinite(places).all()
    np.testing.assert_array_equal(places, embed(vectors))
    first, second = places[:12], places[12:]
    gap = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
    assert gap > 2 * max(first.std(), second.std())


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5])
def test_few_vectors_have_places_too(count: int) -> None:
    places = embed(np.random.default_rng(1).standard_normal((count, 8)))
    assert places.shape == (count, 2) and np.isfinite(places).all()


def test_a_map_holds_each_site_s_test_images_and_both_networks(run: Run) -> None:
    record, sites = run
    shown = projection_map(record, sites)
    assert shown.sites == ("a", "b") and shown.classes == ("non-covid", "covid")
    assert np.bincount(shown.site_of).tolist() == [6, 6]
    assert set(shown.labels) == {0, 1}
    for when in ("before", "after"):
        assert shown.places[when].shape == (12, 2)
        assert -1 <= shown.clustering[when].by_class <= 1
        assert -1 <= shown.clustering[when].by_site <= 1
    assert shown.clustering["before"] != shown.clustering["after"]
    again = projection_map(record, sites)
    np.testing.assert_array_equal(shown.places["after"], again.places["after"])
    assert shown.clustering == again.clustering


def test_networks_that_never_met_have_no_common_map(run: Run) -> None:
    record, sites = run
    single = replace(record, result={**record.result, "mode": "single"})
    with pytest.raises(RunError, match="lie in different spaces"):
        projection_map(single, sites)
    alone = projection_map(single, sites[:1])
    assert math.isnan(alone.clustering["after"].by_site)


def test_the_drawing_tells_the_coefficients_and_every_point(run: Run, tmp_path: Path) -> None:
    record, sites = run
    shown = projection_map(record, sites)
    figure = draw_projections(shown)
    for axes, when in zip(figure.axes, ("before", "after"), strict=True):
        found = shown.clustering[when]
        assert f"by class {found.by_class:.2f}, by site {found.by_site:.2f}" in axes.get_title()
        assert sum(len(points.get_offsets()) for points in axes.collections) == 12
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "a",
        "b",
        "non-covid",
        "covid",
    ]
    png = save_figure(figure, tmp_path, "projections")
    assert png.stat().st_size > 5000 and "<svg" in png.with_suffix(".svg").read_text()
