from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.round import flatten, receive
from clients.site import OpenSite
from clients.store import digest_of
from common.errors import ReplyError, RunError, StoreError
from common.exchange.fingerprint import code_fingerprint
from common.exchange.messages import RoundReply
from common.learning.evaluation import estimate_statistics, evaluate_site
from common.learning.latest import LatestEmbeddings, prototypes_of
from common.learning.loop import joint_batch, train
from common.learning.optimiser import make_optimizer
from common.learning.prototypes import Prototypes, make_prototypes
from common.models.network import Network
from common.models.sharing import private_state, unpack
from tests.clients.opened import opened, order, train_round
from tests.federation.hospitals import tiny_config

STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}
SOUTH = Prototypes(
    "south",
    np.array([0, 1]),
    np.eye(2, 32, 0, np.float32).reshape(2, 4, 8),
    np.array([4, 4]),
)


@pytest.fixture
def site(tmp_path: Path) -> OpenSite:
    return opened(tiny_config(tmp_path, validation_fraction=0.3))


def stored(site: OpenSite) -> list[int]:
    return site.store().rounds()


def second(site: OpenSite, first: RoundReply, **values: Any) -> RoundReply:
    """Do the second round, for which the server has averaged something else."""
    shared = first.shared * np.float32(0.9)
    own = {"round": 2, "previous": 1, "steps": range(2, 4), "shared": shared}
    return train_round(site, order(site, **own | values))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_a_reply_says_who_what_and_on_how_many_images(site: OpenSite) -> None:
    asked = order(site)
    reply = train_round(site, asked)
    assert (reply.run, reply.round, reply.site) == ("run", 1, "north")
    assert reply.fingerprint == code_fingerprint()
    assert reply.images == len(site.alone.split.train) == sum(site.class_counts)
    assert reply.layout.size == reply.shared.size == asked.shared.size
    assert not np.array_equal(reply.shared, asked.shared)
    assert reply.metrics["train/images"] == 8  # two steps of four
    assert reply.prototypes.counts.tolist() == list(site.class_counts)


def test_figures_are_those_of_the_weights_received_and_not_of_those_trained(
    site: OpenSite,
) -> None:
    first = train_round(site, order(site))
    reply = second(site, first, shared=first.shared * np.float32(0.9))
    network = site.network()
    unpack(network, first.shared * np.float32(0.9))
    state = site.store().load(1)
    for name, tensor in state.private.items():
        network.state_dict()[name].copy_(tensor)
    estimate_statistics(network, site.alone, site.config)
    expected = evaluate_site(network, site.alone, site.config)
    told = {k: v for k, v in reply.metrics.items() if k.startswith(("test/", "validation/"))}
    assert told == pytest.approx(flatten(site, {site.name: expected}), rel=1e-12, nan_ok=True)
    assert {f"{part}/auc" for part in ("test", "validation")} < set(told)


def received(site: OpenSite, **values: Any) -> Network:
    network = site.network()
    receive(site, order(site, **values), network, site.store())
    return network


def test_statistics_are_estimated_anew_unless_the_weights_are_the_site_s_own(
    site: OpenSite,
) -> None:
    first = train_round(site, order(site))
    trained = dict(site.store().load(1).private)
    alone = received(site, round=2, previous=1, shared=first.shared)
    assert same(private_state(alone), trained)
    averaged = private_state(received(site, round=2, previous=1, shared=first.shared * 0.5))
    changed = {name for name in trained if not torch.equal(averaged[name], trained[name])}
    assert changed
    assert {name.rpartition(".")[2] for name in changed} == STATISTICS
    assert {name for name in trained if name.endswith("running_mean")} <= changed
    # A round that only trains goes on with what it has.
    unseen = received(site, round=2, previous=1, shared=first.shared * 0.5, evaluate=False)
    assert same(private_state(unseen), trained)


def test_a_site_that_joins_late_estimates_its_statistics_under_the_average(
    site: OpenSite,
) -> None:
    initial = private_state(received(site))
    assert same(initial, private_state(site.network()))
    late = private_state(received(site, round=3))
    assert not same(late, initial)


def test_what_is_stored_is_the_end_of_the_round_and_what_was_sent(site: OpenSite) -> None:
    reply = train_round(site, order(site))
    state = site.store().load(1)
    assert state.sent == digest_of(reply.shared)
    assert set(state.private) == set(private_state(site.network()))
    assert len(state.moments) == 3 * len(list(site.network().parameters()))
    assert float(state.moments["0/step"]) == 2
    assert stored(site) == [1]
    again = second(site, reply)
    state = site.store().load(2)
    assert (state.sent, float(state.moments["0/step"])) == (digest_of(again.shared), 4)
    assert stored(site) == [1, 2]


def test_moments_that_are_reset_are_not_kept(tmp_path: Path) -> None:
    carry = opened(tiny_config(tmp_path))
    reset = opened(tiny_config(tmp_path, optimizer_state="reset", runs_dir=str(tmp_path / "r")))
    replies = [train_round(one, order(one)) for one in (carry, reset)]
    assert np.array_equal(replies[0].shared, replies[1].shared)
    assert reset.store().load(1).moments == {}
    later = [second(one, first) for one, first in zip((carry, reset), replies, strict=True)]
    assert not np.array_equal(later[0].shared, later[1].shared)


def test_averaged_moments_come_with_the_order_and_private_ones_are_the_site_s_own(
    tmp_path: Path,
) -> None:
    """What a site that was there goes on from, and one that joins late: the same shared moments."""
    site = opened(tiny_config(tmp_path, optimizer_state="average"))
    first = train_round(site, order(site))
    kept = site.store().load(1).moments
    own = [name for name, _ in site.network().named_parameters()]
    names = {own[int(key.partition("/")[0])] for key in kept if key.endswith("/step")}
    assert names == set(own) & private_state(site.network()).keys() != set()
    average = {key: np.float32(0.5) * array for key, array in first.moments.items()}
    other = second(site, first, moments=first.moments)
    there = second(site, first, moments=average)
    assert not np.array_equal(other.shared, there.shared)
    private = [float(site.store().load(2).moments[key]) for key in kept if key.endswith("/step")]
    assert set(private) == {4.0}
    late = second(site, first, moments=average, previous=0)
    assert set(first.moments["step"]) == {2.0}
    assert set(there.moments["step"]) == set(late.moments["step"]) == {3.0}


def test_an_order_without_the_average_of_the_rounds_before_is_refused(tmp_path: Path) -> None:
    site = opened(tiny_config(tmp_path, optimizer_state="average"))
    first = train_round(site, order(site))
    with pytest.raises(ReplyError, match="missing: exp_avg, exp_avg_sq, step"):
        second(site, first)
    with pytest.raises(ReplyError, match="moments after 7 to 7 steps, of 2"):
        second(site, first, moments=dict(first.moments) | {"step": first.moments["step"] + 5})
    with pytest.raises(ReplyError, match="The message holds exp_avg, exp_avg_sq, step"):
        train_round(site, order(site, moments=first.moments))


def test_the_same_order_twice_gives_the_same_reply_to_the_bit(site: OpenSite) -> None:
    """A server that was killed asks again; what the first answer left is no part of the second."""
    first = train_round(site, order(site))
    replies = [second(site, first) for _ in range(2)]
    assert replies[0].shared.tobytes() == replies[1].shared.tobytes()
    vectors = [reply.prototypes.vectors.tobytes() for reply in replies]
    assert vectors[0] == vectors[1]


def test_a_site_that_shall_go_on_from_what_it_lacks_refuses(site: OpenSite) -> None:
    with pytest.raises(StoreError, match="shall go on from round 2"):
        train_round(site, order(site, round=3, previous=2))
    assert stored(site) == []


@pytest.mark.parametrize("where", ["received", "trained"])
def test_a_round_that_breaks_stores_nothing(tmp_path: Path, where: str) -> None:
    values: dict[str, Any] = {
        "optimizer": "sgd",
        "learning_rate": 1e30,
        "clip_norm": 0.0,
        "schedule": "constant",
    }
    site = opened(tiny_config(tmp_path, **values if where == "trained" else {}))
    asked = order(site)
    if where == "received":
        asked.shared[7] = np.nan
    with pytest.raises(RunError):
        train_round(site, asked)
    assert stored(site) == []


def test_the_others_prototypes_pull_and_its_own_do_not(site: OpenSite) -> None:
    counts = {"south": (4, 4), "north": site.class_counts}
    alone = train_round(site, order(site))
    met = train_round(site, order(site, prototypes=(SOUTH,), class_counts=counts))
    own = replace(SOUTH, site="north")
    itself = train_round(site, order(site, prototypes=(own,), class_counts=counts))
    assert not np.array_equal(met.shared, alone.shared)
    assert met.metrics["train/contrastive"] != alone.metrics["train/contrastive"]
    assert itself.shared.tobytes() == alone.shared.tobytes()


def test_without_the_contrastive_term_prototypes_are_neither_met_nor_made(
    tmp_path: Path,
) -> None:
    site = opened(tiny_config(tmp_path, alpha=0.0))
    alone = train_round(site, order(site))
    assert len(alone.prototypes.classes) == 0
    met = train_round(site, order(site, prototypes=(SOUTH,), class_counts={"south": (4, 4)}))
    assert met.shared.tobytes() == alone.shared.tobytes()


def test_a_site_alone_makes_no_prototypes(tmp_path: Path) -> None:
    site = opened(tiny_config(tmp_path, ("north",)), nodes=1)
    assert train_round(site, order(site)).prototypes.vectors.shape == (0, 4, 8)


def test_a_class_with_too_few_images_sends_no_prototype(tmp_path: Path) -> None:
    site = opened(tiny_config(tmp_path, min_prototype_count=6))
    assert site.class_counts == (6, 6)
    # Three steps of four images: every training image once.
    every = order(site, steps=range(3))
    assert train_round(site, every).prototypes.counts.tolist() == [6, 6]
    few = opened(tiny_config(tmp_path, min_prototype_count=7, runs_dir=str(tmp_path / "few")))
    assert len(train_round(few, order(few, steps=range(3))).prototypes.classes) == 0


def test_prototypes_are_of_what_training_saw_last_in_this_round_and_the_ones_before(
    tmp_path: Path,
) -> None:
    """By hand: the projections of each step's batch, before that step."""
    # Of 14 images, three whole batches of four.
    config = tiny_config(tmp_path, prototype_images=14, prototype_rank=1, learning_rate=1e-9)
    site = opened(config)
    first = train_round(site, order(site, steps=range(0, 2)))
    second = train_round(
        site, order(site, round=2, previous=1, steps=range(2, 4), shared=first.shared)
    )
    network = site.network()
    unpack(network, first.shared)
    found = []
    for step in range(1, 4):
        images, targets, slices, indices = joint_batch([site.alone], [None], config, step)
        said = network.train()(images, slices).projection.detach().numpy()
        found += zip(said, targets["class"].tolist(), indices.tolist(), strict=True)
    for label in (0, 1):
        own = [one for one in found if one[1] == label]
        projections = np.array([projection for projection, _, _ in own])
        expected = make_prototypes("north", projections, np.full(len(own), label), 1, 1)
        # With next to no learning rate the weights stay as they were.
        np.testing.assert_allclose(
            second.prototypes.vectors[label][:2], expected.vectors[0][:2], atol=1e-5
        )
        assert second.prototypes.counts[label] == len({image for _, _, image in own})


def test_making_prototypes_leaves_running_statistics_as_they_are(site: OpenSite) -> None:
    config, network = site.config, site.network()
    latest = LatestEmbeddings(config, {})
    train(
        network,
        make_optimizer(network, config),
        [site.alone],
        config,
        range(3),
        6,
        on_batch=latest.add,
    )
    before = private_state(network)
    made = prototypes_of("north", latest.arrays(), network, config)
    assert len(made.classes) == 2
    assert same(before, private_state(network))


def test_the_received_average_s_normalisation_is_kept_while_it_may_be_chosen(
    site: OpenSite,
) -> None:
    first = train_round(site, order(site))
    folder = site.own / "store"
    assert list(folder.glob("evaluated-*")) == []  # nobody chooses the initial weights
    shared = first.shared * np.float32(0.9)
    second(site, first)
    kept = site.store().load_evaluated(1).private
    assert same(dict(kept), private_state(received(site, round=2, previous=1, shared=shared)))


def test_without_validation_images_nothing_is_kept_to_choose_from(tmp_path: Path) -> None:
    site = opened(tiny_config(tmp_path))
    second(site, train_round(site, order(site)))
    assert list((site.own / "store").glob("evaluated-*")) == []


def test_the_site_s_log_says_what_left_it(site: OpenSite) -> None:
    asked = order(site)
    reply = train_round(site, asked)
    log = (site.own / "log.txt").read_text()
    assert "run run, round 1: 2 steps in " in log
    moved = np.linalg.norm(reply.shared.astype(np.float64) - asked.shared)
    assert f"weights moved by {moved:.4g}; sent" in log
    images = sum(site.class_counts)
    assert f"sent {reply.shared.nbytes:,} bytes of shared tensors, prototypes of 2 classes" in log
    assert f"over {images} images, figures" in log
