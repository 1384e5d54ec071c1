"""Unmodified apps in this process, over real bytes, without Ray or network.

Every message is serialised and read again from its bytes; every message meets a fresh context, so
that nothing of a site lives but its disk. The sites answer one after the other.
"""

import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO, cast

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from clients.app import app as site_app
from common.config.schema import Config
from server.app import app as coordinator_app
from simulations.runtime.backends import Backend, RunSpec, followed
from simulations.runtime.flower_inside import (
    Run,
    TaskIdentity,
    console_handler,
    get_all_nested_objects,
    inflate_object_from_contents,
)
from simulations.runtime.superlink import LinkRunState

SUPERLINK = 1
FIRST_NODE = 100

Tamper = Callable[[Message, Message], list[Message]]
"""(question, reply) → what arrives in its place."""


@dataclass
class InProcessGrid(Grid):
    """Nodes in this process; attacks and tests read messages on their way, or change them."""

    client: ClientApp
    """What every node runs."""
    nodes: Mapping[int, Mapping[str, Any]]
    """Node number → node configuration."""
    run_config: Mapping[str, Any]
    """The run's configuration by key."""
    tamper: Tamper | None = None
    """Decides what arrives in place of a reply."""
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
        return list(self.nodes)

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
        return [reply for one in message_ids for reply in self.waiting.pop(one, [])]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Ask and answer."""
        return self.pull_messages(self.push_messages(messages))

    def _replies(self, message: Message) -> list[Message]:
        node = message.metadata.dst_node_id
        context = Context(1, node, dict(self.nodes[node]), RecordDict(), dict(self.run_config))
        reply = self.client(self._carry(message), context)
        replies = [reply] if self.tamper is None else self.tamper(message, reply)
        return [self._carry(one) for one in replies]

    def _carry(self, message: Message) -> Message:
        objects = {key: one.deflate() for key, one in get_all_nested_objects(message).items()}
        identifier = message.object_id
        arrived = cast(Message, inflate_object_from_contents(identifier, objects))
        arrived.metadata.__dict__["_message_id"] = message.metadata.message_id or identifier
        return arrived


def run_server(server: ServerApp, grid: InProcessGrid) -> None:
    """Run a ServerApp over the grid, in a context of its own."""
    server(grid, Context(1, SUPERLINK, {}, RecordDict(), dict(grid.run_config)))


def simulated_nodes(config: Config) -> dict[int, dict[str, Any]]:
    """Return a node for each of a configuration's sites, as Flower's simulation numbers them."""
    count = len(config.site_names)
    return {FIRST_NODE + k: {"partition-id": k, "num-partitions": count} for k in range(count)}


def run_federation(
    config: Config,
    nodes: Mapping[int, Mapping[str, Any]],
    output: TextIO,
    tamper: Tamper | None = None,
) -> None:
    """Run a federation in this process to its end.

    Parameters
    ----------
    config : Config
        With an absolute ``runs-dir``, where everything that comes of it lies.
    nodes : mapping of int to mapping
        Number of a node → its configuration; :func:`simulated_nodes` for a simulation.
    output : TextIO
        Takes what Flower says.
    tamper : callable, optional
        As of :class:`InProcessGrid`.

    Raises
    ------
    XsiteError
        What ended the run early: the server's own reason.
    """
    grid = InProcessGrid(site_app, nodes, config.to_run_config(), tamper=tamper)
    with flower_output_to(output):
        run_server(coordinator_app, grid)


@contextmanager
def flower_output_to(output: TextIO) -> Iterator[None]:
    """Let Flower write what it says elsewhere than on the terminal, for the length of a block."""
    terminal = console_handler.setStream(output)
    try:
        yield
    finally:
        if terminal is not None:
            console_handler.setStream(terminal)


def _execute(spec: RunSpec) -> LinkRunState:
    """Run the app to its end and follow it."""
    log = spec.folder / "server.log"
    with (
        log.open("w", buffering=1, encoding="utf-8", errors="backslashreplace") as output,
        followed(spec, log, at_once=1),
    ):
        try:
            run_federation(spec.config, simulated_nodes(spec.config), output)
        except Exception as error:
            traceback.print_exception(error, file=output)
            return LinkRunState("finished", "failed", str(error))
    return LinkRunState("finished", "completed", "")


IN_PROCESS = Backend("a server in this process", _execute, apart=False)
