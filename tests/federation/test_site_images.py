"""A site whose images are inverted is named before the first round, in every mode of training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from PIL import Image

from clients.egress.ledger import entries
from common.config.schema import Config
from common.console.progress import ProgressListener
from common.data.folds import split_site
from common.learning.local_site import open_site
from common.runs.result import read_result
from simulations.local import train_pooled, train_single
from simulations.runtime.in_process import run_server
from simulations.study.plan import plan_study, read_file
from simulations.study.run import open_study
from simulations.synthetic import write_hospital
from tests.federation.hospitals import CLASSES, TINY, deploy, federate, run_of, server

SITES = ("north", "south", "east")
STUDIED = ("data", "sites", "cache-dir", "image-size", "width", "threads", "device")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write three synthetic hospitals, and turn every image of the third into its negative."""
    root = tmp_path_factory.mktemp("images")
    for index, site in enumerate(SITES):
        write_hospital(root / site, site, index, 20, CLASSES, seed=0, size=64)
    for file in (root / "east").glob("*covid/*.png"):
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    return root


def config_of(data: Path, folder: Path, **values: Any) -> Config:
    places = {"data": str(data), "sites": ",".join(SITES), "runs_dir": str(folder / "runs")}
    places |= {"cache_dir": str(data / "cache"), "run_name": "run"}
    return Config().changed(**TINY | places | {"epochs": 1} | values)


def lines_before_round_1(run: Path) -> list[str]:
    said = (run / "log.txt").read_text().split("round 1/")[0]
    return [line.partition("  ")[2] for line in said.splitlines()]


@pytest.mark.parametrize("mode", ["federated", "pooled", "single"])
def test_the_inverted_site_is_named_before_round_1_and_nobody_else(
    data: Path, tmp_path: Path, mode: str
) -> None:
    config = config_of(data, tmp_path)
    if mode == "federated":
        federate(config)
    else:
        train = {"pooled": train_pooled, "single": train_single}[mode]
        train(config, tmp_path / "runs", ProgressListener())
    run = run_of(config)
    lines = lines_before_round_1(run)
    (warning,) = [line for line in lines if line.startswith("WARNING: ")]
    assert warning.startswith("WARNING: east looks inverted: where the images of north and south ")
    told = read_result(run)["site_images"]
    assert told["warnings"] == [warning.removeprefix("WARNING: ")]
    assert list(told["sites"]) == list(SITES)
    for name, one in told["sites"].items():
        site = open_site(config, name)
        trained = site.images[split_site(site, config).train].astype(float)
        greys = one["greys"]
        assert sum(one["class_counts"]) == greys["images"] == len(trained)
        assert greys["mean"] == round(trained.mean(), 1)
        assert greys["deviation"] == round(trained.std(), 1)
        assert any(line.startswith(f"{name}: {len(trained)} training images (") for line in lines)


class Messages(ProgressListener):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def test_a_study_names_it_before_its_first_cell(data: Path, tmp_path: Path) -> None:
    config = config_of(data, tmp_path)
    values = {key: value for key, value in config.to_run_config().items() if key in STUDIED}
    (tmp_path / "study.toml").write_text(
        tomli_w.dumps({"methods": ["xsite"], "folds": [0], "seeds": [0], "run": values})
    )
    file, listener = read_file(tmp_path / "study.toml"), Messages()
    open_study(plan_study(file, "study.toml", file.run), tmp_path / "runs", listener)
    (warning,) = [text for text in listener.said if text.startswith("WARNING: ")]
    assert warning.startswith("WARNING: east looks inverted: ")


def test_a_run_that_asks_for_no_statistics_has_none(data: Path, tmp_path: Path) -> None:
    config = config_of(data, tmp_path, site_statistics=False)
    federate(config)
    told = read_result(run_of(config))["site_images"]
    assert told["warnings"] == []
    assert [one["greys"] for one in told["sites"].values()] == [None] * 3


def test_hospitals_tell_what_their_policies_let_leave(data: Path, tmp_path: Path) -> None:
    """East keeps its statistics, and of two that are left neither stands apart."""
    config = config_of(data, tmp_path)
    few, kept = "min-statistics-images = 500\n", 'may-leave = ["weights", "figures"]\n'
    grid = deploy(config, {"east": kept})
    run_server(server, grid)
    told = read_result(run_of(config))["site_images"]
    assert [one["greys"] is None for one in told["sites"].values()] == [False, False, True]
    assert told["warnings"] == []
    log = (tmp_path / "state" / "east" / "run" / "sites" / "east" / "log.txt").read_text()
    assert "statistics may not leave (policy: may-leave)" in log
    for site, leaves in (("north", True), ("east", False)):
        card = next(entries(tmp_path / "state" / site / "ledger"))
        assert ("statistics" in {part.record for part in card.parts}) == leaves
    again = config.changed(run_name="again")
    run_server(server, deploy(again, dict.fromkeys(SITES, few)))
    told = read_result(run_of(again))["site_images"]
    assert [one["greys"] for one in told["sites"].values()] == [None] * 3
