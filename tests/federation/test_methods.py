"""The compared methods, federated: each does what it says, and keeps private what it calls so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from common.exchange.messages import RoundOrder, RoundReply
from common.exchange.wire import decode
from common.runs.result import read_result
from common.tensor_files import load_tensors
from tests.federation.hospitals import federate, run_of, tiny_config
from tests.federation.search import Wire
from tests.federation.test_invariants_privacy import Collector
from tests.federation.test_invariants_reproducible import outcome
from tests.federation.test_invariants_resume import Killed, killing

EPOCHS: dict[str, Any] = {"epochs": 2}
FEDAVG: dict[str, Any] = {"normalisation": "shared", "alpha": 0.0}
FEDBN: dict[str, Any] = {"alpha": 0.0}
XSITE: dict[str, Any] = {}
FEDWON: dict[str, Any] = {
    "normalisation": "none",
    "alpha": 0.0,
    "clip_ratio": 0.1,
    "clip_norm": 0.0,
}
FEDPROTO = FEDBN | {"prototypes": "average", "prototype_pull": 1.0, "share": "prototypes"}

# A method's settings, and those of what it would be if its own part did nothing.
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fedbn": (FEDBN, FEDAVG),
    "fedprox": (FEDAVG | {"proximal": 1.0}, FEDAVG),
    "moon": (FEDAVG | {"model_contrast": 1.0}, FEDAVG),
    "ditto": (FEDAVG | {"algorithm": "ditto"}, FEDAVG),
    "fedyogi": (FEDAVG | {"algorithm": "fedyogi"}, FEDAVG),
    "fedrdn": (FEDAVG | {"algorithm": "fedrdn"}, FEDAVG),
    "fedwon": (FEDWON, FEDWON | {"clip_ratio": 0.0}),
    "series": (FEDBN | {"adapters": "series"}, FEDBN),
    "parallel": (FEDBN | {"adapters": "parallel"}, FEDBN),
    "ms-net": (FEDBN | {"auxiliary": True}, FEDBN),
    "fedproto": (FEDPROTO, FEDBN | {"prototypes": "average", "prototype_pull": 1.0}),
    "averaged": ({"prototypes": "average"}, XSITE),
    "local": ({"prototypes": "none"}, XSITE),
    "once": ({"prototype_multiplicity": False}, XSITE),
    "across": ({"contrastive_within": False}, XSITE),
    "means": ({"prototype_draws": 0}, XSITE),
    "no anchors": ({"prototype_anchors": False}, XSITE),
    "embedding": ({"contrastive_on": "embedding"}, XSITE),
}


@pytest.fixture(scope="module")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], bytes]:
    """Return a function from settings to what a site's federation of them predicts."""
    folder = tmp_path_factory.mktemp("methods")
    known: dict[str, bytes] = {}

    def predicted(settings: dict[str, Any]) -> bytes:
        name = f"run-{len(known)}"
        if (told := repr(settings)) not in known:
            config = tiny_config(folder, run_name=name, **EPOCHS, **settings)
            federate(config)
            known[told] = (run_of(config) / "sites" / "north" / "predictions.csv").read_bytes()
        return known[told]

    return predicted


@pytest.mark.parametrize("method", METHODS)
def test_a_method_acts_and_keeps_its_private_tensors(
    tmp_path: Path, method: str, predictions: Callable[[dict[str, Any]], bytes]
) -> None:
    settings, without = METHODS[method]
    config = tiny_config(tmp_path, **EPOCHS, **settings)
    collector = Collector(config)
    wire = Wire(federate(config, tamper=collector).wire())
    assert read_result(run_of(config))["status"] == "completed"
    # What a site sent last it may keep too.
    collector.tensors = {n: t for n, t in collector.tensors.items() if not n.endswith("/last")}
    wanted = collector.pieces()
    assert len(wanted) > (5000 if config.normalisation == "dsbn" else 1000)
    assert wire.found(wanted) == []
    found = (run_of(config) / "sites" / "north" / "predictions.csv").read_bytes()
    assert found != predictions(without)


def test_fedproto_s_sites_send_prototypes_and_no_weight(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **EPOCHS, **FEDPROTO)
    sent = []

    def watch(question: Message, reply: Message) -> list[Message]:
        if question.metadata.message_type == "train":
            said = decode(RoundReply, reply.content)
            sent.append((decode(RoundOrder, question.content).shared.size, said.shared.size))
            assert len(said.prototypes.vectors) == 2
        return [reply]

    federate(config, tamper=watch)
    assert sent == [(0, 0)] * 4
    tensors, _ = load_tensors(run_of(config) / "sites" / "north" / "private.safetensors")
    assert any(name.startswith("backbone.") and name.endswith(".weight") for name in tensors)
    other, _ = load_tensors(run_of(config) / "sites" / "south" / "private.safetensors")
    assert not np.array_equal(tensors["head.logits.weight"], other["head.logits.weight"])


@pytest.mark.parametrize(
    ("settings", "met"),
    [
        ({}, {"north": ["south"], "south": ["north"]}),
        ({"prototypes": "average"}, {"north": ["north", "south"], "south": ["north", "south"]}),
        ({"prototypes": "none"}, {"north": [], "south": []}),
        (FEDBN, {"north": [], "south": []}),
    ],
)
def test_whose_prototypes_a_site_gets(
    tmp_path: Path, settings: dict[str, Any], met: dict[str, list[str]]
) -> None:
    orders: dict[str, RoundOrder] = {}

    def watch(question: Message, reply: Message) -> list[Message]:
        if question.metadata.message_type == "train":
            orders[decode(RoundReply, reply.content).site] = decode(RoundOrder, question.content)
        return [reply]

    federate(tiny_config(tmp_path, **EPOCHS, **settings), tamper=watch)
    found = {site: [own.site for own in order.prototypes] for site, order in orders.items()}
    assert found == met


@pytest.mark.parametrize("method", ["moon", "fedrdn", "fedwon", "fedproto", "ms-net", "series"])
def test_a_method_resumes_where_it_was(tmp_path: Path, method: str) -> None:
    settings = METHODS[method][0] | {"epochs": 3}
    expected = tiny_config(tmp_path, run_name="unharmed", **settings)
    federate(expected)
    config = tiny_config(tmp_path, run_name="killed", **settings)
    with pytest.raises(Killed):
        federate(config, before=killing("train", 4))
    federate(config.changed(resume=True))
    assert outcome(config) == outcome(expected)
