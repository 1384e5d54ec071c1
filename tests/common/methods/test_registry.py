"""Which methods a configuration asks for, and that each sees its own memory alone."""

from typing import Any

import numpy as np
import pytest

from common.methods.method import Local, Method, Outcome
from common.methods.registry import Methods, methods_of
from tests.common.small_training import CPU, config, network


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ["fedbn", "contrastive"]),
        ({"alpha": 0.0, "normalisation": "shared"}, []),
        ({"alpha": 0.0, "proximal": 0.1, "model_contrast": 1.0}, ["fedprox", "fedbn", "moon"]),
        ({"algorithm": "fedyogi"}, ["fedyogi", "fedbn", "contrastive"]),
        ({"auxiliary": True, "adapters": "series"}, ["fedbn", "contrastive", "adapters", "ms-net"]),
    ],
)
def test_a_configuration_asks_for_methods(settings: dict[str, Any], names: list[str]) -> None:
    assert [method.name for method in methods_of(config(**settings)).members] == names


class Counting(Method):
    """Remembers in how many rounds it was asked."""

    def after_round(self, local: Local) -> Outcome:
        assert set(local.memory) <= {"rounds"}
        rounds = local.memory.get("rounds", np.zeros(1)) + 1
        return Outcome({"sent": -rounds}, {"rounds": rounds})


class First(Counting):
    name = "first"


class Second(Counting):
    name = "second"


def test_each_method_sees_its_own_memory_alone() -> None:
    values = config()
    memory = {"first/rounds": np.full(1, 4.0)}
    local = Local(values, network("a"), CPU, 8, memory=memory)
    outcome = Methods((First(), Second())).after_round(local)
    assert {k: v.item() for k, v in outcome.memory.items()} == {
        "first/rounds": 5.0,
        "second/rounds": 1.0,
    }
    assert {k: v.item() for k, v in outcome.parts.items()} == {
        "first/sent": -5.0,
        "second/sent": -1.0,
    }
