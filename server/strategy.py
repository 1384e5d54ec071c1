"""The strategy: Flower's FedAvg, with xsite's messages, checks and average.

Flower's loop runs unchanged, but knows nothing of the weights: :class:`SiteAverage` alone holds
them. A round is what the state says is next, so that a resumed run goes on where it was. All
participants take part in every round; nobody is sampled. Sites may join between rounds.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from logging import INFO
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.supercore import log

from common.exchange.codecs.registry import find_codec
from common.exchange.messages import RoundReply, SiteReply
from common.methods.method import Averaged
from common.methods.registry import methods_of
from server.exchange import (
    Exchange,
    code_down,
    make_orders,
    require_enough,
    sort_replies,
)
from server.journal import Journal
from server.state import RunState, advance, choose


class SiteAverage(FedAvg):
    """Average what sites share; give each the others' prototypes.

    Parameters
    ----------
    journal : Journal
        Of the run: it has figures and checkpoint of a round before the next one begins.
    state : RunState
        Where it stands; ``self.state`` afterwards.
    prepare : callable
        Called before a round is ordered: sites may join.
    """

    def __init__(self, journal: Journal, state: RunState, prepare: Callable[[], None]) -> None:
        super().__init__()
        # Figures ride with the replies to training.
        self.fraction_evaluate = 0.0
        self.journal, self.context = journal, journal.context
        self.state, self.prepare = state, prepare
        self.sent: dict[str, Message] = {}
        self.begun, self.started = state.round, time.monotonic()
        self.since = self.started

    def summary(self) -> None:
        """Log who takes part."""
        for site, info in self.context.participants.infos.items():
            log(INFO, "\t├──> %s: %d training images", site, info.train_images)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Order a round of training from every site."""
        self.prepare()
        self.state, coded = code_down(self.context, self.state)
        self.sent = make_orders(self.context, self.state, "train", coded)
        return list(self.sent.values())

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[None, MetricRecord]:
        """Check the replies, average the good ones and note the round.

        Raises
        ------
        RunError
            If there are fewer good replies than ``min-sites`` asks for.
        """
        context, before = self.context, self.state
        round = before.round + 1
        exchange: Exchange[Any]
        if context.plan.alone(round):
            exchange = sort_replies(context, round, self.sent, replies, SiteReply)
        else:
            exchange = sort_replies(
                context, round, self.sent, replies, RoundReply, before.shared, before.moments
            )
        self.sent = {}
        require_enough(context, f"Round {round}", exchange)
        now = time.monotonic()
        self.state = advance(
            choose(before, exchange.good),
            exchange.good,
            context.config.aggregation,
            exchange.traffic,
            now - self.since,
        )
        if not context.plan.alone(round):
            self.state = self._combined(before, exchange.good)
        self.since = now
        begun, done = context.plan.end(self.begun), context.plan.end(round)
        left_seconds = (now - self.started) / (done - begun) * (context.plan.total_steps - done)
        self.journal.note_round(before, self.state, exchange, left_seconds)
        return None, MetricRecord({"sites": len(exchange.good)})

    def _combined(self, before: RunState, replies: Mapping[str, RoundReply]) -> RunState:
        """Return the state with what the methods make of the average of a round."""
        context, config = self.context, self.context.config
        average = Averaged(
            config,
            context.layout,
            context.parameters,
            before.shared,
            self.state.shared,
            {site: reply.parts for site, reply in replies.items()},
            before.methods,
            context.plan.steps(self.state.round),
            context.plan.total_steps,
        )
        shared, kept = methods_of(config).combine(average)
        sent = before.shared if find_codec(config.codec_down).relative else self.state.sent
        return replace(self.state, shared=shared, methods=kept, sent=sent)
