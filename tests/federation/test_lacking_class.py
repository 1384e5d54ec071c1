"""Sites that lack a class take part: no prototype of it, figures without it undefined."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from flwr.app import Message
from PIL import Image

from clients.site_check import check_folder
from common.config.schema import Config
from common.exchange.messages import RoundOrder, RoundReply
from common.exchange.wire import decode
from common.runs.predictions import read_predictions
from common.tensor_files import load_tensors
from server.metrics import read_rows
from simulations.cli import app
from tests.federation.hospitals import TINY, federate, run_of

TWO, THREE = ("non-covid", "covid"), ("none", "mild", "severe")


def write_site(root: Path, counts: dict[str, int], seed: int) -> None:
    """Write noise, of each further class with one more bright square."""
    generator = np.random.default_rng(seed)
    for label, (name, images) in enumerate(counts.items()):
        for number in range(images):
            (root / name).mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 120, (32, 32), dtype=np.uint8)
            for place in range(label):
                pixels[4:12, 4 + 14 * place : 12 + 14 * place] += 100
            Image.fromarray(pixels).save(root / name / f"p{number:02d}.png")


def consortium(folder: Path, classes: tuple[str, ...], lacking: str, **values: Any) -> Config:
    """Write two sites, the second without a class, and return a configuration of them."""
    write_site(folder / "data" / "north", dict.fromkeys(classes, 12), 0)
    south = {name: 0 if name == lacking else 10 for name in classes}
    write_site(folder / "data" / "south", south, 1)
    return Config().changed(
        **TINY
        | {
            "data": str(folder / "data"),
            "sites": "north,south",
            "classes": ",".join(classes),
            "cache_dir": str(folder / "cache"),
            "runs_dir": str(folder / "runs"),
            "run_name": "run",
            "validation_fraction": 0.25,
            "epochs": 2,
        }
        | values
    )


@pytest.mark.parametrize(
    ("classes", "lacking"), [(TWO, "covid"), (THREE, "mild")], ids=["two", "three"]
)
def test_a_site_that_lacks_a_class_takes_part(
    tmp_path: Path, classes: tuple[str, ...], lacking: str
) -> None:
    config = consortium(tmp_path, classes, lacking)
    absent = classes.index(lacking)
    prototypes: dict[int, list[list[int]]] = {100: [], 101: []}
    counts: list[dict[str, tuple[int, ...]]] = []

    def note(question: Message, reply: Message) -> list[Message]:
        if "shared" in reply.content:
            found = decode(RoundReply, reply.content)
            prototypes[reply.metadata.src_node_id].append(found.prototypes.classes.tolist())
            counts.append(dict(decode(RoundOrder, question.content).class_counts))
        return [reply]

    federate(config, tamper=note)
    present = [label for label in range(len(classes)) if label != absent]
    assert prototypes[100] and all(found == list(range(len(classes))) for found in prototypes[100])
    assert prototypes[101] and all(found == present for found in prototypes[101])
    # Half of the images are for testing, and of the others a quarter for validation: 12 → 6 → 4 or
    # 5, and 10 → 5 → 3 or 4.
    south = [told["south"] for told in counts if "south" in told]
    assert south and all(told[absent] == 0 for told in south)
    assert all(told[label] in (3, 4) for told in south for label in present)

    run = run_of(config)
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "completed"
    there, here = (result["metrics"][name]["test"] for name in ("north", "south"))
    table = read_predictions(run / "sites" / "south" / "predictions.csv", "test")
    decided = table.probabilities.argmax(axis=1)
    assert absent not in table.labels and here["images"] == 5 * len(present)
    assert here["accuracy"] == pytest.approx(np.mean(decided == table.labels))
    chosen = table.probabilities[np.arange(len(table.labels)), table.labels]
    assert here["loss"] == pytest.approx(-np.mean(np.log(chosen)))
    # Undefined is null, not 0 and not left out.
    assert here["auc"] is None and here["auc_low"] is None
    assert there["auc"] is not None
    if classes == TWO:
        assert here["sensitivity"] is None
    else:
        each = [np.mean(decided[table.labels == label] == label) for label in present]
        assert here["sensitivity"] == pytest.approx(np.mean(each))
    rows = read_rows(run / "metrics.csv")
    aucs = {row.site: row.figures["auc"] for row in rows if row.subset == "validation"}
    assert math.isnan(aucs["south"]) and math.isfinite(aucs["north"])
    # Validation chose by the site where the AUC is defined.
    validated = [r.figures["auc"] for r in rows if (r.site, r.subset) == ("north", "validation")]
    assert result["best"]["north"]["validation_auc"] == pytest.approx(max(validated))

    assert f"training images, none of {lacking})" in (run / "log.txt").read_text()
    log = (run / "sites" / "south" / "log.txt").read_text()
    assert f"/south/{lacking} is missing. The site takes part without class '{lacking}'" in log
    private, _ = load_tensors(run / "sites" / "south" / "private.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in private.values())


def test_check_site_names_the_class_and_calls_the_site_fit(tmp_path: Path) -> None:
    config = consortium(tmp_path, TWO, "covid")
    check = check_folder("south", tmp_path / "data" / "south", config)
    assert check.fit
    assert [check.facts[f"images of {label}"] for label in ("non-covid", "covid")] == ["10", "0"]
    assert [warning for warning in check.warnings if "covid is missing" in warning]
    assert [sum(fold) for fold in check.folds] == [10, 10]
    shown = CliRunner().invoke(
        app, ["check-site", str(tmp_path / "data" / "south"), "--no-page", "--set", "folds=2"]
    )
    assert shown.exit_code == 0, shown.output
    assert "Warning: Site 'south'" in shown.output and "Fit for training: yes" in shown.output


def test_check_site_names_the_folds_that_lack_a_class(tmp_path: Path) -> None:
    write_site(tmp_path / "site", {"non-covid": 8, "covid": 2}, 0)
    check = check_folder("site", tmp_path / "site", Config().changed(**TINY | {"folds": 4}))
    named = [warning for warning in check.warnings if "holds no image of class 'covid'" in warning]
    assert check.fit and len(named) == 2


def test_reports_mean_over_the_sites_where_a_figure_is_defined(tmp_path: Path) -> None:
    from simulations.report.sections import to_csv, values_of
    from tests.simulations.report.cells import comparison_of

    config = consortium(tmp_path, TWO, "covid", validation_fraction=0.0)
    federate(config)
    results = comparison_of([run_of(config)])
    (record,) = results.records.values()
    rows = {row["site"]: row for row in csv.DictReader(io.StringIO(to_csv(results)))}
    assert rows["south"]["auc"] == "" and float(rows["north"]["auc"]) == record.figure(
        "north", "auc"
    )
    told = values_of(results)["figures"]
    means = {one["metric"]: one["mean"] for one in told if one["site"] == "mean of the sites"}
    assert means["auc"] == record.figure("north", "auc")
    sites = [record.figure(site, "accuracy") for site in ("north", "south")]
    assert means["accuracy"] == pytest.approx(np.mean(sites))
