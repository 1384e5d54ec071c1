"""Server optimizers: two rounds by hand, of one trained value and one running statistic."""

from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from common.exchange.messages import RoundOrder, RoundReply
from common.exchange.wire import decode
from common.methods.method import Arrays, Averaged
from common.methods.registry import methods_of
from common.models.sharing import Layout, parameter_mask
from common.tasks.task import task_network
from simulations.comparison import find_method
from tests.common.small_training import config
from tests.federation.hospitals import federate, tiny_config
from tests.federation.test_invariants_reproducible import outcome
from tests.federation.test_invariants_resume import Killed, killing

LAYOUT = Layout(("weight", "running_mean"), ((1,), (1,)), "float64", 2)


def combined(algorithm: str, received: float, change: float, memory: Arrays) -> Any:
    """Return the weights and the memory of a round; the statistic goes from 5 to 7."""
    options = "rate = 0.1" if algorithm == "fedavgm" else "rate = 0.1, tau = 0.1"
    own = config(algorithm=algorithm, algorithm_options=options, alpha=0.0, normalisation="shared")
    mask, before = np.array([True, False]), np.array([received, 5.0])
    average = np.array([received + change, 7.0])
    shared, kept = methods_of(own).combine(Averaged(own, LAYOUT, mask, before, average, {}, memory))
    assert all(name.startswith(f"{algorithm}/") for name in kept)
    return shared, kept


# Changes of 0.5 and then 0.1, η = τ = 0.1, so that v begins at 0.01.
@pytest.mark.parametrize(
    ("algorithm", "steps", "moments"),
    [
        # m: 0.5, then 0.9 · 0.5 + 0.1.
        ("fedavgm", (0.1 * 0.5, 0.1 * 0.55), {"m": 0.55}),
        # m: 0.1 · 0.5, then 0.9 · 0.05 + 0.1 · 0.1.
        # v: 0.99 · 0.01 + 0.01 · 0.25 = 0.0124, then 0.99 · 0.0124 + 0.01 · 0.01 = 0.012376.
        (
            "fedadam",
            (0.1 * 0.05 / (sqrt(0.0124) + 0.1), 0.1 * 0.055 / (sqrt(0.012376) + 0.1)),
            {"m": 0.055, "v": 0.012376},
        ),
        # v: below 0.25, so 0.01 + 0.01 · 0.25 = 0.0125; above 0.01, so 0.0125 − 0.01 · 0.01.
        (
            "fedyogi",
            (0.1 * 0.05 / (sqrt(0.0125) + 0.1), 0.1 * 0.055 / (sqrt(0.0124) + 0.1)),
            {"m": 0.055, "v": 0.0124},
        ),
    ],
)
def test_two_rounds_by_hand(
    algorithm: str, steps: tuple[float, float], moments: dict[str, float]
) -> None:
    first, memory = combined(algorithm, 1.0, 0.5, {})
    np.testing.assert_allclose(first, [1 + steps[0], 7.0], rtol=1e-14)
    second, memory = combined(algorithm, first[0], 0.1, memory)
    np.testing.assert_allclose(second, [1 + steps[0] + steps[1], 7.0], rtol=1e-14)
    assert set(memory) == {f"{algorithm}/{name}" for name in moments}
    for name, value in moments.items():
        np.testing.assert_allclose(memory[f"{algorithm}/{name}"], [value], rtol=1e-14)


def of_row(name: str) -> dict[str, Any]:
    """Return the settings of a row of the comparison, by field name."""
    return {key.replace("-", "_"): value for key, value in find_method(name).settings.items()}


def test_a_federation_s_server_steps_and_averages_running_statistics(tmp_path: Path) -> None:
    settings = tiny_config(tmp_path, epochs=2, **of_row("fedadam"))
    orders: dict[int, RoundOrder] = {}
    replies: list[RoundReply] = []

    def watch(question: Message, reply: Message) -> list[Message]:
        if question.metadata.message_type == "train":
            order = decode(RoundOrder, question.content)
            orders[order.round] = order
            replies.append(decode(RoundReply, reply.content))
        return [reply]

    federate(settings, tamper=watch)
    received = orders[1].shared.astype(np.float64)
    average = np.mean([reply.shared.astype(np.float64) for reply in replies[:2]], axis=0)
    trained = parameter_mask(task_network(settings, settings.site_names))
    assert 0 < (~trained).sum() < trained.sum()
    change = average - received
    v = 0.99 * 0.001**2 + 0.01 * change**2
    stepped = received + 0.01 * 0.1 * change / (np.sqrt(v) + 0.001)
    expected = np.where(trained, stepped, average)
    np.testing.assert_allclose(orders[2].shared, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(stepped - average)[trained].max() > 1e-3
    assert all(not order.parts for order in orders.values())


def first_weights(path: Path, **values: Any) -> np.ndarray:
    """Return the weights with which the second round begins."""
    found = {}

    def watch(question: Message, reply: Message) -> list[Message]:
        if question.metadata.message_type == "train":
            order = decode(RoundOrder, question.content)
            found[order.round] = order.shared
        return [reply]

    federate(tiny_config(path, epochs=2, **values), tamper=watch)
    return found[2]


def test_fedavgm_s_first_step_is_fedavg_s(tmp_path: Path) -> None:
    own = first_weights(tmp_path, run_name="own", **of_row("fedavgm"))
    usual = first_weights(tmp_path, run_name="usual", **of_row("fedavg"))
    np.testing.assert_allclose(own, usual, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("row", ["fedavgm", "fedadam", "fedyogi"])
def test_moments_are_resumed(tmp_path: Path, row: str) -> None:
    expected = tiny_config(tmp_path, run_name="unharmed", **of_row(row))
    federate(expected)
    killed = tiny_config(tmp_path, run_name="killed", **of_row(row))
    with pytest.raises(Killed):
        federate(killed, before=killing("train", 5))
    federate(killed.changed(resume=True))
    assert outcome(killed) == outcome(expected)
