"""Texts that people write: configurations, policies, consortia, studies; and ledgers' lines."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from clients.egress.approval import Request, requests
from clients.egress.ledger import (
    Head,
    LedgerPart,
    Message,
    enter,
    entries,
    entry_after,
    read_line,
    verify,
)
from clients.egress.policy import Policy, make_policy, read_policy
from common.config.load import describe, load_config, make_config, parse_override
from common.config.schema import Config, about_keys
from common.config.toml_model import key_of
from common.errors import ConfigError, LedgerError, PolicyError, XsiteError, is_plain, one_line
from server.deployment.consortium import Consortium, make_consortium, read_consortium
from simulations.study.plan import plan_study, read_file
from tests.clients.egress.test_ledger import written
from tests.corpus import consortia, studies
from tests.corpus.fuzzing import JSON, SCALARS, TEXTS, one_spoilt, spoilt, tried

NEAR = {key: default for key, default, _ in describe()}
VALUES = st.dictionaries(st.sampled_from(list(about_keys())), SCALARS | JSON, max_size=3)
KEYS = st.sampled_from(list(about_keys())) | TEXTS


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@tried(200)
@given(st.dictionaries(KEYS, SCALARS | JSON, max_size=3))
def test_fuzz_a_run_configuration(values: dict[str, Any]) -> None:
    """What is accepted goes round as Flower's run configuration."""
    try:
        config = make_config(values)
    except ConfigError as error:
        assert is_plain(str(error))
        return
    assert make_config(config.to_run_config()) == config
    assert config.changed() == config and len(config.digest()) == 64
    assert config.site_names and all("/" not in name for name in config.class_names)


def test_fuzz_a_configuration_file(place: Path) -> None:
    path = place / "run.toml"

    @tried(80)
    @given(VALUES, st.data())
    def holds(values: dict[str, Any], data: st.DataObject) -> None:
        try:
            whole = make_config({k: v for k, v in values.items() if v is not None}).to_toml()
        except ConfigError:
            whole = Config().to_toml()
        path.write_text(whole, encoding="utf-8")
        config = load_config(path)
        assert config.to_toml() == whole or not config.data
        path.write_bytes(data.draw(spoilt(whole.encode())))
        try:
            load_config(path)
        except ConfigError as error:
            assert is_plain(str(error))

    holds()


@tried(120)
@given(st.text(max_size=40) | st.builds("{}={}".format, KEYS, TEXTS | SCALARS))
def test_fuzz_an_override(text: str) -> None:
    try:
        key, value = parse_override(text)
        make_config({key: value})
    except ConfigError as error:
        assert is_plain(str(error))


POLICY_KEYS = st.sampled_from([key_of(name) for name in Policy.model_fields]) | TEXTS


@tried(120)
@given(st.dictionaries(POLICY_KEYS, SCALARS | JSON, max_size=3))
def test_fuzz_a_policy(values: dict[str, Any]) -> None:
    try:
        policy = make_policy(values, "here")
    except PolicyError as error:
        assert "here" in str(error) and is_plain(str(error))
    else:
        assert make_policy(policy.model_dump(by_alias=True), "here") == policy


CONSORTIUM = {
    "name": "lab",
    "hosts": ["a.org"],
    "site": [{"name": "a", "data-dir": "/a", "approve-runs": True}],
}
SITE_VALUES = st.dictionaries(
    st.sampled_from(("name", "data-dir", "state-dir", "gpus", "user", "runtime-port", "x")),
    SCALARS | JSON,
)
CHANGES = st.dictionaries(
    st.sampled_from([key_of(name) for name in Consortium.model_fields]) | TEXTS,
    SCALARS | JSON,
    max_size=2,
)


@tried(120)
@given(CHANGES, SITE_VALUES)
def test_fuzz_a_consortium(values: dict[str, Any], site: dict[str, Any]) -> None:
    told = CONSORTIUM | {"site": [CONSORTIUM["site"][0] | site]} | values
    try:
        found = make_consortium(told, "here")
    except ConfigError as error:
        assert str(error).startswith("here: ") and is_plain(str(error))
    else:
        assert all(is_plain(name) and "/" not in name for name in found.site_names)


def toml_of(value: Any) -> bytes:
    try:
        return tomli_w.dumps(value).encode()
    except (TypeError, ValueError, AttributeError):
        return b""


READERS: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "configuration": (Config().to_toml().encode(), load_config),
    "policy": (b'may-leave = ["weights"]\nfigures = ["test/*"]\n', read_policy),
    "consortium": (consortia.SOUND.encode(), read_consortium),
    "study": (studies.SOUND.encode(), lambda path: planned(path)),
}


def planned(path: Path) -> object:
    file = read_file(path)
    return plan_study(file, str(path), file.run)


@pytest.mark.parametrize("kind", READERS)
def test_fuzz_a_file_of_toml(kind: str, place: Path) -> None:
    whole, read = READERS[kind]
    path = place / f"{kind}.toml"

    @tried(80)
    @given(spoilt(whole) | st.binary(max_size=60) | st.dictionaries(TEXTS, JSON).map(toml_of))
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        path.chmod(0o644)
        try:
            read(path)
        except XsiteError as error:
            assert is_plain(str(error))

    holds()


def test_fuzz_a_ledger(place: Path) -> None:
    """No change of a byte passes, and nothing is lost of what is told as changed."""
    folder = written(place / "ledger", 3, full=2**20)
    files = {path: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}
    before = verify(folder)

    @tried(80)
    @given(one_spoilt(files))
    def holds(change: tuple[Path, bytes]) -> None:
        for path, content in files.items():
            path.write_bytes(content)
        path, content = change
        path.write_bytes(content)
        same = content == files[path]
        try:
            assert verify(folder) == before and same
        except LedgerError as error:
            assert str(folder) in str(error) and is_plain(str(error)) and not same
        try:
            enter(folder, MESSAGE)
        except LedgerError:
            assert path.read_bytes() == content

    holds()


PART = LedgerPart("r", "n", (2, 3), "float32", 24, "ab" * 32)
MESSAGE = Message("north", "run", 1, "training", "sent", "", 30, (PART,))
PARTS = st.builds(
    LedgerPart,
    record=st.text(st.characters(codec="utf-8"), max_size=9),
    name=st.text(st.characters(codec="utf-8"), max_size=9),
    shape=st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
    dtype=st.sampled_from(("float32", "text")),
    size=st.integers(0, 2**60),
    sha256=st.just("ab" * 32),
)


@tried(100)
@given(
    st.text(st.characters(codec="utf-8"), max_size=40),
    st.integers(0, 2**40),
    st.lists(PARTS, max_size=3).map(tuple),
    JSON,
)
def test_fuzz_a_line_of_a_ledger(
    reason: str, number: int, parts: tuple[LedgerPart, ...], other: object
) -> None:
    head = Head(number, "0" * 64)
    entry = entry_after(head, replace(MESSAGE, reason=reason, parts=parts))
    assert read_line(entry.line(), head, "here") == entry
    for line in (json.dumps(other).encode(), json.dumps(vars(MESSAGE) | {"parts": other}).encode()):
        with pytest.raises(LedgerError, match="here"):
            read_line(line, head, "here")


def test_fuzz_an_approval(place: Path) -> None:
    folder = place / "state" / "approvals"
    folder.mkdir(parents=True)
    request = Request(
        "run", "north", "c", "d", {"epochs": 3, "flip": True, "alpha": 1.0, "data": ""}, "now"
    )
    whole = json.dumps(vars(request)).encode()
    path = folder / "north.run.json"

    @tried(80)
    @given(
        spoilt(whole)
        | JSON.map(lambda value: json.dumps(value).encode())
        | st.dictionaries(st.sampled_from(list(vars(request))), JSON).map(
            lambda changed: json.dumps(vars(request) | changed).encode()
        )
    )
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        try:
            (found,) = requests(place / "state")
        except PolicyError as error:
            assert "north.run.json is damaged" in str(error)
        else:
            assert (found.run, found.site) == ("run", "north") and isinstance(found.settings, dict)

    holds()


@tried(120)
@given(st.text(st.characters(), max_size=99))
def test_fuzz_a_sentence_stays_on_one_line(text: str) -> None:
    told = str(XsiteError(text))
    assert told == one_line(text) and is_plain(told) and len(told.splitlines()) <= 1
    told.encode()
    if is_plain(text):
        assert told == text


def test_fuzz_entries_are_what_was_entered(place: Path) -> None:
    folder = place / "entered"

    @tried(10)
    @given(st.lists(st.text(st.characters(codec="utf-8"), max_size=9), min_size=1, max_size=3))
    def holds(reasons: list[str]) -> None:
        for reason in reasons:
            enter(folder, replace(MESSAGE, reason=reason))
        assert [one.reason for one in entries(folder)][-len(reasons) :] == reasons

    holds()
