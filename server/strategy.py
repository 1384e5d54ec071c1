"""The strategy: Flower's FedAvg, with xsite's messages, checks and average.

Flower's loop runs unchanged, but knows nothing of the weights: :class:`SiteAverage` alone holds
them. A round is what the state says is next, so that a resumed run goes on where it was. All
participants take part in every round; nobody is sampled. Sites may join between rounds.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from logging import INFO
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.supercore import log
from numpy.typing import NDArray

from common.exchange.codecs.registry import find_codec
from common.exchange.messages import RoundReply
from common.methods.method import Arrays, Averaged
from common.methods.registry import methods_of
from server.checks import ExpectedWeights, check_weights, far_from_the_others, norm_of
from server.exchange import (
    Exchange,
    RunContext,
    code_down,
    make_orders,
    require_enough,
    sort_replies,
    without,
)
from server.state import RunState, advance, choose

Note = Callable[[RunState, RunState, Exchange[RoundReply]], None]
"""Called after a round with the states before and after it and what came back."""


class SiteAverage(FedAvg):
    """Average what sites share; give each the others' prototypes.

    Parameters
    ----------
    context : RunContext
        The run.
    state : RunState
        Where it stands; ``self.state`` afterwards.
    note : callable
        Writes figures and checkpoint of a round, before the next one begins.
    prepare : callable
        Called before a round is ordered: sites may join.
    """

    def __init__(
        self, context: RunContext, state: RunState, note: Note, prepare: Callable[[], None]
    ) -> None:
        super().__init__()
        self.context, self.state, self.note, self.prepare = context, state, note, prepare
        self.sent: dict[str, Message] = {}
        self.since = time.monotonic()

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
        self.sent = make_orders(self.context, self.state, "train", MessageType.TRAIN, coded)
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
        config, round = context.config, before.round + 1
        methods = methods_of(config)
        expected = ExpectedWeights(
            context.layout,
            norm_of(before.shared),
            len(config.class_names),
            config.projection_size,
            config.min_prototype_count,
            methods.forms(config, context.layout),
        )

        codec = find_codec(config.codec)

        def read(arrays: Arrays) -> NDArray[Any]:
            return codec.decode(arrays, before.shared)

        def check(reply: RoundReply) -> None:
            check_weights(reply, context.participants.infos[reply.site].class_counts, expected)

        exchange = sort_replies(context, round, self.sent, replies, RoundReply, check, read)
        self.sent = {}
        exchange = without(exchange, far_from_the_others(exchange.good, before.shared))
        require_enough(context, f"Round {round}", exchange)
        now = time.monotonic()
        chosen = choose(before, exchange.good)
        self.state = advance(
            chosen, exchange.good, config.aggregation, exchange.traffic, now - self.since
        )
        average = Averaged(
            config,
            context.layout,
            context.parameters,
            before.shared,
            self.state.shared,
            {site: reply.parts for site, reply in exchange.good.items()},
            before.methods,
            context.plan.steps(round),
            context.plan.total_steps,
        )
        shared, kept = methods.combine(average)
        self.state = replace(self.state, shared=shared, methods=kept)
        if find_codec(config.codec_down).relative:
            self.state = replace(self.state, sent=before.shared)
        self.since = now
        self.note(before, self.state, exchange)
        return None, MetricRecord({"sites": len(exchange.good)})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Order nothing: figures ride with the replies to training."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return nothing, since nothing was asked."""
        return None
