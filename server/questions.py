"""Questions to nodes that come, go and come back, whose answers the server awaits."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import flwr.app
from flwr.app import Message, MessageType
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from common.exchange.messages import JoinRequest
from common.exchange.wire import encode

AWAY = {3, 4, 5, 8}
"""Flower's codes for a node, or a site's process, that went away before it answered."""


@dataclass
class Questions:
    """The questions that are open, and the nodes that they can go to."""

    grid: Grid
    """Flower's connection to the nodes."""
    open: dict[str, int] = field(default_factory=dict)
    """Numbers of questions without an answer, and the nodes that they went to."""
    nodes: dict[int, NodeInfo] = field(default_factory=dict)
    """What Flower says of each node that was ever there, its name and when it came among it."""

    def look(self) -> tuple[list[int], set[int]]:
        """Return the nodes that are there, and those that came, or came back, since the last look.

        A node that left and came back has forgotten what it was asked: its questions are closed.
        """
        there = {node.node_id: node for node in self.grid.get_nodes()}
        came = {number for number, node in there.items() if self._came(number, node)}
        self.nodes |= there
        self.open = {question: node for question, node in self.open.items() if node not in came}
        return list(there), came

    def _came(self, number: int, node: NodeInfo) -> bool:
        known = self.nodes.get(number)
        return known is None or known.last_activated_at != node.last_activated_at

    def ask(self, questions: Sequence[Message]) -> None:
        """Send questions to their nodes."""
        for question, number in zip(questions, self.grid.push_messages(questions), strict=False):
            if number:
                self.open[number] = question.metadata.dst_node_id

    def answers(self) -> list[tuple[int, Message]]:
        """Return the answers that have come, each with the node that was asked.

        The SuperLink answers in place of a node that is away, under a number of its own.
        """
        return [
            (
                self.open.pop(answer.metadata.reply_to_message_id, answer.metadata.src_node_id),
                answer,
            )
            for answer in self.grid.pull_messages(list(self.open))
        ]


def tell_who_waits(grid: Grid, run: str, nodes: Sequence[int], awaited: str) -> None:
    """Let sites that wait know for whom, in their own logs; nobody waits for their answers."""
    content = encode(JoinRequest(run, awaited), flwr.app)
    if notices := [Message(content, node, MessageType.QUERY) for node in nodes]:
        grid.push_messages(notices)
