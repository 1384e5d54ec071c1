"""Pooled and single-site training: the same weights however often they are interrupted."""

import csv
import fcntl
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from clients.prediction import predict_images
from common.config.schema import Config
from common.console.progress import ProgressListener
from common.errors import ConfigError, RunError, SiteError
from common.runs.result import read_result
from common.runs.weights import load_run_network
from common.tensor_files import load_tensors
from server.metrics import read_rows
from simulations.comparison import METHODS, values_of
from simulations.local import train_pooled, train_single
from tests.simulations.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("interruptible")

Training = Callable[[Config, Path, ProgressListener], Path]


class StopAt(ProgressListener):
    """Presses Ctrl-C when a step is reported, as often as told."""

    def __init__(self, step: int, presses: int = 1) -> None:
        self.step_number, self.presses, self.taken = step, presses, []

    def step(self, done: int, loss: float, images_per_second: float) -> None:
        self.taken.append(done)
        if done == self.step_number and math.isfinite(loss):
            for _ in range(self.presses):
                os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def report_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.learning.loop.REPORT_SECONDS", 0.0)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.relative_to(run)}:{name}": tensor
        for file in sorted(run.rglob("*.safetensors"))
        for name, tensor in load_tensors(file)[0].items()
    }


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys() and first
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


# 12 images of b's 24 in two classes: folds of 3 leave 16 to train on, of a's 18 twelve.
# Steps of an epoch: ceil(16 / 4) = 4; of two epochs: 8.
STEPS, EPOCH = 8, 4


# With validation an epoch has 3 steps: within it, at its end, in the next one.
@pytest.mark.parametrize("step", [2, 3, 5])
def test_pooled_goes_on_bit_for_bit(tmp_path: Path, step: int) -> None:
    config = tiny_config(tmp_path, run_name="run", validation_fraction=0.3)
    whole = train_pooled(config, tmp_path / "whole", ProgressListener())
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        train_pooled(config, cut, StopAt(step))
    assert read_result(cut / "run")["status"] == "interrupted"
    later = StopAt(-1)
    train_pooled(config.changed(resume=True), cut, later)
    trained = [done for done in later.taken if done > 0]
    assert step + 1 in trained and step not in trained[trained.index(step + 1) :]
    assert_same_weights(whole, cut / "run")
    before, after = read_rows(whole / "metrics.csv"), read_rows(cut / "run" / "metrics.csv")
    assert [(r.round, r.site, r.subset, r.figures["auc"]) for r in before] == [
        (r.round, r.site, r.subset, r.figures["auc"]) for r in after
    ]
    assert [r.train_loss for r in after] == pytest.approx([r.train_loss for r in before], rel=1e-12)
    results = [read_result(whole), read_result(cut / "run")]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["best"] == results[1]["best"]


@pytest.mark.parametrize("method", ["joint", "joint-original", "series-adapters", "ms-net"])
def test_a_compared_method_goes_on_bit_for_bit(tmp_path: Path, method: str) -> None:
    values = {key.replace("-", "_"): value for key, value in values_of(METHODS[method]).items()}
    config = tiny_config(tmp_path, run_name="run", **values)
    whole = train_pooled(config, tmp_path / "whole", ProgressListener())
    with pytest.raises(KeyboardInterrupt):
        train_pooled(config, tmp_path / "cut", StopAt(EPOCH + 1))
    train_pooled(config.changed(resume=True), tmp_path / "cut", ProgressListener())
    assert_same_weights(whole, tmp_path / "cut" / "run")


def test_single_goes_on_in_its_second_site(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="run", local_steps=6)
    whole = train_single(config, tmp_path / "whole", ProgressListener())

    class InSecond(StopAt):
        def start(self, title: str, total_steps: int) -> None:
            self.step_number = 5 if title.endswith("of b") else -1

    with pytest.raises(KeyboardInterrupt):
        train_single(config, tmp_path / "cut", InSecond(-1))
    train_single(config.changed(resume=True), tmp_path / "cut", ProgressListener())
    assert_same_weights(whole, tmp_path / "cut" / "run")
    rows = read_rows(tmp_path / "cut" / "run" / "metrics.csv")
    # 8 steps in rounds of 6: after 6 and 8 steps, at both sites.
    assert sorted((r.site, r.round, r.step) for r in rows) == [
        (site, number, step) for site in "ab" for number, step in ((1, 6), (2, 8))
    ]


def test_a_second_ctrl_c_does_not_wait_and_loses_no_more_than_a_round(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="run")
    whole = train_pooled(config, tmp_path / "whole", ProgressListener())
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        train_pooled(config, cut, StopAt(EPOCH + 2, presses=2))
    kept = (cut / "run" / "checkpoint").glob("*.safetensors")
    assert [file.name for file in kept] == ["round-0001.safetensors"]
    train_pooled(config.changed(resume=True), cut, ProgressListener())
    assert_same_weights(whole, cut / "run")


def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    # More exchanges an epoch than one change nothing where nothing is exchanged.
    config = tiny_config(tmp_path, run_name="run", local_steps=2)
    whole = train_pooled(config, tmp_path / "whole", ProgressListener())
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        train_pooled(config, cut, StopAt(7))
    places = (cut / "run" / "checkpoint", cut / "run" / "checkpoint" / "unfinished")
    (ended,), (begun,) = (list(place.glob("*.safetensors")) for place in places)
    assert (ended.name, begun.name) == ("round-0001.safetensors", "round-0002.safetensors")
    assert load_tensors(begun)[0]["memory/done"][-1] == 7
    begun.write_bytes(begun.read_bytes()[:1000])
    train_pooled(config.changed(resume=True), cut, ProgressListener())
    assert_same_weights(whole, cut / "run")


def test_all_modes_have_one_budget(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    pooled = train_pooled(config.changed(run_name="p"), tmp_path, ProgressListener())
    single = train_single(config.changed(run_name="s"), tmp_path, ProgressListener())
    for run in (pooled, single):
        result = read_result(run)
        assert result["status"] == "completed"
        assert result["budget"]["steps"] == STEPS
        assert result["images_seen"] == {"a": STEPS * 4, "b": STEPS * 4}
        assert result["seconds"] > 0
        assert [entry["site"] for entry in result["leakage"]] == ["a", "b"]
        assert {row.images_seen for row in read_rows(run / "metrics.csv")} == {16, 32}
    assert (single / "sites" / "a" / "shared.safetensors").exists()
    assert not (single / "shared.safetensors").exists()
    assert not (pooled / "checkpoint").exists()
    own = load_tensors(single / "sites" / "a" / "shared.safetensors")[0]
    other = load_tensors(single / "sites" / "b" / "shared.safetensors")[0]
    assert any(not torch.equal(own[name], other[name]) for name in own)


def test_single_does_not_depend_on_who_else_takes_part(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    both = train_single(config.changed(run_name="both"), tmp_path, ProgressListener())
    # b is the larger site: alone it takes the same number of steps.
    alone = train_single(config.changed(run_name="b", sites="b"), tmp_path, ProgressListener())
    pooled = train_pooled(config.changed(run_name="p", sites="b"), tmp_path, ProgressListener())
    first = load_tensors(both / "sites" / "b" / "shared.safetensors")[0]
    second = load_tensors(alone / "sites" / "b" / "shared.safetensors")[0]
    third = load_tensors(pooled / "shared.safetensors")[0]
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]) and torch.equal(tensor, third[name]), name


def test_validation_chooses_the_best_round(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="v", validation_fraction=0.3, epochs=4, local_steps=2)
    run = train_pooled(config, tmp_path, ProgressListener())
    rows = [row for row in read_rows(run / "metrics.csv") if row.subset == "validation"]
    means: dict[int, float] = {}
    for row in rows:
        means[row.round] = means.get(row.round, 0.0) + row.figures["auc"] / 2
    best = max(means, key=lambda number: (means[number], -number))
    told = read_result(run)["best"]
    assert told["a"]["round"] == told["b"]["round"] == best
    assert told["a"]["validation_auc"] == pytest.approx(means[best], abs=1e-12)
    tested = {
        row.site: row.figures["auc"]
        for row in read_rows(run / "metrics.csv")
        if row.round == best and row.subset == "test"
    }
    assert {site: told[site]["test"]["auc"] for site in "ab"} == pytest.approx(tested)
    load_run_network(run, "a", "best")


def test_the_written_network_predicts_what_was_written(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="run")
    for training in (train_pooled, train_single):
        run = training(config.changed(run_name=training.__name__), tmp_path, ProgressListener())
        with (run / "sites" / "b" / "predictions.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["subset"] == "test"]
        files = [tmp_path / "data" / "b" / row["file"] for row in rows]
        found = predict_images(run, "b", files, device="cpu")
        expected = [[float(row["non-covid"]), float(row["covid"])] for row in rows]
        np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=1e-7)


def test_an_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="run")
    train_pooled(config, tmp_path, ProgressListener())
    before = weights(tmp_path / "run")
    with pytest.raises(RunError, match="exists already"):
        train_pooled(config.changed(seed=1), tmp_path, ProgressListener())
    with pytest.raises(RunError, match=r"seed \(0 there, 1 here\)"):
        train_pooled(config.changed(seed=1, resume=True), tmp_path, ProgressListener())
    with pytest.raises(RunError, match="is pooled training, not single"):
        train_single(config.changed(resume=True), tmp_path, ProgressListener())
    # A run that is complete stays as it is.
    train_pooled(config.changed(resume=True), tmp_path, ProgressListener())
    assert all(torch.equal(t, before[name]) for name, t in weights(tmp_path / "run").items())


def test_data_and_network_are_checked_before_a_folder_is_made(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="run")
    with pytest.raises(SiteError, match="nowhere"):
        train_pooled(config.changed(sites="a,nowhere"), tmp_path, ProgressListener())
    with pytest.raises(ConfigError, match="backbone"):
        train_pooled(config.changed(backbone="alexnet"), tmp_path, ProgressListener())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "part",
    [
        {"proximal": 1.0},
        {"model_contrast": 1.0},
        {"prototype_pull": 1.0},
        {"algorithm": "fedadam"},
        {"share": "prototypes"},
    ],
)
def test_what_needs_an_exchange_is_refused(tmp_path: Path, part: dict[str, float | str]) -> None:
    key = next(iter(part)).replace("_", "-")
    for training, mode in ((train_pooled, "pooled"), (train_single, "single")):
        with pytest.raises(ConfigError, match=f"^{key} is .*{mode} training"):
            training(tiny_config(tmp_path, run_name="run", **part), tmp_path, ProgressListener())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", [{"adapters": "parallel"}, {"auxiliary": True}])
def test_a_network_with_a_site_s_own_modules_predicts_what_was_written(
    tmp_path: Path, part: dict[str, str | bool]
) -> None:
    run = train_pooled(tiny_config(tmp_path, run_name="run", **part), tmp_path, ProgressListener())
    with (run / "sites" / "b" / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["subset"] == "test"]
    found = predict_images(
        run, "b", [tmp_path / "data" / "b" / row["file"] for row in rows], device="cpu"
    )
    expected = [[float(row["non-covid"]), float(row["covid"])] for row in rows]
    np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=1e-7)


def test_a_run_that_fails_says_so(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="run", learning_rate=1e30, optimizer="sgd", clip_norm=0)
    with pytest.raises(RunError, match="no longer finite"):
        train_pooled(config, tmp_path, ProgressListener())
    result = read_result(tmp_path / "run")
    assert result["status"] == "failed" and "no longer finite" in result["reason"]


def test_what_an_earlier_version_began_is_refused_and_what_it_ended_is_not(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="run")
    with pytest.raises(KeyboardInterrupt):
        train_pooled(config, tmp_path, StopAt(2))
    run = tmp_path / "run"
    (run / "checkpoint" / "unfinished" / "round-0001.safetensors").rename(
        run / "checkpoint" / "step-0000002.safetensors"
    )
    before = (run / "result.json").read_bytes()
    with pytest.raises(RunError, match=r"begun by an earlier version of xsite.* start a new run"):
        train_pooled(config.changed(resume=True), tmp_path, ProgressListener())
    assert (run / "result.json").read_bytes() == before
    (run / "checkpoint" / "step-0000002.safetensors").unlink()
    train_pooled(config.changed(resume=True), tmp_path, ProgressListener())
    assert train_pooled(config.changed(resume=True), tmp_path, ProgressListener()) == run


def test_nothing_of_the_participant_or_of_flower_stays(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="run")
    for training in (train_pooled, train_single):
        run = training(config.changed(run_name=training.__name__), tmp_path, ProgressListener())
        assert read_result(run)["bytes"] == {"down": 0, "up": 0}
        files = {path.name for path in run.rglob("*") if "tfevents" not in path.name}
        assert files == {
            *(".lock", "config.toml", "environment.json", "log.txt", "metrics.csv", "result.json"),
            *("shared.safetensors", "private.safetensors", "predictions.csv"),
            *("sites", "tensorboard", "a", "b"),
        }


def test_two_processes_do_not_write_one_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="run")
    with pytest.raises(KeyboardInterrupt):
        train_pooled(config, tmp_path, StopAt(2))
    with (tmp_path / "run" / ".lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="Another process"):
            train_pooled(config.changed(resume=True), tmp_path, ProgressListener())
