"""With several exchanges an epoch, figures are taken once an epoch and at the end."""

import math
from pathlib import Path

from flwr.app import Message

from common.exchange.messages import RoundOrder
from common.exchange.wire import decode
from common.runs.result import read_result
from server.metrics import read_rows
from tests.federation.hospitals import federate, run_of, tiny_config


def test_a_round_that_does_not_end_an_epoch_only_trains(tmp_path: Path) -> None:
    # Two epochs of three steps, one step a round.
    config = tiny_config(tmp_path, epochs=2, local_steps=1)
    orders: list[RoundOrder] = []

    def watch(question: Message, reply: Message) -> list[Message]:
        if question.metadata.message_type == "train":
            orders.append(decode(RoundOrder, question.content))
        return [reply]

    federate(config, tamper=watch)
    assert {order.round: order.evaluate for order in orders} == {
        1: False,  # what was received are the initial weights
        2: False,
        3: False,
        4: True,  # the average of round 3, with which the first epoch ends
        5: False,
        6: False,
    }
    rows = read_rows(run_of(config) / "metrics.csv")
    assert [(row.round, row.site) for row in rows] == [
        (number, site) for number in range(1, 7) for site in ("north", "south")
    ]
    assert {row.round for row in rows if math.isfinite(row.figures["accuracy"])} == {3, 6}
    assert all(math.isfinite(row.train_loss) and row.bytes_up > 0 for row in rows)
    exchanged = sum(row.bytes_up for row in rows)
    # The final answers are counted too.
    assert exchanged < read_result(run_of(config))["bytes"]["up"] < exchanged * 1.1
