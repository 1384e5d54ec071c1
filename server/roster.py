"""The roll call: which node is which site, and do all of them run the same thing."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import flwr.app
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from common.config import Config
from common.errors import ReplyError, RunError
from common.messages import AWAITS_APPROVAL, NOT_A_SITE, RollCall, SiteCard
from common.wire import decode_card, encode_roll_call

POLL_SECONDS = 0.5
SAY_SECONDS, FIRST_SAY_SECONDS = 10.0, 3.0
# Flower's codes for a node that went away; it is asked again when it comes back.
AWAY = {3, 4, 5, 8}
# A person takes minutes, and every question starts a process at the site.
APPROVAL_SECONDS = 20.0


@dataclass(frozen=True)
class Roster:
    """The sites of a run, in the configuration's order.

    Attributes
    ----------
    nodes : mapping of str to int
        Flower's number of each site's node.
    cards : mapping of str to SiteCard
        What each site said of itself.
    """

    nodes: Mapping[str, int]
    cards: Mapping[str, SiteCard]

    def site_of(self, node: int) -> str | None:
        """Return the site of a node, None for a stranger."""
        return next((site for site, known in self.nodes.items() if known == node), None)


@dataclass(frozen=True)
class Expected:
    """What every site's card must say: digests of code, configuration and layout."""

    fingerprint: str
    config: str
    layout: str


@dataclass
class _Call:
    """How far a roll call is: nodes by question, cards by site.

    ``unapproved``: nodes at which a person must approve the run, and when each is asked again.
    """

    asked: dict[str, int] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)
    unapproved: dict[int, float] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    cards: dict[str, SiteCard] = field(default_factory=dict)


def call_roll(
    grid: Grid, run: str, config: Config, expected: Expected, say: Callable[[str], None]
) -> Roster:
    """Wait until every site has joined and said who it is.

    Parameters
    ----------
    grid : Grid
        Flower's connection to the nodes.
    run : str
        The run's name.
    config : Config
        The sites. A node has ``join-timeout`` to connect; one that has connected then has
        ``round-timeout`` to decode its images.
    expected : Expected
        What the cards must say.
    say : callable
        Told who is awaited.

    Returns
    -------
    Roster

    Raises
    ------
    RunError
        If somebody does not come, two nodes claim one site, a site cannot take part, or a site
        runs another code, configuration or network. It names them.
    """
    call, started, said = _Call(), time.monotonic(), FIRST_SAY_SECONDS - SAY_SECONDS
    while True:
        _ask(grid, run, call)
        for reply in grid.pull_messages(list(call.asked)):
            _hear(reply, config, call)
        missing = [site for site in config.site_names if site not in call.cards]
        if not missing:
            check_cards(call.cards, expected)
            names = config.site_names
            return Roster({s: call.nodes[s] for s in names}, {s: call.cards[s] for s in names})
        waited = time.monotonic() - started
        _check_patience(missing, call, config, waited)
        if waited - said >= SAY_SECONDS:
            said = waited
            say(f"waiting for {_awaited(missing, call)}, {waited:.0f} s so far")
        time.sleep(min(POLL_SECONDS, config.join_timeout / 10))


def _ask(grid: Grid, run: str, call: _Call) -> None:
    """Send the question to every node that was not asked yet."""
    waiting = {node for node, due in call.unapproved.items() if time.monotonic() < due}
    known = {*call.asked.values(), *call.answered, *waiting}
    new = [node for node in grid.get_node_ids() if node not in known]
    content = encode_roll_call(RollCall(run), flwr.app)
    questions = [Message(content, node, MessageType.QUERY) for node in new]
    for node, identifier in zip(new, grid.push_messages(questions), strict=False):
        if identifier:
            call.asked[identifier] = node


def _hear(reply: Message, config: Config, call: _Call) -> None:
    node = call.asked.pop(reply.metadata.reply_to_message_id, reply.metadata.src_node_id)
    call.unapproved.pop(node, None)
    if reply.has_error():
        if reply.error.code == AWAITS_APPROVAL:
            call.unapproved[node] = time.monotonic() + APPROVAL_SECONDS
        elif reply.error.code not in AWAY:
            call.answered.add(node)
            if reply.error.code != NOT_A_SITE:
                raise RunError(f"A site cannot take part. {reply.error.reason}")
        return
    call.answered.add(node)
    try:
        card = decode_card(reply.content)
    except ReplyError as error:
        raise RunError(f"Node {node} answers the roll call strangely: {error}") from error
    if card.site not in config.site_names:
        raise RunError(
            f"Node {node} says that it is '{card.site}'; the run's sites are "
            f"{', '.join(config.site_names)}."
        )
    if card.site in call.cards:
        raise RunError(
            f"Two nodes, {call.nodes[card.site]} and {node}, say that they are site "
            f"'{card.site}'. Stop the one that is not, or give it its own name."
        )
    call.nodes[card.site], call.cards[card.site] = node, card


def _check_patience(missing: list[str], call: _Call, config: Config, waited: float) -> None:
    simulated = max((card.nodes for card in call.cards.values()), default=0)
    if 0 < simulated < len(config.site_names):
        raise RunError(
            f"The run has {len(config.site_names)} sites, but {simulated} nodes are simulated. "
            f"Add --federation-config 'num-supernodes={len(config.site_names)}'."
        )
    preparing = len(call.asked) + len(call.unapproved) >= len(missing)
    patience = max(config.join_timeout, config.round_timeout if preparing else 0.0)
    if waited > patience:
        key = "round-timeout" if preparing else "join-timeout"
        raise RunError(
            f"After {waited:.0f} s still waiting for {_awaited(missing, call)} ({key}). Start "
            "the missing SuperNodes with the site's name (--node-config 'site=\"…\"'), and "
            "submit the run again."
        )


def _awaited(missing: list[str], call: _Call) -> str:
    names = ", ".join(missing)
    told = []
    if call.asked:
        told.append(f"{len(call.asked)} connected and preparing their images")
    if call.unapproved:
        told.append(f"at {len(call.unapproved)} a person must approve the run: xsite approve")
    return f"{names} ({'; '.join(told)})" if told else f"{names} to join"


def check_cards(cards: Mapping[str, SiteCard], expected: Expected) -> None:
    """Check that every site runs what the server runs.

    Raises
    ------
    RunError
        Naming every site that does not, and in what.
    """
    faults = []
    for site, card in cards.items():
        for what, found, own, advice in (
            ("code", card.fingerprint, expected.fingerprint, "install the same version there"),
            ("configuration", card.config, expected.config, "do both read the same run-config?"),
            ("network", card.layout, expected.layout, "are the same libraries installed?"),
        ):
            if found != own:
                faults.append(
                    f"{site} runs another {what} ({found[:12]}…, here {own[:12]}…): {advice}"
                )
                break
    if faults:
        raise RunError(f"The sites cannot be averaged. {'; '.join(faults)}.")
