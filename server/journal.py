"""What the server writes down: figures of every round, the weights, the run's result."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from common.data.folds import Leakage
from common.exchange.messages import SiteReply
from common.formatting.numbers import duration, size
from common.models.network import Network
from common.models.sharing import load_shared, pack, private_names, shared_names, unpack
from common.runs.weights import Which, save_shared, weights_name
from server.checkpoints import save_checkpoint
from server.exchange import Exchange
from server.images import record_images
from server.metrics import MetricsRow
from server.participants import RunContext
from server.run_folder import RunFolder
from server.state import SUBSETS, RunState, figures_by_site, site_figures


class Ending(NamedTuple):
    """How training ended: its last state, and what is said of its last and its best weights."""

    state: RunState
    final: Mapping[str, SiteReply]
    best: Mapping[str, SiteReply]


@dataclass(frozen=True)
class Journal:
    """The run's folder, and the network by which its weights are written."""

    folder: RunFolder
    """Where everything goes."""
    context: RunContext
    """The run."""
    network: Network
    """Of all sites. Put on the meta device: it takes memory only while weights are written."""
    say: Callable[[str], None]
    """Told of progress."""
    owner: str | None = None
    """In single-site training the site, in whose folder the shared tensors go."""

    def __post_init__(self) -> None:
        """Free the network's memory."""
        self.network.to("meta")

    def note_round(
        self,
        before: RunState,
        after: RunState,
        exchange: Exchange[Any],
        seconds_left: float,
    ) -> None:
        """Write all of a round, in an order that a kill at any point leaves whole."""
        self.note_figures(before, exchange.good)
        self.note_best(before, after)
        self.checkpoint(after)
        self.say(say_round(self.context, after, exchange, seconds_left))

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

    def finish(self, ending: Ending) -> None:
        """Write the final weights and the result, and call the run completed."""
        self.save_final(ending.state)
        self.folder.finish(self.result(ending))

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

    def result(self, ending: Ending) -> dict[str, Any]:
        """Return what ``result.json`` says of a completed run beyond its status.

        Its ``metrics`` are site → subset → figure → value, with the final weights; ``best`` is
        empty where validation chose none; the SHA-256 is of the final shared weights.
        """
        state, context, infos = ending.state, self.context, self.context.participants.infos
        chosen = {"round": state.best_round, "validation_auc": state.best_auc}
        best = site_figures(ending.best)
        return {
            "metrics": site_figures(ending.final),
            "best": {site: chosen | by_subset for site, by_subset in best.items()},
            "budget": context.plan.budget(context.config.batch_size),
            "images_seen": dict(state.images_seen),
            "train_images": {site: info.train_images for site, info in infos.items()},
            "leakage": [tell_leakage(info.leakage) for info in infos.values()],
            "site_images": record_images(infos),
            "network": self.network.description,
            "shared": shared_names(self.network),
            "private": private_names(self.network),
            "seconds": state.seconds,
            "weights_digest": {"shared": sha256(state.shared.data).hexdigest()},
            "bytes": {"down": state.bytes_down, "up": state.bytes_up},
        }


def tell_leakage(leakage: Leakage) -> dict[str, Any]:
    """Return what ``result.json`` says of a site's split."""
    return asdict(leakage) | {"sentence": leakage.sentence()}


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
    context: RunContext, after: RunState, exchange: Exchange[Any], seconds_left: float
) -> str:
    """Return a round's line for the log: losses, what was received, bytes, time left."""
    told = [_say_site(site, reply) for site, reply in exchange.good.items()]
    told += [f"{site} LEFT OUT: {fault}" for site, fault in exchange.faults.items()]
    down, up = exchange.size
    told += [f"{size(down)} down, {size(up)} up"] if context.exchanges else []
    return (
        f"round {after.round}/{context.plan.rounds}: {'; '.join(told)}; "
        f"{duration(seconds_left, estimated=True)} left"
    )


def _say_site(site: str, reply: SiteReply) -> str:
    told = f"{site} loss {reply.metrics.get('train/loss', math.nan):.4f}"
    tests = _tests({site: reply})
    # Whose figures they are need not be said of a site that speaks for itself.
    figures = _say_figures(tests[site]) if list(tests) == [site] else _say_tests(tests)
    return f"{told} (after round {reply.round - 1}: {figures})" if tests else told


def _tests(replies: Mapping[str, SiteReply]) -> dict[str, Mapping[str, float]]:
    by_site = site_figures(replies).items()
    return {site: by_subset["test"] for site, by_subset in by_site if "test" in by_subset}


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
