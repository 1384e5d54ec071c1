"""Moments leave where the run averages them and the policy lets them, tensor by tensor."""

from dataclasses import replace
from pathlib import Path

import flwr.app
import numpy as np
import pytest

from clients.egress.budget import in_words, spent
from clients.egress.gate import ExpectedMessage
from clients.egress.ledger import entries
from clients.egress.pipeline import release
from clients.egress.policy import Policy, reduced
from common.errors import PolicyError
from common.exchange.codecs.moments import decode_moments, encode_moments, encode_round
from common.exchange.messages import RoundReply
from common.exchange.wire import encode
from tests.clients.opened import opened, order, train_round
from tests.federation.hospitals import tiny_config

Answer = tuple[RoundReply, ExpectedMessage]


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """Return a real reply with moments, and what it answers."""
    site = opened(tiny_config(tmp_path_factory.mktemp("moments"), optimizer_state="average"))
    asked = order(site)
    reply = reduced(train_round(site, asked), Policy())[0]
    assert isinstance(reply, RoundReply)
    return reply, ExpectedMessage(site.config, "north", "run", 1, asked.shared)


def test_the_ledger_has_the_moments_of_every_shared_tensor(answer: Answer, tmp_path: Path) -> None:
    reply, expected = answer
    release(encode(reply, flwr.app), expected, Policy(), tmp_path)
    (entry,) = entries(tmp_path)
    names = [part.name for part in entry.parts if part.record == "moments"]
    layout = expected.layout
    wanted = [f"{key}/{name}" for key in ("exp_avg", "exp_avg_sq") for name in layout.names]
    assert names == [*wanted, "step"]
    assert "the optimizer's moments without noise in 1 message" in in_words(spent([entry]))


KEEPS = "moments may not leave"
TELLS = r"moments tell of the weights' change what no limit holds of"


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"may-leave": ["weights", "prototypes", "figures", "method"]}, KEEPS),
        ({"largest-update": 1e9}, TELLS),
        ({"clip-update": 1e9}, TELLS),
    ],
)
def test_a_policy_keeps_them(
    answer: Answer, tmp_path: Path, policy: dict[str, float], said: str
) -> None:
    reply, expected = answer
    with pytest.raises(PolicyError, match=rf"Held back at north: {said}"):
        release(encode(reply, flwr.app), expected, Policy.model_validate(policy), tmp_path)


def test_what_is_none_of_the_shared_tensors_moments_is_held_back(
    answer: Answer, tmp_path: Path
) -> None:
    reply, expected = answer
    first, second = (reply.moments[key] for key in ("exp_avg", "exp_avg_sq"))
    for values, said in (
        ({"exp_avg": np.append(first, np.float32(0))}, "misshapen: exp_avg"),
        ({"exp_avg": first.astype(np.float64)}, "misshapen: exp_avg"),
        ({"exp_avg_sq": -second}, "second moments below 0"),
        ({"exp_avg_sq": np.zeros_like(second)}, "more than 7.27 roots of the second"),
        ({"exp_avg": np.full_like(first, np.nan)}, "not finite: exp_avg"),
        ({"5/exp_avg": np.ones(3, np.float32)}, "additional: 5/exp_avg"),
    ):
        strange = replace(reply, moments=dict(reply.moments) | values)
        with pytest.raises(PolicyError, match=said):
            release(encode(strange, flwr.app), expected, Policy(), tmp_path)
    carrying = replace(expected, config=expected.config.changed(optimizer_state="carry"))
    with pytest.raises(PolicyError, match="The message holds exp_avg"):
        release(encode(reply, flwr.app), carrying, Policy(), tmp_path)
    assert {entry.verdict for entry in entries(tmp_path)} == {"held back"}


def test_in_few_bits_they_are_judged_as_what_they_add_up_to(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, optimizer_state="average", codec_moments="int8")
    site = opened(config)
    first = train_round(site, order(site))
    average = encode_moments(first.moments, "int8")
    asked = order(site, round=2, previous=1, steps=range(2, 4), moments=average)
    before = decode_moments(average, "int8", first.layout)
    reply = reduced(train_round(site, asked), Policy())[0]
    assert isinstance(reply, RoundReply)
    expected = ExpectedMessage(config, "north", "run", 2, asked.shared, before, 2)
    coded = encode_round(reply.moments, before, 2, "int8")
    release(encode(replace(reply, moments=coded), flwr.app), expected, Policy(), tmp_path / "own")
    names = [part.name for part in list(entries(tmp_path / "own"))[-1].parts if "exp" in part.name]
    codes = [name for name in names if name.startswith("exp_avg/codes/")]
    assert codes == [f"exp_avg/codes/{name}" for name in expected.layout.names]
    for strange in (reply.moments, coded | {"exp_avg_sq/scales": -coded["exp_avg_sq/scales"]}):
        with pytest.raises(PolicyError, match=r"The message holds exp_avg|a scale is -"):
            content = encode(replace(reply, moments=strange), flwr.app)
            release(content, expected, Policy(), tmp_path / "own")
