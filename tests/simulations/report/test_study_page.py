"""The report of a study: what stands in it, and where it comes from."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.config.schema import Config
from simulations.report.results import StudyResults
from simulations.report.sections import write_report
from simulations.report.summary import facts
from simulations.report.tables import orders_table, paper_table
from simulations.study.plan import Order, StudyPlan
from tests.simulations.report.cells import fabricate_study

PAIRS = [(0, 0), (1, 0), (0, 1), (1, 1)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    def cells(first: float, second: float) -> dict[tuple[int, int], tuple[float, float]]:
        # Seed 1 is a point better, fold 1 three points worse and of the first site alone.
        return {
            (fold, seed): (first - 0.03 * fold + 0.01 * seed, second + 0.01 * seed)
            for fold, seed in PAIRS
        }

    return fabricate_study(
        tmp_path_factory.mktemp("cells"),
        {
            "joint": cells(0.80, 0.90),
            "sepnorm-contrastive": cells(0.84, 0.93),
            "xsite": cells(0.835, 0.93),
        },
        "xsite",
        [
            Order("joint", "xsite"),
            Order("sepnorm-contrastive", "xsite", level=True),
            Order("xsite", "joint"),
            Order("joint", "xsite", level=True),
        ],
        {"xsite-fold2-seed0": "its process was killed"},
    )


@pytest.fixture(scope="module")
def written(results: StudyResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    write_report(results, folder)
    return folder


def test_the_paper_s_table_has_the_figures_by_site(results: StudyResults) -> None:
    table = paper_table(results)
    assert len(table.columns) == 1 + 2 * 6 + 1
    rows = {
        row.head: [cell.replace("\n", " ") for cell in row.cells]
        for group in table.groups
        for row in group.rows
    }
    # (0.80 + 0.77) / 2 = 0.785 and a point more: mean 0.79, deviation 0.01 / √2.
    assert rows["Joint, shared normalisation"][5] == "79.0 ± 0.7"
    assert rows["xsite"][11] == "93.5 ± 0.7"
    assert rows["xsite"][0] == "72.5 ± 0.7"  # fabricated accuracy: 0.1 below the AUC
    assert rows["xsite"][-1] == "88.0 ± 0.7"


def test_few_images_balanced_batches_and_a_part_alone_are_told(results: StudyResults) -> None:
    def told(**values: Any) -> dict[str, str]:
        records = {
            cell: replace(record, config=record.config.changed(**values))
            for cell, record in results.records.items()
        }
        return dict(facts(replace(results, records=records)))

    usual = told()
    other = told(train_images=40, batches="balanced", finish_alone=0.4)
    assert other["Folds"] == f"{usual['Folds']}; at most 40 training images a site"
    assert other["A round"] == f"{usual['A round']}; the last 40 % of all steps at each site alone"
    assert " images of each site a step, as many of every class, " in other["Training"]
    assert {key for key in usual if usual[key] != other[key]} == {"Folds", "A round", "Training"}


def test_expected_orders_are_answered_line_by_line(results: StudyResults) -> None:
    table = orders_table(results)
    assert table is not None
    answers = [row.cells[-1] for row in table.groups[0].rows]
    # All differences are the same in every pair, so there is no spread and no test.
    assert answers == ["open, leaning to yes", "yes", "open, leaning to no", "no"]
    assert list(table.groups[0].rows[1].cells[:3]) == ["−0.5", "0.0", "−0.3"]


def test_every_number_s_cell_is_named(written: Path) -> None:
    page = (written / "study.html").read_text()
    for fold, seed in PAIRS:
        assert page.count(f"federated-fold{fold}-seed{seed}") == 1
        assert page.count(f"pooled-fold{fold}-seed{seed}") == 2
    assert "failed: its process was killed" in page
    assert "1 cell is not done" in page


def test_page_markdown_and_json_say_the_same(written: Path) -> None:
    page = (written / "study.html").read_text()
    told = (written / "study.md").read_text()
    values = json.loads((written / "study.json").read_text())
    (auc,) = [
        one["mean"]
        for one in values["figures"]
        if (one["method"], one["site"], one["metric"]) == ("xsite", "site-a", "auc")
    ]
    assert auc == pytest.approx(0.825)
    assert "82.5<small>± 0.7</small>" in page
    assert "82.5 ± 0.7" in told
    assert "- Network: covidnet, width 1, 112 pixels" in told


def test_the_page_stands_alone(written: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    page = (written / "study.html").read_text()
    assert not re.search(r'(?:src|href)="(?!#|data:image/)', page)
    assert "@import" not in page
    assert page.count("<img") == 3 * 2 * 2  # ROC, precision-recall, reliability; sites; groups
    assert str(tmp_path_factory.getbasetemp()) not in page


def test_pictures_are_written_as_vectors_and_pixels(written: Path) -> None:
    names = {file.name for file in (written / "pictures").iterdir()}
    assert {"roc-site-a-federated.svg", "roc-site-a-federated.png"} <= names
    assert len(names) == 2 * 3 * 2 * 2
    picture = (written / "pictures" / "roc-site-a-federated.svg").read_text()
    assert "fill: #ffffff" in picture  # its ground; in the page it stands on the page's own
    page = (written / "study.html").read_text()
    inside = base64.b64decode(re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)[0]).decode()
    assert "<text" in inside
    assert "fill: #ffffff" not in inside


def test_written_twice_the_tables_are_the_same_bytes(
    results: StudyResults, written: Path, tmp_path: Path
) -> None:
    write_report(results, tmp_path)
    for name in ("study.md", "study.json", "pictures/roc-site-a-local.svg"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_a_study_of_which_nothing_is_done_has_a_page(tmp_path: Path) -> None:
    orders = (Order("joint", "xsite"),)
    plan = StudyPlan("Nothing yet", (), (0,), (0,), "xsite", Config(), orders)
    empty = StudyResults(plan, {}, {"xsite-fold0-seed0": ""}, {})
    page = write_report(empty, tmp_path).read_text()
    assert "Nothing yet" in page
    assert "not done" in page
