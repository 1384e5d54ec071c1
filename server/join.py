"""How sites join: which node is which site, and do all of them run the same thing.

A run waits at its start for all its sites, or, where ``min-sites`` lets it do without some, for so
many of them until ``join-timeout``. Who comes later is asked between rounds.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import flwr.app
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from common.config.schema import Config
from common.errors import ReplyError, RunError
from common.exchange.messages import AWAITS_APPROVAL, NOT_A_SITE, JoinRequest, SiteInfo
from common.exchange.wire import decode, encode
from server.images import describe_images
from server.participants import ExpectedSite, Participants, check_sites
from server.questions import AWAY, Questions, tell_who_waits

POLL_SECONDS = 0.5
SAY_SECONDS, FIRST_SAY_SECONDS = 10.0, 3.0
# Telling the sites starts a process at each.
TELL_SECONDS = 60.0
# A person takes minutes, and every question starts a process at the site.
APPROVAL_SECONDS = 20.0


@dataclass
class Joining:
    """The sites of a run as they join."""

    grid: Grid
    """Flower's connection to the nodes."""
    run: str
    """The run's name."""
    config: Config
    """The sites. A node has ``join-timeout`` to connect; one that has connected then has
    ``round-timeout`` to decode its images."""
    expected: ExpectedSite
    """What every site's info must say."""
    say: Callable[[str], None]
    """Told who is awaited, and who comes late."""
    participants: Participants = field(init=False)
    """Who has come."""
    questions: Questions = field(init=False)
    """Join requests without an answer."""
    due: dict[int, float] = field(default_factory=dict)
    """When each node is to be asked next; never, if it has answered."""

    def __post_init__(self) -> None:
        """Begin with nobody."""
        self.participants = Participants(self.config.site_names)
        self.questions = Questions(self.grid)

    def wait(self) -> Participants:
        """Wait until every site that the run needs has joined and said who it is.

        Returns
        -------
        Participants
            Which grows where :meth:`take_late` finds somebody.

        Raises
        ------
        RunError
            If somebody does not come, two nodes claim one site, a site cannot take part, or a
            site runs another code, configuration or network. It names them.
        """
        started, said, told = time.monotonic(), FIRST_SAY_SECONDS - SAY_SECONDS, False
        while True:
            # 1. Nodes come one by one, and one that restarts has forgotten the question: every
            #    look may find somebody to ask.
            self._ask()
            self._take_answers()
            waited = time.monotonic() - started
            missing = self.participants.missing
            # 2. Only now are the sites compared with the server, so that one error names all that
            #    run something else.
            if not missing or self._can_do_without(waited):
                check_sites(self.participants.infos, self.expected)
                return self.participants
            # 3. A person at the server, and later those at the sites, learn who is awaited.
            self._check_time(missing, waited)
            if waited - said >= SAY_SECONDS:
                said = waited
                self.say(f"waiting for {self._awaited(missing)}, {waited:.0f} s so far")
            if not told and waited >= TELL_SECONDS:
                told = True
                nodes = list(self.participants.nodes.values())
                tell_who_waits(self.grid, self.run, nodes, self._awaited(missing))
            time.sleep(min(POLL_SECONDS, self.config.join_timeout / 10))

    def take_late(self) -> None:
        """Take in who has come since, and ask who is new; waits for nobody."""
        missing = self.participants.missing
        if not missing:
            return
        self._take_answers()
        infos = self.participants.infos
        late = set(missing) & infos.keys()
        for site in late:
            self.say(f"{site} joins late, with {infos[site].train_images} images")
        for line in describe_images(infos, self.config.class_names) if late else ():
            self.say(line)
        self._ask()

    def _ask(self) -> None:
        """Send the join request to every node that has not answered it since it came."""
        there, came = self.questions.look()
        for node in came:
            self.due[node] = math.inf if self.participants.site_of(node) else 0.0
        now, waiting = time.monotonic(), set(self.questions.open.values())
        content = encode(JoinRequest(self.run), flwr.app)
        nodes = [node for node in there if node not in waiting and self.due[node] <= now]
        self.questions.ask([Message(content, node, MessageType.QUERY) for node in nodes])

    def _take_answers(self) -> None:
        """Take all answers that have come; one that is unfit ends a run that needs all sites."""
        for node, answer in self.questions.answers():
            try:
                self._take(node, answer)
            except RunError as error:
                if not self.config.min_sites:
                    raise
                self.say(f"not taken in: {error}")

    def _take(self, node: int, answer: Message) -> None:
        self.due[node] = math.inf
        if answer.has_error():
            code = answer.error.code
            if code == AWAITS_APPROVAL:
                self.due[node] = time.monotonic() + APPROVAL_SECONDS
            elif code in AWAY:
                self.due[node] = 0.0
            elif code != NOT_A_SITE:
                raise RunError(f"A site cannot take part. {answer.error.reason}")
            return
        try:
            info = decode(SiteInfo, answer.content)
        except ReplyError as error:
            raise RunError(f"Node {node} answers the join request strangely: {error}") from error
        _check_info(node, info, self.config)
        registered = self.questions.nodes[node].name or info.site
        if registered != info.site:
            raise RunError(
                f"Node {node} says that it is '{info.site}', but its key was registered for "
                f"'{registered}'. Register it under the site's own name."
            )
        other = self.participants.nodes.get(info.site, node)
        if other != node:
            raise RunError(
                f"Two nodes, {other} and {node}, say that they are site '{info.site}'. Stop the "
                "one that is not, or give it its own name."
            )
        if self.config.min_sites:
            check_sites({info.site: info}, self.expected)
        self.participants.add(node, info)

    def _can_do_without(self, waited: float) -> bool:
        needed = self.config.min_sites
        return 0 < needed <= len(self.participants.infos) and waited >= self.config.join_timeout

    def _check_time(self, missing: list[str], waited: float) -> None:
        """Give up on sites that cannot come, or have not come in the time that they have."""
        config = self.config
        simulated = max((info.nodes for info in self.participants.infos.values()), default=0)
        if 0 < simulated < len(config.site_names):
            raise RunError(
                f"The run has {len(config.site_names)} sites, but {simulated} nodes are simulated. "
                f"Add --federation-config 'num-supernodes={len(config.site_names)}'."
            )
        preparing = len(self.questions.open) + self._unapproved() >= len(missing)
        allowed = max(config.join_timeout, config.round_timeout if preparing else 0.0)
        if waited > allowed:
            key = "round-timeout" if preparing else "join-timeout"
            raise RunError(
                f"After {waited:.0f} s still waiting for {self._awaited(missing)} ({key}). Start "
                "the missing SuperNodes with the site's name (--node-config 'site=\"…\"'), and "
                "submit the run again."
            )

    def _awaited(self, missing: list[str]) -> str:
        names, reasons = ", ".join(missing), []
        if preparing := len(self.questions.open):
            reasons.append(f"{preparing} connected and preparing their images")
        if unapproved := self._unapproved():
            reasons.append(f"at {unapproved} a person must approve the run: xsite approve")
        return f"{names} ({'; '.join(reasons)})" if reasons else f"{names} to join"

    def _unapproved(self) -> int:
        return sum(0.0 < due < math.inf for due in self.due.values())


def _check_info(node: int, info: SiteInfo, config: Config) -> None:
    """Check that a site is one of the run's and says nothing that cannot be."""
    if info.site not in config.site_names:
        raise RunError(
            f"Node {node} says that it is '{info.site}'; the run's sites are "
            f"{', '.join(config.site_names)}."
        )
    if len(info.class_counts) != len(config.class_names):
        raise RunError(
            f"{info.site} says that it has images of {len(info.class_counts)} classes; the run's "
            f"classes are {', '.join(config.class_names)}."
        )
    # It goes into the run's result as it is.
    if info.leakage.site != info.site:
        raise RunError(f"{info.site} tells of another split than one of its own.")
    if not info.train_images:
        raise RunError(f"{info.site} says that it has no training images.")
    if info.statistics and info.statistics.images != info.train_images:
        raise RunError(
            f"{info.site} tells statistics of {info.statistics.images} images, but has "
            f"{info.train_images} training images."
        )
