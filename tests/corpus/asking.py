"""Putting a message to a hospital's own node, as Flower does."""

import logging
from pathlib import Path
from typing import Any

import flwr.app
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients.app import app
from common.config.schema import Config
from common.exchange.messages import JoinRequest
from common.exchange.wire import encode
from tests.federation.hospitals import tiny_config


def ask(
    config: Config, content: RecordDict, node: dict[str, Any], kind: str = MessageType.QUERY
) -> Message:
    """Let the real ClientApp answer a message."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    question = Message(content, 100, kind)
    question.metadata.__dict__["_message_id"] = "question"
    return app(question, Context(1, 100, node, RecordDict(), config.to_run_config()))


def hospital(tmp_path: Path, config: Config, **node: Any) -> dict[str, Any]:
    """Return the configuration of the node of the hospital 'north'."""
    return {
        "site": "north",
        "data-dir": f"{config.data}/north",
        "state-dir": str(tmp_path / "state"),
        **node,
    }


def ask_for_card(tmp_path: Path, **node: Any) -> tuple[Message, str]:
    """Call the roll at a hospital; return its answer and what it says to itself."""
    config = tiny_config(tmp_path)
    kept = Kept()
    logger = logging.getLogger("xsite.site")
    logger.addHandler(kept)
    try:
        call = encode(JoinRequest("run"), flwr.app)
        answer = ask(config, call, hospital(tmp_path, config, **node))
    finally:
        logger.removeHandler(kept)
    log = tmp_path / "state" / "run" / "sites" / "north" / "log.txt"
    return answer, log.read_text() if log.exists() else "\n".join(kept.lines)


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())
