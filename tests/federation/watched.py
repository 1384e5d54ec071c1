"""Nodes in this process whose messages are kept, which may die, and answer in any order."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import Error, Message

from simulations.runtime.flower_inside import get_all_nested_objects
from simulations.runtime.in_process import SUPERLINK, InProcessGrid

UNAVAILABLE = 5


@dataclass(frozen=True)
class WireMessage:
    """A message as it went over the wire: the bytes of its objects, by Flower's name for them."""

    direction: str
    node: int
    objects: dict[str, bytes]


@dataclass
class WatchedGrid(InProcessGrid):
    """A grid that keeps the bytes of all messages.

    ``before``: called with each question before its node gets it; what it raises goes through, as
    a kill would. ``shuffle``: seed of the order in which replies arrive. ``dead``: nodes for which
    the SuperLink answers.
    """

    before: Callable[[Message], None] | None = None
    shuffle: int | None = None
    dead: set[int] = field(default_factory=set)
    sent: list[WireMessage] = field(default_factory=list)

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in self.nodes if node not in self.dead]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = list(super().pull_messages(message_ids))
        if self.shuffle is not None:
            random.Random(self.shuffle).shuffle(replies)
        return replies

    def wire(self) -> bytes:
        """Return the bytes of all messages; what was sent to several nodes is there once."""
        objects = {key: content for one in self.sent for key, content in one.objects.items()}
        return b"\0\0\0".join(objects.values())

    def _replies(self, message: Message) -> list[Message]:
        if self.before is not None:
            self.before(message)
        if message.metadata.dst_node_id in self.dead:
            reply = Message(Error(UNAVAILABLE, "Node unavailable"), reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = SUPERLINK
            return [reply]
        return super()._replies(message)

    def _carry(self, message: Message) -> Message:
        objects = {key: one.deflate() for key, one in get_all_nested_objects(message).items()}
        down = not message.metadata.reply_to_message_id
        node = message.metadata.dst_node_id if down else message.metadata.src_node_id
        self.sent.append(WireMessage("down" if down else "up", node, objects))
        return super()._carry(message)
