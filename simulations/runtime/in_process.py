"""A Grid that runs unmodified apps in this process, over real bytes, without Ray or network.

Every message is serialised, kept, and read again from its bytes; every message meets a fresh
context, so that nothing of a site lives but its disk.
"""

import random
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SUPERLINK = 1
UNAVAILABLE = 5

Tamper = Callable[[Message, Message], list[Message]]
"""(question, reply) → what arrives in its place."""


@dataclass(frozen=True)
class WireMessage:
    """A message as it went over the wire: the bytes of its objects, by Flower's name for them."""

    kind: str
    direction: Literal["down", "up"]
    node: int
    objects: dict[str, bytes]


@dataclass
class InProcessGrid(Grid):
    """Nodes in this process: for attacks and tests, where a message shall be read or changed.

    Attributes
    ----------
    client : ClientApp
        What every node runs.
    nodes : mapping of int to mapping
        Node number → node configuration.
    run_config : mapping
        The run's configuration by key.
    shuffle : int, optional
        Seed of the order in which replies arrive.
    before : callable, optional
        Called with each question before its node gets it; what it raises goes through, as a kill
        would.
    tamper : callable, optional
        Decides what arrives in place of a reply.
    dead : set of int
        Nodes for which the SuperLink answers.
    keep : bool
        Whether the bytes of all messages are kept in ``sent``.
    """

    client: ClientApp
    nodes: Mapping[int, Mapping[str, Any]]
    run_config: Mapping[str, Any]
    shuffle: int | None = None
    before: Callable[[Message], None] | None = None
    tamper: Tamper | None = None
    dead: set[int] = field(default_factory=set)
    keep: bool = True
    sent: list[WireMessage] = field(default_factory=list)
    waiting: dict[str, list[Message]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Tell Flower which task this process does."""
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, SUPERLINK, 1

    def set_run(self, run: Run) -> None:
        """Refuse: there is one run."""
        raise NotImplementedError

    @property
    def run(self) -> Run:
        """The run."""
        return Run.create_empty(1)

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Refuse: apps make their own messages."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """Return the numbers of the nodes that are there."""
        return [node for node in self.nodes if node not in self.dead]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Let the nodes answer, one after the other."""
        identifiers = []
        for message in messages:
            identifier = str(uuid.uuid4())
            message.metadata.__dict__["_message_id"] = identifier
            self.waiting[identifier] = self._replies(message)
            identifiers.append(identifier)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the answers to these questions."""
        replies = [reply for one in message_ids for reply in self.waiting.pop(one, [])]
        if self.shuffle is not None:
            random.Random(self.shuffle).shuffle(replies)
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Ask and answer."""
        return self.pull_messages(self.push_messages(messages))

    def wire(self) -> bytes:
        """Return the bytes of all messages; what was sent to several nodes is there once."""
        objects = {key: content for one in self.sent for key, content in one.objects.items()}
        return b"\0\0\0".join(objects.values())

    def server_context(self) -> Context:
        """Return a context in which a ServerApp may run over this grid."""
        return Context(1, SUPERLINK, {}, RecordDict(), dict(self.run_config))

    def _replies(self, message: Message) -> list[Message]:
        node = message.metadata.dst_node_id
        kind = message.metadata.message_type
        if self.before is not None:
            self.before(message)
        if node in self.dead:
            reply = Message(Error(UNAVAILABLE, "Node unavailable"), reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = SUPERLINK
            return [reply]
        received = self._carry(message, kind, "down", node)
        context = Context(1, node, dict(self.nodes[node]), RecordDict(), dict(self.run_config))
        reply = self.client(received, context)
        replies = [reply] if self.tamper is None else self.tamper(message, reply)
        return [self._carry(one, kind, "up", node) for one in replies]

    def _carry(
        self, message: Message, kind: str, direction: Literal["down", "up"], node: int
    ) -> Message:
        objects = {key: one.deflate() for key, one in get_all_nested_objects(message).items()}
        if self.keep:
            self.sent.append(WireMessage(kind, direction, node, dict(objects)))
        identifier = message.object_id
        arrived = cast(Message, inflate_object_from_contents(identifier, objects))
        arrived.metadata.__dict__["_message_id"] = message.metadata.message_id or identifier
        return arrived


def run_server(server: ServerApp, grid: InProcessGrid) -> None:
    """Run a ServerApp over the grid, in a context of its own."""
    server(grid, grid.server_context())
