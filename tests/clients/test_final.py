import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clients.final import evaluate_last
from clients.site import OpenSite
from common.config.schema import Config
from common.errors import StoreError
from common.exchange.fingerprint import code_fingerprint
from common.exchange.messages import RoundOrder, SiteReply
from common.learning.evaluation import evaluate_site
from common.models.sharing import pack, private_state
from common.runs.predictions import read_predictions
from common.runs.weights import load_run_network
from common.tensor_files import load_tensors
from tests.clients.opened import opened, order, train_round
from tests.federation.hospitals import tiny_config


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config, NDArray[Any]]:
    """Two rounds of one site, simulated and deployed, and the weights of the second's average."""
    folder = tmp_path_factory.mktemp("template")
    config = tiny_config(folder, validation_fraction=0.3)
    for nodes in (0, 2):
        site = opened(config, nodes=nodes)
        first = train_round(site, order(site))
        shared = first.shared * np.float32(0.9)
        again = {"round": 2, "previous": 1, "steps": range(2, 4), "shared": shared, "best": 1}
        train_round(site, order(site, **again))
    return folder, config, shared * np.float32(0.9)


Trained = Callable[..., tuple[OpenSite, RoundOrder]]


@pytest.fixture
def trained(template: tuple[Path, Config, NDArray[Any]], tmp_path: Path) -> Trained:
    """Return a function that opens a copy of that site, and orders to evaluate that average."""
    folder, config, shared = template
    for part in ("runs", "state"):
        shutil.copytree(folder / part, tmp_path / part)

    def open_copy(nodes: int = 2) -> tuple[OpenSite, RoundOrder]:
        site = opened(config.changed(runs_dir=str(tmp_path / "runs")), nodes=nodes)
        last = {"round": 2, "previous": 2, "best": 1, "steps": range(0), "shared": shared}
        return site, order(site, purpose="final", **last)

    return open_copy


def best(site: OpenSite, final: RoundOrder) -> RoundOrder:
    """Return the order to evaluate the average of round 1, which validation chose."""
    shared = final.shared / np.float32(0.9)
    return order(site, purpose="best", round=1, previous=2, best=1, steps=range(0), shared=shared)


def same(one: SiteReply, other: SiteReply) -> bool:
    return one.metrics == pytest.approx(dict(other.metrics), rel=0, abs=0, nan_ok=True)


def test_the_last_figures_leave_and_the_predictions_stay(trained: Trained) -> None:
    site, asked = trained()
    reply = evaluate_last(site, asked)
    assert type(reply) is SiteReply
    assert (reply.run, reply.round, reply.site) == ("run", 2, "north")
    assert reply.fingerprint == code_fingerprint()
    assert {name.partition("/")[0] for name in reply.metrics} == {"test", "validation"}
    for subset, part in (
        ("test", site.alone.split.test),
        ("validation", site.alone.split.validation),
    ):
        said = read_predictions(site.own / "predictions.csv", subset)
        assert list(said.files) == [site.alone.data.files[index] for index in part]
        assert said.labels.tolist() == site.alone.data.labels[part].tolist()
        right = said.probabilities.argmax(axis=1) == said.labels
        assert reply.metrics[f"{subset}/accuracy"] == right.mean()
        assert reply.metrics[f"{subset}/images"] == len(part)
    low, auc, high = (reply.metrics[f"test/{name}"] for name in ("auc_low", "auc", "auc_high"))
    assert low <= auc <= high


def test_the_store_is_settled_and_an_answer_lost_can_be_given_again(trained: Trained) -> None:
    site, asked = trained()
    first = evaluate_last(site, asked)
    store = site.store()
    assert store.rounds() == [2]
    assert store.load(2).moments == {}
    assert same(evaluate_last(site, asked), first)


def test_the_chosen_weights_meet_the_normalisation_they_were_chosen_with(trained: Trained) -> None:
    site, asked = trained()
    kept = site.store().load_evaluated(1).private
    final = evaluate_last(site, asked)
    chosen = evaluate_last(site, best(site, asked))
    assert not same(chosen, final)
    assert chosen.round == 1
    network, _ = load_private_of(site, "best-private.safetensors")
    assert all(torch.equal(network[name], kept[name]) for name in kept)
    # The final weights' own files are left as they were.
    assert read_predictions(site.own / "best-predictions.csv", "test").labels.size
    said = read_predictions(site.own / "predictions.csv", "test")
    right = said.probabilities.argmax(axis=1) == said.labels
    assert final.metrics["test/accuracy"] == right.mean()
    assert same(evaluate_last(site, best(site, asked)), chosen)


def load_private_of(site: OpenSite, name: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    return load_tensors(site.own / name)


def test_the_last_round_itself_may_be_the_chosen_one(trained: Trained) -> None:
    """The server learns from the final figures that validation likes the last average best."""
    site, asked = trained()
    final = evaluate_last(site, asked)
    last = order(
        site, purpose="best", round=2, previous=2, best=2, steps=range(0), shared=asked.shared
    )
    assert same(evaluate_last(site, last), final)


def test_weights_that_were_never_evaluated_here_are_refused(trained: Trained) -> None:
    site, asked = trained()
    never = order(site, purpose="best", round=7, previous=2, steps=range(0), shared=asked.shared)
    with pytest.raises(StoreError, match="Validation chose round 7"):
        evaluate_last(site, never)
    assert not (site.own / "best-predictions.csv").exists()


def test_a_site_that_never_trained_evaluates_with_statistics_of_its_own_images(
    tmp_path: Path,
) -> None:
    """It was left out of every round: its normalisation is the initial one, estimated anew."""
    site = opened(tiny_config(tmp_path))
    asked = order(site, purpose="final", round=2, steps=range(0))
    reply = evaluate_last(site, asked)
    assert math.isfinite(reply.metrics["test/loss"])
    private, _ = load_private_of(site, "private.safetensors")
    initial = private_state(site.network())
    changed = {name for name in initial if not torch.equal(private[name], initial[name])}
    assert {name.rpartition(".")[2] for name in changed} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    assert site.store().rounds() == []


def test_a_hospital_keeps_a_whole_copy_of_the_model(trained: Trained, tmp_path: Path) -> None:
    site, asked = trained(nodes=0)
    # The coordinator left the name to the server; the copy's configuration has it.
    site = replace(site, config=site.config.changed(run_name=""))
    final = evaluate_last(site, asked)
    chosen = evaluate_last(site, best(site, asked))
    for which, expected in (("final", final), ("best", chosen)):
        network, config = load_run_network(
            tmp_path / "state/run", "north", "best" if which == "best" else "final"
        )
        assert config.run_name == "run"
        assert config.digest() == site.config.digest()
        found = evaluate_site(network, site.alone, config)
        assert found["test"].figures["loss"] == expected.metrics["test/loss"]
    network, _ = load_run_network(tmp_path / "state/run", "north")
    assert np.array_equal(pack(network), asked.shared)


def test_a_simulated_site_leaves_the_shared_weights_to_the_run(
    trained: Trained, tmp_path: Path
) -> None:
    site, asked = trained()
    evaluate_last(site, asked)
    assert (site.own / "private.safetensors").exists()
    assert not list(site.own.glob("*shared*"))
    assert not (tmp_path / "runs/run/config.toml").exists()
