"""The one participant of a network that is trained without an exchange: it holds all its sites.

It answers the messages of federated training, in this process. What a round needs of its own, the
steps, can be stopped between any two of them and gone on with.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace

import flwr.app
import numpy as np
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from torch.optim import Optimizer

from clients.egress.pipeline import Leaving
from clients.final import evaluate_last
from clients.round import keep, train_round
from clients.site import OpenSite, SiteImages, site_statistics
from clients.store import PrivateState, PrivateStore
from common.config.schema import Config
from common.console.progress import ProgressListener
from common.device import Device
from common.errors import RunError, StoreError
from common.exchange.fingerprint import code_fingerprint
from common.exchange.messages import RoundOrder, RoundReply, SiteInfo, SiteReply
from common.exchange.payload import Codec
from common.exchange.wire import decode, encode
from common.learning.loop import StepReport, TrainSummary, train
from common.learning.objective import Term
from common.learning.optimiser import load_moments, moments_of
from common.models.network import Network
from common.models.sharing import load_private, pack, private_state, unpack
from server.run_folder import RunFolder
from server.schedule import Plan

SHARED, DONE = "shared", "done"
"""Names in the store of what is done of a round."""


@dataclass(frozen=True)
class LocalRun:
    """A run whose sites are open."""

    folder: RunFolder
    """Where everything goes."""
    device: Device
    """Where to compute."""
    plan: Plan
    """Steps and rounds."""
    sites: Mapping[str, SiteImages]
    """All sites."""
    listener: ProgressListener
    """Told of progress."""
    should_stop: Callable[[], bool]
    """Asked before every step."""

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.folder.config

    @property
    def train_images(self) -> dict[str, int]:
        """Training images of each site."""
        return {name: len(site.split.train) for name, site in self.sites.items()}


def info_of(site: OpenSite) -> SiteInfo:
    """Return what the participant would answer if it were asked to join."""
    return SiteInfo(
        site=site.name,
        fingerprint=code_fingerprint(),
        config=site.config.digest(),
        layout="",
        class_counts=site.class_counts,
        nodes=site.nodes,
        leakage=site.sites[0].leakage,
    )


def infos_of(run: LocalRun) -> dict[str, SiteInfo]:
    """Return what each site would answer by itself, with the statistics of its images."""
    infos = {}
    for name, one in run.sites.items():
        title = run.folder.path.name
        alone = OpenSite(name, title, one.own, run.config, run.device, (one,), nodes=1)
        statistics = site_statistics(one) if run.config.site_statistics else None
        infos[name] = replace(info_of(alone), statistics=statistics)
    return infos


def app_of(site: OpenSite, should_stop: Callable[[], bool]) -> ClientApp:
    """Return an app that follows orders; nothing leaves this process, so no gate judges it."""
    app = ClientApp()

    def follow(act: Callable[[OpenSite, RoundOrder], SiteReply], message: Message) -> Message:
        if should_stop():
            raise KeyboardInterrupt
        order = decode(RoundOrder, message.content)
        # Its bytes are as large as the weights that were just read from them.
        message.content.clear()
        return Message(encode(act(site, order), flwr.app), reply_to=message)

    app.train()(lambda message, _: follow(_train, message))
    app.evaluate()(lambda message, _: follow(evaluate_last, message))
    return app


def _train(site: OpenSite, order: RoundOrder) -> SiteReply:
    trained = train_round(site, order)
    outcome = trained.after(trained.shared)
    coded = Codec().encode(trained.shared, trained.received, {})
    keep(site, order, trained, Leaving(RecordDict(), coded, trained.shared, outcome.memory))
    assert isinstance(trained.reply, RoundReply)
    return replace(trained.reply, parts=outcome.parts)


def take_steps(
    run: LocalRun,
    images: tuple[SiteImages, ...],
    unfinished: PrivateStore,
    network: Network,
    optimizer: Optimizer,
    order: RoundOrder,
    terms: Sequence[Term],
) -> TrainSummary:
    """Take what is left of a round's steps, as :data:`clients.site.TakeSteps` asks for them.

    Parameters
    ----------
    run : LocalRun
        The run.
    images : tuple of SiteImages
        The sites of the network.
    unfinished : PrivateStore
        Of what is done of a round that was stopped.
    network, optimizer, order, terms
        What to take them with, which, and what the method adds to the loss.

    Raises
    ------
    KeyboardInterrupt
        If it was stopped between two steps; what is done of the round is kept.
    """

    def tell(step: StepReport) -> None:
        run.listener.step(step.step + 1, step.loss, step.images / max(step.seconds, 1e-9))

    before = load_unfinished(unfinished, order.round, order.steps, network, optimizer)
    now = train(
        network,
        optimizer,
        images,
        run.config,
        range(before.next_step, order.steps.stop),
        order.total_steps,
        terms=terms,
        on_step=tell,
        should_stop=run.should_stop,
    )
    summary = join_summaries(before, now)
    if now.stopped:
        if now.steps:
            save_unfinished(unfinished, order.round, network, optimizer, summary)
        raise KeyboardInterrupt
    return summary


def save_unfinished(
    store: PrivateStore,
    round: int,
    network: Network,
    optimizer: Optimizer,
    done: TrainSummary,
) -> None:
    """Keep what is done of a round.

    A site's round is done again from its start if it is cut short. An epoch over the images of all
    sites takes longer, and so what is done of it is kept when somebody asks to stop.
    """
    kept = {SHARED: pack(network), DONE: np.array(astuple(done), np.float64)}
    state = PrivateState(private_state(network), moments_of(optimizer), "", kept)
    store.save(round, state, previous=0)


def load_unfinished(
    store: PrivateStore, round: int, steps: range, network: Network, optimizer: Optimizer
) -> TrainSummary:
    """Go on with what is done of a round, if anything is, and if its file is whole.

    Network and optimizer are as at the round's start; changed in place, or not at all. A damaged
    round is begun again, which takes longer and comes to the same.
    """
    if round not in store.rounds():
        return TrainSummary(0, 0, 0.0, 0.0, 0.0, 0.0, True, steps.start)
    before = pack(network), private_state(network)
    try:
        state = store.load(round)
        taken, images, seconds, loss, entropy, term, _, next_step = state.memory[DONE].flat
        if taken < 1 or next_step not in steps:
            raise ValueError("steps of no such round")
        unpack(network, state.memory[SHARED])
        load_private(network, state.private)
        load_moments(optimizer, state.moments)
        return TrainSummary(
            int(taken), int(images), seconds, loss, entropy, term, True, int(next_step)
        )
    except (KeyError, ValueError, RunError, StoreError):
        unpack(network, before[0])
        load_private(network, before[1])
        return TrainSummary(0, 0, 0.0, 0.0, 0.0, 0.0, True, steps.start)


def join_summaries(first: TrainSummary, then: TrainSummary) -> TrainSummary:
    """Return the account of steps that follow each other, with the mean losses of all."""
    if not first.steps:
        return then
    steps = first.steps + then.steps
    means = {
        name: (first.steps * getattr(first, name) + then.steps * getattr(then, name)) / steps
        for name in ("loss", "cross_entropy", "contrastive")
    }
    images, seconds = first.images + then.images, first.seconds + then.seconds
    return replace(then, steps=steps, images=images, seconds=seconds, **means)
