"""The report: its numbers come from the runs, it fetches nothing, no name becomes mark-up."""

import csv
import json
import re
from base64 import b64decode
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from common.errors import RunError
from common.files import write_json
from simulations.report.page import to_html
from simulations.report.records import read_record
from simulations.report.results import StudyResults
from simulations.report.sections import make_page, write_report
from tests.simulations.report.cells import comparison_of
from tests.simulations.report.fabricated_runs import fabricate_run, figures, leakage_of

VOID = {"meta", "br", "hr", "img", "link", "input"}
SITES = {"hospital-a": 0.9123, "hospital-b": 0.8}


class Page(HTMLParser):
    """Reads a page strictly: every element closed in order; keeps its cells and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: Counter[str] = Counter()
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def cells(self, head: str) -> list[list[str]]:
        """Return the rows whose first cell says this."""
        return [[cell.strip() for cell in row[1:]] for row in self.rows if row[0].strip() == head]


def study(base: Path) -> list[Path]:
    """Two folds of three modes; federated 1 and 3 points below pooled, single-site 10."""
    runs = []
    for fold, gap in ((0, 0.01), (1, 0.03)):
        for mode, less in (("pooled", 0.0), ("federated", gap), ("single", 0.1)):
            auc = {site: value - less - 0.02 * fold for site, value in SITES.items()}
            runs.append(fabricate_run(base, mode, auc, fold, curve=(0.5, 0.9, 1.0)))
    return runs


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the report of :func:`study`."""
    runs = study(tmp_path_factory.mktemp("study"))
    return render(comparison_of(runs))


def render(results: StudyResults) -> str:
    return to_html(make_page(results, Path("nowhere")))


def page_of(runs: list[Path], pending: dict[str, str] | None = None) -> Page:
    return Page(render(comparison_of(runs, pending)))


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({}, "cross entropy + contrastive term (τ\u00a0=\u00a00.05)"),
        ({"alpha": 0.0}, "cross entropy"),
        ({"prototypes": "average"}, "contrastive term with averaged prototypes (τ"),
        ({"prototypes": "none"}, "contrastive term within a site (τ"),
        ({"proximal": 0.5}, "0.25 × squared distance from the received weights (FedProx)"),
        ({"model_contrast": 2.0}, "2 × model-contrastive term (MOON)"),
        ({"prototype_pull": 3.0}, "3 × squared distance from prototypes (FedProto)"),
        ({"auxiliary": True}, "a branch of each site's own"),
        ({"adapters": "series"}, "series adapters of each site's own"),
        ({"prototype_pull": 1.0, "share": "prototypes"}, "prototypes are exchanged and no"),
    ],
)
def test_a_page_says_what_a_compared_method_does(
    tmp_path: Path, part: dict[str, Any], told: str
) -> None:
    run = fabricate_run(tmp_path, "federated", SITES, **part)
    text = page_of([run]).text
    assert told in text
    assert ("cross entropy +" in text) == (part.get("alpha", 1.0) > 0)


def test_the_table_s_numbers_come_from_the_runs(html: str) -> None:
    page = Page(html)
    # hospital-a: 91.23 and 89.23: mean 90.23, deviation 2/√2; the other metrics 10 points less.
    # The mean of the sites: 85.615 and 83.615.
    in_a, in_b, everywhere = [row for row in page.cells("Pooled") if len(row) == 7][:3]
    assert in_a == ["2", *["80.2 ± 1.4"] * 5, "90.2 ± 1.4"]
    assert in_b[-1] == "79.0 ± 1.4"
    assert everywhere[-1] == "84.6 ± 1.4"
    # Differences −1 and −3: mean −2, standard error 1, t = −2 with one degree of freedom, where
    # p = 1 − 2 atan(2)/π = 0.295 and the 97.5 % quantile is tan(0.475 π) = 12.7062.
    tables = [row for row in page.cells("Federated") if len(row) == 7]
    assert len(tables) == 6
    assert tables[3] == ["2"] + ["−2.0[−14.7, +10.7]\np = 0.295"] * 6
    # Single-site is 10 points below in both folds: nothing to test.
    assert [row for row in page.cells("Single-site") if len(row) == 7][3] == ["2"] + ["−10.0"] * 6
    assert "No test where all pairs differ by the same amount." in page.text


def test_a_single_run_shows_the_bootstrap_interval(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, "pooled", {"a": 0.9})
    page = page_of([run])
    assert page.cells("Pooled")[0] == ["1", *["80.0"] * 5, "90.0[86.0, 93.0]"]
    assert "bootstrap" in page.text
    assert "±" not in " ".join(page.cells("Pooled")[0])


def test_a_run_of_before_a_figure_was_measured_has_a_dash_in_its_column(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, "pooled", {"a": 0.9})
    old = {name: value for name, value in figures(0.9).items() if name != "specificity"}
    write_json(run / "result.json", read_record(run).result | {"metrics": {"a": {"test": old}}})
    cells = page_of([run]).cells("Pooled")[0]
    assert cells == ["1", *["80.0"] * 4, "–", "90.0[86.0, 93.0]"]


def test_one_pair_is_a_difference_without_a_test(tmp_path: Path) -> None:
    runs = [fabricate_run(tmp_path, mode, {"a": 0.9}) for mode in ("pooled", "federated")]
    page = page_of(runs)
    assert page.cells("Federated")[1] == ["1"] + ["0.0"] * 6
    assert "No test where there is a single pair of runs" in page.text
    assert "p =" not in page.text


def test_nothing_is_fetched(html: str) -> None:
    page = Page(html)
    assert page.tags["img"] == 6
    assert not {"script", "link", "iframe", "object"} & page.tags.keys()
    for name, value in page.attributes:
        if name in ("href", "src", "xlink:href", "data", "action"):
            assert (value or "").startswith(("#", "data:image/svg+xml;base64,")), (name, value)
    assert "//" not in re.sub(r"base64,[^\"]+", "", html)
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_ids_are_unique_and_references_lead_somewhere(html: str) -> None:
    page = Page(html)
    ids = Counter(value for name, value in page.attributes if name == "id")
    assert [name for name, times in ids.items() if times > 1] == []
    for name, value in page.attributes:
        if name in ("href", "aria-labelledby", "clip-path"):
            for target in re.findall(r"#?([^\s()]+)", (value or "").replace("url", "")):
                assert target in ids, (name, value)


def test_names_are_text_and_never_mark_up(tmp_path: Path) -> None:
    odd = "<img src=x onerror=alert(1)>&\"'"
    run = fabricate_run(
        tmp_path, "pooled", {"a": 0.9}, status="failed", files=odd + "{}", result={"reason": odd}
    )
    done = fabricate_run(tmp_path, "federated", {"a": 0.9}, files=odd + "{}", classes=f"{odd},b")
    sentence = leakage_of("a") | {"site": odd, "sentence": odd}
    write_json(done / "result.json", read_record(done).result | {"leakage": [sentence]})
    html = render(comparison_of([run, done], {odd: odd}, odd))
    page = Page(html)
    assert page.tags["img"] == 3
    assert page.text.count(odd) >= 5
    assert "<img src" not in html


def test_figures_say_in_words_what_they_show(html: str) -> None:
    told = [value for name, value in Page(html).attributes if name == "alt"]
    assert len(told) == 6
    aucs = "Pooled, AUC 90.2; Federated, AUC 88.2; Single-site, AUC 80.2"
    assert f"ROC curves at hospital-a: {aucs}" in told
    runs = "Pooled 90.2 ± 1.4; Federated 88.2 ± 2.8; Single-site 80.2 ± 1.4"
    assert f"AUC of every run at hospital-a, in percent: {runs}" in told
    # Curves end at 90.23 − … : rounds reach 0.5, 0.9 and all of the way from 50 to the AUC.
    first = 50 + 0.5 * (90.23 - 50)
    assert f"Pooled from {first:.1f} to 90.2" in html
    # Every mode has its colour, the same as in the tables.
    style = html.partition("</style>")[0]
    encoded = re.findall(r"base64,([^\"]+)", html)
    for colour in ("#b24a00", "#0064a8", "#007a5a"):
        assert colour in style
        assert all(f"stroke: {colour}" in b64decode(one).decode() for one in encoded)


def test_leakage_is_told_at_the_top(tmp_path: Path) -> None:
    clean = fabricate_run(tmp_path / "1", "pooled", {"a": 0.9})
    html = render(comparison_of([clean]))
    assert 'class="callout good"' in html
    told = html.index("a: split by patient, 0 of 40 patients are in both.")
    assert told < html.index("What was compared")
    runs = [
        fabricate_run(
            tmp_path / "2",
            "pooled",
            {"a": 0.9},
            fold=fold,
            split="image",
            result={"leakage": [leakage_of("a", "image", shared)]},
        )
        for fold, shared in ((0, 3), (1, 5))
    ]
    html = render(comparison_of(runs))
    assert 'class="callout warn"' in html
    assert (
        "a: split by image, 3 to 5 of 40 patients are in both training and test "
        "(6 to 10 test images) in each of the 2 folds." in html
    )


def test_what_went_wrong_is_told(tmp_path: Path) -> None:
    runs = [
        fabricate_run(tmp_path, "pooled", {"a": 0.9}),
        fabricate_run(tmp_path, "federated", {"a": 0.8}, epochs=7, curve=(0.5, 1.0)),
        fabricate_run(tmp_path, "single", {"a": 0.7}, status="failed", result={"reason": "flood"}),
    ]
    environment = dict(read_record(runs[1]).environment) | {"code_fingerprint": "0" * 64}
    write_json(runs[1] / "environment.json", environment)
    page = page_of(runs, {"single-fold0-seed1": "", "pooled-fold0-seed1": "no disk"})
    assert "3 cells are not done; the figures are the others'." in page.text
    assert "2 versions of the code" in page.text
    seen = "a, fold 0, seed 0: Pooled 160 and Federated 320 images"
    assert f"The methods saw different numbers of images at {seen}." in page.text
    assert page.cells("single-fold0-seed0")[0][-1] == "failed: flood"
    assert page.cells("single-fold0-seed1")[0][-1] == "not done"
    assert page.cells("pooled-fold0-seed1")[0][-1] == "failed: no disk"


def test_a_sound_study_has_nothing_to_keep_in_mind(tmp_path: Path) -> None:
    runs = study(tmp_path)
    # The federated launcher fixes the number of threads; that is no other training.
    config = runs[1] / "config.toml"
    config.write_text(config.read_text().replace("threads = 0", "threads = 1"))
    assert "threads = 1" in config.read_text()
    assert "To keep in mind" not in page_of(runs).text


def test_the_sites_images_stand_side_by_side_as_they_were_told(tmp_path: Path) -> None:
    greys = {"images": 30, "mean": 101.3, "deviation": 40.2, "fields": [7] * 9}
    greys |= {"histogram": [27, *[0] * 30, 973]}
    told: dict[str, Any] = {
        "sites": {
            "a": {"class_counts": [10, 20], "greys": greys},
            "b": {"class_counts": [4, 5], "greys": None},
        },
        "warnings": ["a looks blank: <b>."],
    }
    kept = {"a": {"class_counts": [1, 2], "greys": None}}
    none = {"sites": kept, "warnings": []}
    auc = {"a": 0.9, "b": 0.8}
    runs = [
        fabricate_run(tmp_path, "federated", auc, result={"site_images": none}),
        fabricate_run(tmp_path, "pooled", auc),
        fabricate_run(tmp_path, "single", auc, result={"site_images": told}),
    ]
    page = page_of(runs)
    rows = [row for row in page.rows if row[0] in "ab" and len(row) == 8]
    assert rows == [
        ["a", "30", "10", "20", "101.3", "40.2", "2.7", "97.3"],
        ["b", "9", "4", "5", *"––––"],
    ]
    assert "What each site said of its training images before the run single-fold0-seed0" in (
        page.text
    )
    assert "a looks blank: <b>." in page.text
    drawings = [text for name, text in page.attributes if name == "alt" and text]
    assert [text for text in drawings if text.startswith("Greys of ")] == [
        "Greys of a: mean 101.3, deviation 40.2"
    ]
    write_report(comparison_of(runs), tmp_path)
    values = json.loads((tmp_path / "comparison.json").read_text())["site_images"]
    assert values == {"run": "single-fold0-seed0", "sites": told["sites"]}
    assert "Images of the sites" not in page_of(runs[:2]).text


def test_budget_traffic_and_tensors(html: str) -> None:
    page = Page(html)
    # Three rounds of 10 steps with 160 images a site; 75 s.
    budget = ["480", "480", "30", "3", "1 min 15 s"]
    assert [row for row in page.cells("Federated") if len(row) == 5] == [budget]
    # Three rounds of 3 MB down and 2 MB up.
    assert next(row for row in page.cells("hospital-a") if len(row) == 3) == [
        "3.0 MB",
        "2.0 MB",
        "15.0 MB",
    ]
    assert page.cells("round 2") == [["3.0 MB", "2.0 MB", "5.0 MB"]] * 2
    # 4·3·5·5 floats of four bytes are shared; each site keeps four.
    assert "Shared: 1 tensor, 300 values, 1.2 kB" in page.text
    assert "Private: 2 tensors, 8 values, 32 B" in page.text
    assert page.cells("norm.sites.hospital-b.weight") == [["4", "16 B"]]


def test_environment_and_configuration(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, "pooled", {"a": 0.9}, data="/home/someone/secret/ct", epochs=3)
    page = page_of([run])
    assert page.cells("epochs")[0][0] == "3"
    assert page.cells("data")[0][0] == "…/ct"
    assert "someone" not in page.text
    assert page.cells("Processor") == [["Some Processor"]]
    assert page.cells("flwr") == [["not installed"]]
    assert page.cells("Git revision") == [["a" * 40]]
    assert "Not a medical device" in page.text


def test_weights_that_validation_chose_are_reported_instead(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, "pooled", {"a": 0.9}, validation_fraction=0.2)
    assert page_of([run]).cells("Pooled")[0][-1] == "90.0[86.0, 93.0]"
    best = {"a": {"round": 4, "test": figures(0.95)}}
    write_json(run / "result.json", read_record(run).result | {"best": best})
    page = page_of([run])
    assert page.cells("Pooled")[0][-1] == "95.0[91.0, 98.0]"
    assert "best AUC on the validation images" in page.text


def test_before_any_run_is_complete(tmp_path: Path) -> None:
    assert "No run is completed yet." in page_of([], {"pooled-fold0-seed0": ""}).text
    running = fabricate_run(tmp_path, "single", {"a": 0.9, "b": 0.8}, status="running")
    page = page_of([running])
    assert "No run is completed yet." in page.text
    assert page.cells("single-fold0-seed0")[0][-1] == "not done"


def test_undefined_figures_are_dashes(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, "pooled", {"a": 0.9})
    undefined = dict.fromkeys(figures(0.0))
    write_json(
        run / "result.json", read_record(run).result | {"metrics": {"a": {"test": undefined}}}
    )
    assert page_of([run]).cells("Pooled")[0] == ["0"] + ["–"] * 6


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    results = comparison_of([fabricate_run(tmp_path, "pooled", {"a": 0.9})])
    pages = [re.sub(r"on \d{4}-\S+ \S+ \S+\.", "", render(results)) for _ in range(2)]
    assert pages[0] == pages[1]


def test_json_and_csv_hold_the_figures(tmp_path: Path) -> None:
    runs = study(tmp_path)
    runs.append(fabricate_run(tmp_path, "single", SITES, fold=2, status="interrupted"))
    write_report(comparison_of(runs), tmp_path)
    rows = list(csv.DictReader((tmp_path / "comparison.csv").open()))
    assert len(rows) == 12
    row = rows[3]
    assert (row["run"], row["site"]) == ("federated-fold0-seed0", "hospital-b")
    assert float(row["auc"]) == pytest.approx(0.79)
    assert row["images"] == "30"
    told = json.loads((tmp_path / "comparison.json").read_text())
    assert told["missing"] == {"single-fold2-seed0": ""}
    found = next(
        entry
        for entry in told["differences_to_reference"]
        if (entry["site"], entry["method"], entry["metric"]) == ("hospital-a", "federated", "auc")
    )
    assert found["mean"] == pytest.approx(-0.02)
    assert found["p"] == pytest.approx(0.295167, abs=1e-6)
    single = next(one for one in told["differences_to_reference"] if one["method"] == "single")
    assert single["p"] is None


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not the folder of a run"):
        read_record(tmp_path)
    run = fabricate_run(tmp_path, "pooled", {"a": 0.9})
    (run / "metrics.csv").write_text("round,step\n1,x\n")
    with pytest.raises(RunError, match="Cannot read the run"):
        read_record(run)


def test_the_report_is_written_whole(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path, "pooled", {"a": 0.9})
    path = write_report(comparison_of([run], title="Kopf an Kopf ± 1"), tmp_path / "sub")
    assert path == tmp_path / "sub" / "report.html"
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert "<h1>Kopf an Kopf ± 1</h1>" in path.read_text()
