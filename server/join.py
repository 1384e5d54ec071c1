"""The roll call: which node is which site, and do all of them run the same thing.

A run waits at its start for all its sites, or, where ``min-sites`` lets it do without some, for so
many of them until ``join-timeout``. Who comes later is asked between rounds.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import flwr.app
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from common.config.schema import Config
from common.errors import ReplyError, RunError
from common.exchange.messages import AWAITS_APPROVAL, NOT_A_SITE, JoinRequest, SiteInfo
from common.exchange.wire import decode_site_info, encode_join
from server.participants import AWAY, ExpectedSite, Participants, check_sites

POLL_SECONDS = 0.5
SAY_SECONDS, FIRST_SAY_SECONDS = 10.0, 3.0
# Telling the sites starts a process at each.
TELL_SECONDS = 60.0
# A person takes minutes, and every question starts a process at the site.
APPROVAL_SECONDS = 20.0


def tell_who_waits(grid: Grid, run: str, nodes: Sequence[int], awaited: str) -> None:
    """Let sites that wait know for whom, in their own logs; nobody waits for their answers."""
    content = encode_join(JoinRequest(run, awaited), flwr.app)
    if notices := [Message(content, node, MessageType.QUERY) for node in nodes]:
        grid.push_messages(notices)


@dataclass
class _Node:
    """What is known of a node that is there.

    ``since``: when it came, as Flower says; ``name``: under which its key was registered, or "";
    ``answered``: it need not be asked any more; ``due``: when it is to be asked again.
    """

    since: str
    name: str
    answered: bool = False
    due: float = 0.0


@dataclass
class Roll:
    """The roll call of a run.

    Attributes
    ----------
    grid : Grid
        Flower's connection to the nodes.
    run : str
        The run's name.
    config : Config
        The sites. A node has ``join-timeout`` to connect; one that has connected then has
        ``round-timeout`` to decode its images.
    expected : ExpectedSite
        What the cards must say.
    say : callable
        Told who is awaited, and who comes late.
    participants : Participants
        Who has come.
    nodes : dict of int to _Node
        The nodes that were ever there.
    asked : dict of str to int
        Open questions and the nodes that they went to.
    """

    grid: Grid
    run: str
    config: Config
    expected: ExpectedSite
    say: Callable[[str], None]
    participants: Participants = field(init=False)
    nodes: dict[int, _Node] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with nobody."""
        self.participants = Participants(self.config.site_names)

    def call(self) -> Participants:
        """Wait until every site that the run needs has joined and said who it is.

        Returns
        -------
        Participants
            Which grows where :meth:`call_late` finds somebody.

        Raises
        ------
        RunError
            If somebody does not come, two nodes claim one site, a site cannot take part, or a
            site runs another code, configuration or network. It names them.
        """
        started, said, told = time.monotonic(), FIRST_SAY_SECONDS - SAY_SECONDS, False
        while True:
            self._ask()
            self._hear_all()
            waited = time.monotonic() - started
            missing = self.participants.missing
            if not missing or self._can_do_without(waited):
                check_sites(self.participants.cards, self.expected)
                return self.participants
            self._check_patience(missing, waited)
            if waited - said >= SAY_SECONDS:
                said = waited
                self.say(f"waiting for {self._awaited(missing)}, {waited:.0f} s so far")
            if not told and waited >= TELL_SECONDS:
                told = True
                nodes = list(self.participants.nodes.values())
                tell_who_waits(self.grid, self.run, nodes, self._awaited(missing))
            time.sleep(min(POLL_SECONDS, self.config.join_timeout / 10))

    def call_late(self) -> None:
        """Take in who has come since, and ask who is new; waits for nobody."""
        missing = self.participants.missing
        if not missing:
            return
        self._hear_all()
        for site in set(missing) & self.participants.cards.keys():
            self.say(f"{site} joins late, with {self.participants.cards[site].train_images} images")
        self._ask()

    def _hear_all(self) -> None:
        """Take all answers that have come; one that is unfit ends a run that needs all sites."""
        for reply in self.grid.pull_messages(list(self.asked)):
            try:
                self._hear(reply)
            except RunError as error:
                if not self.config.min_sites:
                    raise
                self.say(f"not taken in: {error}")

    def _ask(self) -> None:
        """Send the question to every node that was not asked since it came."""
        there = {node.node_id: node for node in self.grid.get_nodes()}
        for number, info in there.items():
            known = self.nodes.get(number)
            if known is None or known.since != info.last_activated_at:
                self.nodes[number] = _Node(info.last_activated_at, info.name)
                self.nodes[number].answered = self.participants.site_of(number) is not None
                self.asked = {key: node for key, node in self.asked.items() if node != number}
        now, open_questions = time.monotonic(), set(self.asked.values())
        new = [
            number
            for number in there
            if number not in open_questions
            and not self.nodes[number].answered
            and self.nodes[number].due <= now
        ]
        content = encode_join(JoinRequest(self.run), flwr.app)
        questions = [Message(content, number, MessageType.QUERY) for number in new]
        if not questions:
            return
        for number, identifier in zip(new, self.grid.push_messages(questions), strict=False):
            if identifier:
                self.asked[identifier] = number

    def _hear(self, reply: Message) -> None:
        number = self.asked.pop(reply.metadata.reply_to_message_id, reply.metadata.src_node_id)
        node = self.nodes.setdefault(number, _Node("", ""))
        node.due = 0.0
        if reply.has_error():
            if reply.error.code == AWAITS_APPROVAL:
                node.due = time.monotonic() + APPROVAL_SECONDS
            elif reply.error.code not in AWAY:
                node.answered = True
                if reply.error.code != NOT_A_SITE:
                    raise RunError(f"A site cannot take part. {reply.error.reason}")
            return
        node.answered = True
        try:
            card = decode_site_info(reply.content)
        except ReplyError as error:
            raise RunError(f"Node {number} answers the roll call strangely: {error}") from error
        self._take_in(number, node, card)

    def _take_in(self, number: int, node: _Node, card: SiteInfo) -> None:
        _check_card(number, card, self.config)
        if node.name and node.name != card.site:
            raise RunError(
                f"Node {number} says that it is '{card.site}', but its key was registered for "
                f"'{node.name}'. Register it under the site's own name."
            )
        other = self.participants.nodes.get(card.site, number)
        if other != number:
            raise RunError(
                f"Two nodes, {other} and {number}, say that they are site '{card.site}'. Stop the "
                "one that is not, or give it its own name."
            )
        if self.config.min_sites:
            check_sites({card.site: card}, self.expected)
        self.participants.add(number, card)

    def _can_do_without(self, waited: float) -> bool:
        needed = self.config.min_sites
        return 0 < needed <= len(self.participants.cards) and waited >= self.config.join_timeout

    def _check_patience(self, missing: list[str], waited: float) -> None:
        config = self.config
        simulated = max((card.nodes for card in self.participants.cards.values()), default=0)
        if 0 < simulated < len(config.site_names):
            raise RunError(
                f"The run has {len(config.site_names)} sites, but {simulated} nodes are simulated. "
                f"Add --federation-config 'num-supernodes={len(config.site_names)}'."
            )
        preparing = len(self.asked) + self._unapproved() >= len(missing)
        patience = max(config.join_timeout, config.round_timeout if preparing else 0.0)
        if waited > patience:
            key = "round-timeout" if preparing else "join-timeout"
            raise RunError(
                f"After {waited:.0f} s still waiting for {self._awaited(missing)} ({key}). Start "
                "the missing SuperNodes with the site's name (--node-config 'site=\"…\"'), and "
                "submit the run again."
            )

    def _awaited(self, missing: list[str]) -> str:
        names = ", ".join(missing)
        told = []
        if self.asked:
            told.append(f"{len(self.asked)} connected and preparing their images")
        if unapproved := self._unapproved():
            told.append(f"at {unapproved} a person must approve the run: xsite approve")
        return f"{names} ({'; '.join(told)})" if told else f"{names} to join"

    def _unapproved(self) -> int:
        return sum(node.due > 0 for node in self.nodes.values())


def _check_card(number: int, card: SiteInfo, config: Config) -> None:
    """Check that a card is of a site of the run and says nothing that cannot be."""
    if card.site not in config.site_names:
        raise RunError(
            f"Node {number} says that it is '{card.site}'; the run's sites are "
            f"{', '.join(config.site_names)}."
        )
    if len(card.class_counts) != len(config.class_names):
        raise RunError(
            f"{card.site} says that it has images of {len(card.class_counts)} classes; the run's "
            f"classes are {', '.join(config.class_names)}."
        )
    # What goes into the run's result as it is.
    if card.leakage.site != card.site or card.leakage.unit not in ("patient", "image"):
        raise RunError(f"{card.site} tells of another split than one of its own.")
    if not card.train_images:
        raise RunError(f"{card.site} says that it has no training images.")
