"""Waiting for answers: a site whose machine goes away is asked again when it is back.

Flower waits for one answer to every question, and takes the error that the SuperLink gives in
place of a node that died. A hospital's machine that restarts is back within minutes, and its site
can do the round again from its private store; so a round that needs it waits.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from server.participants import RunContext
from server.questions import AWAY, Questions, tell_who_waits

POLL_SECONDS = 0.25
SECONDS_BETWEEN_LOOKS = 2.0
# A site whose process dies of every question, as for want of memory, is not asked for ever.
MOST_QUESTIONS = 5


@dataclass(frozen=True)
class RetryingGrid:
    """Of Flower's grid what a strategy asks for; it waits for the sites that a round needs."""

    grid: Grid
    """Flower's own."""
    context: RunContext
    """The run. With as many good answers as it needs, nobody who is away is awaited."""
    say: Callable[[str], None]
    """Told who is awaited and why."""

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Ask, and wait for the answers.

        Parameters
        ----------
        messages : iterable of Message
            A question to each node.
        timeout : float, optional
            Seconds after which nobody is awaited any more.

        Returns
        -------
        list of Message
            Answers in the order of their arrival. The SuperLink's in place of a node that stayed
            away says that it is that node's; of a node that said nothing there is none.
        """
        asking = _Exchange(self, {message.metadata.dst_node_id: message for message in messages})
        deadline = time.monotonic() + (timeout if timeout is not None else float("inf"))
        # 1. Every node gets its question. Who is there is noted before: a node that comes back
        #    in between is asked twice, and not never.
        asking.open.look()
        asking.ask(asking.questions)
        while True:
            # 2. Answers are kept; the SuperLink's in place of a node only says that it is away.
            asking.take_answers()
            if asking.done() or time.monotonic() >= deadline:
                return asking.answers + list(asking.away.values())
            time.sleep(POLL_SECONDS)
            # 3. A node that is back does the round again from its private store, if asked again.
            asking.ask_again()


class _Exchange:
    """One exchange under way.

    ``open``: questions without an answer; ``away``: node → the error in its place; ``asked``: how
    often each node was asked.
    """

    def __init__(self, grid: RetryingGrid, questions: Mapping[int, Message]) -> None:
        self.grid, self.questions = grid, questions
        self.open = Questions(grid.grid)
        self.away: dict[int, Message] = {}
        self.answers: list[Message] = []
        self.asked: Counter[int] = Counter()
        self.looked = time.monotonic()

    def ask(self, nodes: Iterable[int]) -> None:
        """Send their questions to nodes; a second time as new messages, which Flower wants."""
        questions = []
        for node in nodes:
            first = self.questions[node]
            about = first.metadata
            again = Message(first.content, node, about.message_type, group_id=about.group_id)
            questions.append(again if self.asked[node] else first)
            self.asked[node] += 1
            self.away.pop(node, None)
        self.open.ask(questions)

    def take_answers(self) -> None:
        """Take what has come, and tell who waits for whom."""
        before = set(self.away)
        for node, answer in self.open.answers():
            away = answer.has_error() and answer.error.code in AWAY
            if not away or node not in self.questions:
                self.answers.append(answer)
                continue
            # The SuperLink answers in the node's place under a number of its own.
            answer.metadata.__dict__["_src_node_id"] = node
            self.away[node] = answer
            self._say(f"{self._name(node)} is away: {answer.error.reason}")
        gone = [self._name(node) for node in self.away if node not in before]
        if gone and not self.done():
            there = [answer.metadata.src_node_id for answer in self.answers if answer.has_content()]
            awaited = f"{', '.join(gone)}, who went away"
            tell_who_waits(self.grid.grid, self.grid.context.run, there, awaited)

    def done(self) -> bool:
        """Say whether nobody else is to be awaited."""
        good = sum(not answer.has_error() for answer in self.answers)
        left = [node for node in self.away if self.asked[node] < MOST_QUESTIONS]
        hopeless = good + len(left) < self.grid.context.enough
        return not self.open.open and (not left or good >= self.grid.context.enough or hopeless)

    def ask_again(self) -> None:
        """Ask the nodes that were away and are back."""
        now = time.monotonic()
        if now - self.looked < SECONDS_BETWEEN_LOOKS:
            return
        self.looked, waiting = now, set(self.open.open.values())
        there, came = self.open.look()
        # A node that left and came back between two looks has forgotten what it was asked.
        back = [node for node in (*self.away, *(came & waiting)) if node in there]
        if again := [node for node in back if self.asked[node] < MOST_QUESTIONS]:
            self.ask(again)
            self._say(f"asking {', '.join(self._name(node) for node in again)} again")

    def _name(self, node: int) -> str:
        return self.grid.context.participants.site_of(node) or f"node {node}"

    def _say(self, text: str) -> None:
        self.grid.say(f"waiting: {text}")
