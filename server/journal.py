"""What the server writes down: figures of every round, the weights, the run's result."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from common.data.folds import Leakage
from common.exchange.messages import RoundReply, SiteReply
from common.formatting.numbers import duration, size
from common.models.network import Network
from common.models.sharing import load_shared, pack, private_names, shared_names, unpack
from common.runs.weights import Which, save_shared, weights_name
from server.checkpoints import save_checkpoint
from server.exchange import Exchange, RunContext
from server.metrics import MetricsRow
from server.run_folder import RunFolder
from server.state import SUBSETS, RunState, figures_by_site


@dataclass(frozen=True)
class TrainingResult:
    """What ``result.json`` says of a completed run beyond its status: the same in every mode.

    Attributes
    ----------
    metrics : mapping
        Site → subset → figure → value, with the final weights.
    best : mapping
        Site → ``round`` and ``validation_auc`` of the weights that validation chose, and subset →
        figures with these; empty where it chose none.
    budget : mapping
        As :meth:`server.schedule.Plan.budget` tells it.
    images_seen, train_images : mapping of str to int
        Site → images trained on, repetitions included; site → training images that it has.
    leakage : sequence of Leakage
        Of every site.
    network : str
        Its description.
    shared, private : sequence of str
        Names of the tensors.
    seconds : float
        Of all rounds.
    weights_digest : mapping of str to str
        SHA-256 of the final weights: of the shared ones, or by site where there are all.
    bytes_down, bytes_up : int
        To and from all sites; 0 where nothing is exchanged.
    device : str
        Where it trained; empty where every site has a device of its own.
    """

    metrics: Mapping[str, Any]
    best: Mapping[str, Any]
    budget: Mapping[str, int]
    images_seen: Mapping[str, int]
    train_images: Mapping[str, int]
    leakage: Sequence[Leakage]
    network: str
    shared: Sequence[str]
    private: Sequence[str]
    seconds: float
    weights_digest: Mapping[str, str]
    bytes_down: int = 0
    bytes_up: int = 0
    device: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is written."""
        told = dict(vars(self))
        told["bytes"] = {"down": told.pop("bytes_down"), "up": told.pop("bytes_up")}
        told["leakage"] = [asdict(one) | {"sentence": one.sentence()} for one in self.leakage]
        if not self.device:
            del told["device"]
        return told


@dataclass(frozen=True)
class Journal:
    """The run's folder, and the network by which its weights are written.

    Attributes
    ----------
    folder : RunFolder
        Where everything goes.
    context : RunContext
        The run.
    network : Network
        Of all sites. Put on the meta device: it takes memory only while weights are written.
    owner : str or None
        In single-site training the site, in whose folder the shared tensors go.
    """

    folder: RunFolder
    context: RunContext
    network: Network
    owner: str | None = None

    def __post_init__(self) -> None:
        """Free the network's memory."""
        self.network.to("meta")

    def note_figures(self, state: RunState, replies: Mapping[str, SiteReply]) -> None:
        """Write what the sites say of a round's average: the rows of that round."""
        rows = rows_of(self.context, state, replies)
        if state.round and rows:
            self.folder.add_metrics(rows, state.round, self.owner and [self.owner])

    def note_best(self, before: RunState, after: RunState) -> None:
        """Write the last average if validation has just chosen it."""
        if after.best_round == before.round and before.best_round != before.round:
            self._save(before.shared, "best")

    def chosen(self) -> NDArray[Any]:
        """Return the shared tensors that :meth:`note_best` wrote last, shape (layout.size,)."""
        with self._in_memory() as network:
            load_shared(self.shared_file("best"), network)
            return pack(network)

    def checkpoint(self, state: RunState) -> None:
        """Write what a resumed server needs."""
        save_checkpoint(self.checkpoints, state, self.context.config.digest())

    def shared_file(self, which: Which) -> Path:
        """Return the file of the shared tensors."""
        folder = self.folder.site(self.owner) if self.owner else self.folder.path
        return folder / weights_name("shared", which)

    @property
    def checkpoints(self) -> Path:
        """The folder of what a resumed server needs."""
        return self.folder.path / "checkpoint" / (self.owner or "")

    def finish(
        self,
        state: RunState,
        final: Mapping[str, SiteReply],
        best: Mapping[str, SiteReply],
    ) -> None:
        """Write the final weights and the result, and call the run completed."""
        self.save_final(state)
        self.folder.finish(self.result(state, final, best).as_dict())

    def save_final(self, state: RunState) -> None:
        """Write the final weights."""
        self._save(state.shared, "final")

    def _save(self, shared: NDArray[Any], which: Which) -> None:
        with self._in_memory() as network:
            unpack(network, shared)
            save_shared(self.shared_file(which), network, self.folder.config)

    @contextmanager
    def _in_memory(self) -> Iterator[Network]:
        """Give the network memory within a block; its values are whatever lay there."""
        try:
            yield self.network.to_empty(device="cpu")
        finally:
            self.network.to("meta")

    def result(
        self, state: RunState, final: Mapping[str, SiteReply], best: Mapping[str, SiteReply]
    ) -> TrainingResult:
        """Return what ``result.json`` says of the run."""
        context = self.context
        infos = context.participants.infos
        return TrainingResult(
            metrics=site_figures(final),
            best=chosen_figures(state, best),
            budget=context.plan.budget(context.config.batch_size),
            images_seen=dict(state.images_seen),
            train_images={site: info.train_images for site, info in infos.items()},
            leakage=[info.leakage for info in infos.values()],
            network=self.network.description,
            shared=shared_names(self.network),
            private=private_names(self.network),
            seconds=state.seconds,
            weights_digest={"shared": sha256(state.shared.data).hexdigest()},
            bytes_down=state.bytes_down,
            bytes_up=state.bytes_up,
        )


def site_figures(replies: Mapping[str, SiteReply]) -> dict[str, dict[str, dict[str, float]]]:
    """Return what replies say of their sites: site → subset → figure → value."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for participant, reply in replies.items():
        found |= figures_by_site(participant, reply.metrics)
    return found


def chosen_figures(state: RunState, best: Mapping[str, SiteReply]) -> dict[str, dict[str, Any]]:
    """Return what ``result.json`` says of the weights that validation chose, by site."""
    chosen = {"round": state.best_round, "validation_auc": state.best_auc}
    return {site: chosen | by_subset for site, by_subset in site_figures(best).items()}


def rows_of(
    context: RunContext, state: RunState, replies: Mapping[str, SiteReply]
) -> list[MetricsRow]:
    """Return the rows of a state's round: its training, and what replies say of its average.

    A round whose average nobody evaluated has a row too: its losses and bytes count.
    """
    rows = []
    for participant, reply in replies.items():
        trained = state.figures.get(participant, {})
        by_site = figures_by_site(participant, reply.metrics)
        rows += [
            MetricsRow(
                round=state.round,
                step=context.plan.end(state.round),
                site=site,
                subset=subset,
                figures=figures,
                train_loss=trained.get("train/loss", math.nan),
                train_cross_entropy=trained.get("train/cross_entropy", math.nan),
                train_contrastive=trained.get("train/contrastive", math.nan),
                # A batch holds as many images of every site.
                images_seen=state.images_seen.get(participant, 0) // len(by_site),
                seconds=state.seconds,
                bytes_down=int(trained.get("bytes/down", 0)),
                bytes_up=int(trained.get("bytes/up", 0)),
            )
            for site, by_subset in by_site.items()
            for subset, figures in (by_subset or {SUBSETS[0]: {}}).items()
        ]
    return rows


def say_round(
    context: RunContext, after: RunState, exchange: Exchange[RoundReply], seconds_left: float
) -> str:
    """Return a round's line for the log: losses, what was received, bytes, time left."""
    told = [_say_site(site, reply) for site, reply in exchange.good.items()]
    told += [f"{site} LEFT OUT: {fault}" for site, fault in exchange.faults.items()]
    down = sum(down for down, _ in exchange.traffic.values())
    up = sum(up for _, up in exchange.traffic.values())
    told += [f"{size(down)} down, {size(up)} up"] if context.exchanges else []
    return (
        f"round {after.round}/{context.plan.rounds}: {'; '.join(told)}; "
        f"{duration(seconds_left, estimated=True)} left"
    )


def _say_site(site: str, reply: RoundReply) -> str:
    told = f"{site} loss {reply.metrics.get('train/loss', math.nan):.4f}"
    tests = _tests(site, reply)
    # Whose figures they are need not be said of a site that speaks for itself.
    figures = _say_figures(tests[site]) if list(tests) == [site] else _say_tests(tests)
    return f"{told} (after round {reply.round - 1}: {figures})" if tests else told


def _tests(participant: str, reply: SiteReply) -> dict[str, Mapping[str, float]]:
    by_site = figures_by_site(participant, reply.metrics)
    return {site: by_subset["test"] for site, by_subset in by_site.items() if "test" in by_subset}


def _say_tests(tests: Mapping[str, Mapping[str, float]]) -> str:
    return "; ".join(f"{site} {_say_figures(test)}" for site, test in tests.items())


def _say_figures(test: Mapping[str, float]) -> str:
    shown = (("accuracy", "accuracy"), ("auc", "AUC"))
    told = [(label, test.get(name, math.nan)) for name, label in shown]
    return ", ".join(f"{label} {value:.3f}" for label, value in told if math.isfinite(value))


def say_final(replies: Mapping[str, SiteReply], title: str) -> str:
    """Return the line of an evaluation at the end."""
    tests = {site: by_subset.get("test", {}) for site, by_subset in site_figures(replies).items()}
    return f"{title}: {_say_tests(tests)}"
