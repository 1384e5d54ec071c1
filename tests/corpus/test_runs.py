"""Folders of runs that were damaged on the way, as somebody goes on with them."""

import os
import shutil
from pathlib import Path

import pytest

from common.console.progress import ProgressListener
from common.runs.result import read_result
from simulations.local import train_pooled
from tests.corpus.case import Case, call, held, ids, refused
from tests.corpus.runs import ENDED, INTERRUPTED, NEWEST, OLDER, PREDICTED
from tests.corpus.sites import picture
from tests.simulations.test_local import StopAt
from tests.simulations.tiny import tiny_config

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of sites, of a run that ended, and of the same one, interrupted."""
    root = tmp_path_factory.mktemp("runs")
    # Of b's 24 images 16 are trained on: 4 steps in each of 3 epochs.
    config = tiny_config(root, epochs=3)
    train_pooled(config.changed(run_name="ended"), root, ProgressListener())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.learning.loop.REPORT_SECONDS", 0.0)
        for step in (8, 10):
            again = config.changed(run_name="cut", resume=step > 8)
            with pytest.raises(KeyboardInterrupt):
                train_pooled(again, root, StopAt(step))
    return root


@pytest.fixture
def base(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the runs."""
    for name in ("ended", "cut"):
        shutil.copytree(template / name, tmp_path / name, symlinks=True)
    monkeypatch.setenv("XSITE_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize("case", PREDICTED, ids=ids(PREDICTED))
def test_to_be_predicted_with(case: Case, base: Path) -> None:
    case.make(base / "ended")
    image = picture(base / "scan.png")
    before = held(base)
    refused(case.said, "predict", base / "ended", image, "--site", "a", "--device", "cpu")
    assert held(base) == before


@pytest.mark.parametrize("case", ENDED, ids=ids(ENDED))
def test_to_be_gone_on_with_though_it_ended(case: Case, base: Path) -> None:
    case.make(base / "ended")
    before = held(base / "ended")
    refused(case.said, "train", "pooled", "--resume", base / "ended")
    assert held(base / "ended") == before


@pytest.mark.parametrize("case", INTERRUPTED, ids=ids(INTERRUPTED))
def test_to_be_gone_on_with(case: Case, template: Path, base: Path) -> None:
    """What serves gives the weights of the run that was never stopped; nothing else is written."""
    run = base / "cut"
    case.make(run)
    before = held(run / "checkpoint")
    if case.said:
        refused(case.said, "train", "pooled", "--resume", run)
        assert read_result(run)["status"] != "completed"
        assert held(run / "checkpoint") == before
    else:
        done = call("train", "pooled", "--resume", run)
        assert done.exit_code == 0, done.output
        weights = read_result(template / "ended")["weights_digest"]
        assert read_result(run)["weights_digest"] == weights


def test_a_pipe_is_no_image_to_be_predicted(base: Path) -> None:
    os.mkfifo(base / "pipe.png")
    words = ("predict", base / "ended", base / "pipe.png", "--site", "a")
    refused(r"There is no file or folder .*pipe\.png", *words)


def test_the_template_is_what_the_corpus_spoils(template: Path) -> None:
    assert (template / "cut" / NEWEST).exists() and (template / "cut" / OLDER).exists()
