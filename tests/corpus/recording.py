"""A federation of two hospitals, once, and its messages again and again without training."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict

from clients.app import app as client
from common.config.schema import Config
from server.app import app as server
from simulations.runtime.in_process import run_server
from tests.common.exchange.test_wire import carried
from tests.corpus.messages import of_card
from tests.federation.hospitals import tiny_config
from tests.federation.watched import WatchedGrid

NORTH, SOUTH = 100, 101
Key = tuple[str, str, int]
"""Kind of message, Flower's group (the round), node."""
Change = Callable[[RecordDict], object]


@dataclass(frozen=True)
class Recording:
    """What was said in two rounds of training, and what lay at the hospitals after the first.

    Attributes
    ----------
    root : Path
        Holds the sites' images, and ``north`` and ``south`` as they were after round 1.
    config : Config
        Of the run.
    questions, replies : dict of Key to RecordDict
        The messages.
    """

    root: Path
    config: Config
    questions: dict[Key, RecordDict]
    replies: dict[Key, RecordDict]


def node(root: Path, state: Path, site: str) -> dict[str, Any]:
    """Return the configuration of a hospital's node."""
    return {"site": site, "data-dir": str(root / "data" / site), "state-dir": str(state / site)}


def record(root: Path) -> Recording:
    """Run two rounds over two hospitals and keep what was said."""
    config = tiny_config(root, epochs=2)
    questions: dict[Key, RecordDict] = {}
    replies: dict[Key, RecordDict] = {}

    def watch(question: Message, reply: Message) -> list[Message]:
        key = key_of(question)
        questions[key], replies[key] = map(carried, (question.content, reply.content))
        return [reply]

    def keep(question: Message) -> None:
        if key_of(question) == ("train", "2", NORTH):
            for site in config.site_names:
                shutil.copytree(root / "live" / site, root / site)

    nodes = dict(
        zip((NORTH, SOUTH), (node(root, root / "live", s) for s in config.site_names), strict=True)
    )
    grid = WatchedGrid(client, nodes, config.to_run_config(), tamper=watch, before=keep)
    run_server(server, grid)
    return Recording(root, config, questions, replies)


def key_of(question: Message) -> Key:
    """Return what a message is called in a recording."""
    about = question.metadata
    return about.message_type, about.group_id, about.dst_node_id


def replay(
    recording: Recording,
    runs: Path,
    change: Change | None = None,
    at: Key | None = None,
    **more: Any,
) -> Path:
    """Let the real server hear the same replies, one of them changed; return the run's folder.

    Parameters
    ----------
    recording : Recording
        The replies.
    runs : Path
        The folder of the server's runs.
    change : callable, optional
        Changes the content of one reply in place.
    at : Key, optional
        Which; south's to round 1 by default.
    **more
        Of the configuration, or of the grid (``before``, ``tamper``).
    """
    place = at or ("train", "1", SOUTH)

    def answer(question: Message, _: Context) -> Message:
        content = carried(recording.replies[key_of(question)])
        if "card" in content and more:
            # Of a configuration that is not the recorded one.
            of_card(config=config.digest())(content)
        if change is not None and key_of(question) == place:
            change(content)
        return Message(content, reply_to=question)

    options = {key: more.pop(key) for key in ("before", "tamper") if key in more}
    config = recording.config.changed(runs_dir=str(runs), **more)
    grid = WatchedGrid(answer, {NORTH: {}, SOUTH: {}}, config.to_run_config(), **options)
    run_server(server, grid)
    return runs / config.run_name
