"""The site's app, called as Flower calls it."""

from dataclasses import replace
from pathlib import Path

import flwr.app
from flwr.app import Context, Message, MessageType, RecordDict

from clients.app import app
from common.exchange.messages import JoinRequest, SiteInfo
from common.exchange.wire import decode, encode
from tests.corpus.asking import ask
from tests.federation.hospitals import make_grid, tiny_config

SIMULATED = {"partition-id": 0, "num-partitions": 2}


def test_a_message_that_was_read_holds_its_bytes_no_longer(tmp_path: Path) -> None:
    """Flower keeps the message while the site trains; an order weighs 195 MB."""
    grid = make_grid(tiny_config(tmp_path))
    node, site = next(iter(grid.nodes.items()))
    question = Message(encode(JoinRequest(run="run"), flwr.app), node, MessageType.QUERY)
    assert len(question.content) > 0
    reply = app(question, Context(1, node, dict(site), RecordDict(), dict(grid.run_config)))
    assert decode(SiteInfo, reply.content).site == "north"
    assert len(question.content) == 0


def test_statistics_leave_once_and_not_with_the_news_who_is_awaited(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    told = [
        decode(SiteInfo, ask(config, encode(request, flwr.app), SIMULATED).content)
        for request in (JoinRequest("run"), JoinRequest("run", awaited="south to join"))
    ]
    assert told[0].statistics is not None
    assert told[1] == replace(told[0], statistics=None)
