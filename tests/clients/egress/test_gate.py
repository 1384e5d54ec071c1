"""What leaves is judged on the message itself, and entered; a sound one passes untouched."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import flwr.app
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from clients.egress.budget import in_words, spent
from clients.egress.gate import ExpectedMessage, parts_of
from clients.egress.ledger import Entry, entries, verify
from clients.egress.pipeline import enter_refusal, release
from clients.egress.policy import Policy, reduced, reduced_info
from clients.site import make_site_info
from common.errors import LedgerError, PolicyError, RunError
from common.exchange.messages import RoundReply, SiteInfo, SiteReply
from common.exchange.wire import count_bytes, encode, encode_arrays
from common.learning.prototypes import Prototypes
from common.models.sharing import shared_layout
from simulations.runtime.in_process import run_server
from tests.clients.opened import opened, order, train_round
from tests.federation.hospitals import deploy, run_of, server, tiny_config


@pytest.fixture(scope="module")
def answer(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[RoundReply, SiteInfo, ExpectedMessage]:
    """Return a real reply, a real site info, and what they answer."""
    site = opened(tiny_config(tmp_path_factory.mktemp("gate"), validation_fraction=0.3))
    asked = order(site)
    expected = ExpectedMessage(site.config, "north", "run", 1, asked.shared)
    assert expected.layout == shared_layout(site.network())
    return train_round(site, asked), make_site_info(site), expected


Answer = tuple[RoundReply, SiteInfo, ExpectedMessage]


def encoded(message: SiteReply | SiteInfo) -> RecordDict:
    content: RecordDict = encode(message, flwr.app)
    return content


def last(ledger: Path) -> Entry:
    return list(entries(ledger))[-1]


def test_a_sound_reply_passes_and_every_tensor_in_it_is_entered(
    answer: Answer, tmp_path: Path
) -> None:
    reply, _, expected = answer
    content = encoded(reduced(reply, Policy())[0])
    release(content, expected, Policy(), tmp_path)
    entry = last(tmp_path)
    assert (entry.run, entry.round, entry.message, entry.verdict) == ("run", 1, "training", "sent")
    assert entry.size == count_bytes(content) > reply.shared.nbytes
    tensors = {part.name: part for part in entry.parts if part.record == "shared"}
    assert tuple(tensors) == expected.layout.names
    assert sum(part.size for part in tensors.values()) == reply.shared.nbytes
    first = expected.layout.names[0]
    size = int(np.prod(expected.layout.shapes[0]))
    assert tensors[first].sha256 == hashlib.sha256(reply.shared[:size].tobytes()).hexdigest()
    others = {f"{part.record}/{part.name}" for part in entry.parts if part.record != "shared"}
    assert others == {
        *(f"prototypes/north/{part}" for part in ("classes", "vectors", "counts")),
        "reply/reply",
        *(f"metrics/{name}" for name in reply.metrics),
    }


def test_a_card_and_an_evaluation_pass(answer: Answer, tmp_path: Path) -> None:
    reply, info, expected = answer
    release(
        encoded(reduced_info(info, Policy())[0]), replace(expected, round=0), Policy(), tmp_path
    )
    figures = SiteReply("run", 1, "north", reply.fingerprint, {"test/auc": float("nan")})
    release(encoded(figures), expected, Policy(), tmp_path)
    assert [entry.message for entry in entries(tmp_path)] == ["card", "evaluation"]
    assert verify(tmp_path).entries == 2


def test_statistics_leave_by_name_where_enough_images_stand_behind_them(
    answer: Answer, tmp_path: Path
) -> None:
    _, info, expected = answer
    few = Policy(min_statistics_images=min(info.class_counts))
    release(encoded(info), expected, few, tmp_path)
    parts = [part for part in last(tmp_path).parts if part.record == "statistics"]
    assert [part.name for part in parts] == ["images", "mean", "deviation", "histogram", "fields"]
    assert info.statistics is not None
    told = hashlib.sha256(np.asarray(info.statistics.mean).tobytes()).hexdigest()
    assert parts[1].sha256 == told
    assert in_words(spent(entries(tmp_path))) == (
        "no guarantee: exact statistics of the images in 1 message"
    )


def test_statistics_that_may_not_leave_are_held_back_whoever_put_them_there(
    answer: Answer, tmp_path: Path
) -> None:
    _, info, expected = answer
    fewest = min(info.class_counts)
    few = Policy(min_statistics_images=1)
    assert info.statistics is not None
    unasked = replace(expected, config=expected.config.changed(site_statistics=False))
    more = replace(info, statistics=replace(info.statistics, images=info.train_images + 1))
    listed = Policy(may_leave=["weights", "figures"], min_statistics_images=1)
    for card, run, policy, said in (
        (info, expected, Policy(min_statistics_images=fewest + 1), f"{fewest} images of a class"),
        (info, expected, listed, r"statistics may not leave \(policy: may-leave\)"),
        (info, unasked, few, "asks for no statistics"),
        (more, expected, few, "number of images behind the statistics is not"),
    ):
        with pytest.raises(PolicyError, match=said):
            release(encoded(card), run, policy, tmp_path)
        assert last(tmp_path).verdict == "held back"
    content = encoded(info)
    content["statistics"]["histogram"] = [1000, *[0] * 30, 1]
    with pytest.raises(PolicyError, match="32 bins that sum to 1001"):
        release(content, expected, few, tmp_path)


def prototypes(**values: Any) -> Prototypes:
    own = {
        "site": "north",
        "classes": np.array([0, 1]),
        "vectors": np.eye(2, 32, dtype=np.float32).reshape(2, 4, 8),
        "counts": np.array([9, 9]),
    }
    return Prototypes(**own | values)


STRANGE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another site's name": ({"site": "jane-roe"}, {}, "expected jane-roe/classes"),
    "another run": ({"run": "jane-roe"}, {}, "the run is not"),
    "another round": ({"round": 4711}, {}, "the round is not"),
    "text for a digest": ({"fingerprint": "jane roe"}, {}, "fingerprint: String should match"),
    "a figure that nobody listed": ({"metrics": {"jane-roe": 1.0}}, {}, "jane-roe are not listed"),
    "figures": ({}, {"may-leave": ["weights", "prototypes"]}, "are not listed"),
    "weights": ({}, {"may-leave": ["prototypes", "figures"]}, "weights may not leave"),
    "prototypes": ({}, {"may-leave": ["weights", "figures"]}, "prototypes may not leave"),
    "a large update": ({}, {"largest-update": 1e-6}, "weights changed by"),
    "an endless update": (
        {"shared": np.inf},
        {"largest-update": 1e6},
        "weights changed by inf",
    ),
    "few images behind a prototype": (
        {"prototypes": prototypes(counts=np.array([9, 3]))},
        {},
        "3 images stand behind one of its prototypes, fewer than min-prototype-images = 4",
    ),
    "a class that there is not": (
        {"prototypes": prototypes(classes=np.array([0, 7]))},
        {},
        r"of the classes \[0, 7\]",
    ),
    "two of one class": (
        {"prototypes": prototypes(classes=np.array([1, 1]))},
        {},
        r"of the classes \[1, 1\]",
    ),
    "an image for a prototype": (
        {"prototypes": prototypes(vectors=np.ones((2, 1024), np.float32))},
        {},
        r"prototypes have shapes \(2,\), \(2, 1024\) and \(2,\); expected \(n,\), \(n, 4, 8\)",
    ),
    "a long prototype": (
        {"prototypes": prototypes(vectors=np.ones((2, 4, 8), np.float32))},
        {},
        "not of length 1",
    ),
    "float64 prototypes": (
        {"prototypes": prototypes(vectors=np.eye(2, 32).reshape(2, 4, 8))},
        {},
        "prototypes have types int64, float64, int64",
    ),
}


@pytest.mark.parametrize("what", STRANGE)
def test_what_does_not_belong_is_held_back_and_entered(
    answer: Answer, tmp_path: Path, what: str
) -> None:
    reply, _, expected = answer
    values, policy, said = STRANGE[what]
    if "shared" in values:
        values = {"shared": np.full_like(reply.shared, values["shared"])}
    changed = replace(reply, **values)
    with pytest.raises(PolicyError, match=said):
        release(encoded(changed), expected, Policy.model_validate(policy), tmp_path)
    entry = last(tmp_path)
    assert entry.verdict == "held back" and entry.size == 0 and entry.reason
    # What was kept here can be looked up all the same.
    assert len(entry.parts) > 5


def test_another_layout_another_type_and_another_card_are_held_back(
    answer: Answer, tmp_path: Path
) -> None:
    reply, info, expected = answer
    renamed = replace(reply.layout, names=("jane-roe", *reply.layout.names[1:]))
    for strange, said in (
        (replace(reply, layout=renamed), "layout of the weights"),
        (replace(reply, shared=reply.shared.astype(np.float64)), "type of the weights"),
        (replace(reply, shared=reply.shared[:-1]), "shape of the weights"),
        (replace(info, config="jane roe"), "config: String should match"),
        (replace(info, layout="0" * 64), "the layout is not"),
        (replace(info, class_counts=(1, 2, 3)), "number of classes"),
        (replace(info, leakage=replace(info.leakage, unit="jane roe")), "leakage.unit"),
        (replace(info, leakage=replace(info.leakage, site="jane-roe")), "site of the split"),
    ):
        with pytest.raises(PolicyError, match=said):
            release(encoded(strange), expected, Policy(), tmp_path)


@pytest.mark.parametrize("codec", ["half-deltas", "int8-deltas", "int4-deltas"])
def test_a_rounded_change_leaves_where_that_is_agreed_and_nowhere_else(
    codec: str, answer: Answer, tmp_path: Path
) -> None:
    reply, _, expected = answer
    assert expected.received is not None
    agreed = replace(expected, config=expected.config.changed(codec=codec))
    parts = agreed.codec.encode(reply.shared, expected.received, {}).parts
    change = np.linalg.norm(reply.shared.astype(np.float64) - expected.received)
    whole = reduced(reply, Policy())[0]
    sent = encode(whole, flwr.app, encode_arrays(parts, flwr.app))
    release(sent, agreed, Policy(largest_update=1.1 * change), tmp_path)
    assert last(tmp_path).verdict == "sent"
    shared = [part.size for part in last(tmp_path).parts if part.record == "shared"]
    assert sum(shared) == sum(array.nbytes for array in parts.values())
    with pytest.raises(PolicyError, match="the weights changed by"):
        release(sent, agreed, Policy(largest_update=0.9 * change), tmp_path)
    with pytest.raises(PolicyError, match=r"cannot be clipped exactly \(policy: clip-update\)"):
        release(sent, agreed, Policy(clip_update=2 * change), tmp_path)
    with pytest.raises(
        PolicyError, match=r"type of the weights|holds codes, scales; expected flat"
    ):
        release(sent, expected, Policy(), tmp_path)
    with pytest.raises(PolicyError, match=r"expected (\(\d+,\) float16|codes, scales)"):
        release(encoded(whole), agreed, Policy(), tmp_path)


def test_a_record_a_key_or_an_array_too_many_is_held_back(answer: Answer, tmp_path: Path) -> None:
    reply, _, expected = answer
    image = Array(np.zeros((4, 4), np.uint8))

    def with_record(content: RecordDict) -> None:
        content["images"] = ArrayRecord({"scan": image})

    def with_array(content: RecordDict) -> None:
        content["shared"] = ArrayRecord({**content["shared"], "scan": image})

    def with_key(content: RecordDict) -> None:
        content["reply"] = ConfigRecord({**content["reply"], "patient": "jane roe"})

    for plant, name in ((with_record, "scan"), (with_array, "scan"), (with_key, "patient")):
        content = encoded(reply)
        plant(content)
        with pytest.raises(PolicyError, match="Held back at north"):
            release(content, expected, Policy(), tmp_path)
        assert name in {part.name for part in last(tmp_path).parts}
        assert "jane" not in json.dumps([vars(part) for part in last(tmp_path).parts])


def test_parts_of_a_message_of_any_kind_are_listed(answer: Answer) -> None:
    content = RecordDict({"odd": ConfigRecord({"b": b"abc", "l": [1, 2], "n": 3, "t": "é"})})
    found = {part.name: part for part in parts_of(content, answer[2].layout)}
    assert found["b"].size == 3 and found["b"].sha256 == hashlib.sha256(b"abc").hexdigest()
    assert found["t"].size == 2 and found["t"].dtype == "text"
    assert found["n"].dtype == "int" and found["l"].dtype == "list"


def test_without_a_ledger_no_result_leaves_but_the_sentence_does(
    answer: Answer, tmp_path: Path
) -> None:
    reply, _, expected = answer
    (tmp_path / "ledger").write_text("no folder")
    with pytest.raises(LedgerError):
        release(encoded(reply), expected, Policy(), tmp_path / "ledger")
    own = tmp_path / "run" / "sites" / "north"
    enter_refusal("north: something.", own, tmp_path / "ledger")
    assert "not in the ledger: north: something." in (own / "log.txt").read_text()
    enter_refusal("north: something.", own, tmp_path / "other")
    entry = last(tmp_path / "other")
    assert (entry.run, entry.message, entry.parts[0].size) == ("run", "error", 17)


def test_a_hospital_s_policy_shapes_what_the_server_gets(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, epochs=1)
    grid = deploy(config, {"north": 'figures = ["test/auc"]\nmin-prototype-images = 5\n'})
    run_server(server, grid)
    result = json.loads((run_of(config) / "result.json").read_text())
    assert list(result["metrics"]["north"]["test"]) == ["auc"]
    assert "f1" in result["metrics"]["south"]["test"]
    told = list(entries(tmp_path / "state" / "north" / "ledger"))
    assert [entry.message for entry in told] == ["card", "training", "evaluation"]
    assert all(entry.verdict == "sent" for entry in told)
    assert not {part.name for entry in told for part in entry.parts} & {"test/f1", "train/loss"}


def test_a_policy_that_keeps_the_weights_ends_the_run_with_the_site_s_name(tmp_path: Path) -> None:
    grid = deploy(tiny_config(tmp_path, epochs=1), {"north": "largest-update = 1e-9\n"})
    with pytest.raises(RunError, match=r"north: the site's policy keeps this here \(code 110"):
        run_server(server, grid)
    told = list(entries(tmp_path / "state" / "north" / "ledger"))
    assert [entry.message for entry in told] == ["card", "training", "error"]
    assert [entry.verdict for entry in told] == ["sent", "held back", "sent"]
    assert "largest-update" in told[1].reason
