"""``xsite ledger`` over the ledger of a federation of two hospitals."""

import hashlib
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from clients.egress.budget import epsilon, upper
from clients.egress.ledger import LedgerPart, Message, enter, verify
from common.tensor_files import load_tensors
from simulations.cli import app
from simulations.runtime.in_process import run_server
from tests.federation.hospitals import client, deploy, server, tiny_config
from tests.federation.watched import WatchedGrid


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the state folder of a hospital that took part in a run with a policy."""
    root = tmp_path_factory.mktemp("ledger")
    config = tiny_config(root, epochs=2)
    (root / "policy.toml").write_text('figures = ["test/*"]\n')
    nodes = {
        number: {
            "site": site,
            "data-dir": str(root / "data" / site),
            "state-dir": str(root / site),
            "policy": str(root / "policy.toml"),
        }
        for number, site in enumerate(config.site_names, start=100)
    }
    run_server(server, WatchedGrid(client, nodes, config.to_run_config()))
    return root / "north"


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["ledger", *map(str, words)])


def test_verify_says_how_many_lines_and_the_hash_to_note(state: Path) -> None:
    head = verify(state / "ledger")
    for place in (state, state / "ledger"):
        told = call("verify", place, "--contains", head.hash.upper())
        assert told.exit_code == 0
        assert f"{head.entries} lines, none of them changed" in told.output
        assert head.hash in told.output
    assert "no entry has the hash" in call("verify", state, "--contains", "ab" * 32).stderr


def test_a_changed_ledger_is_neither_verified_nor_shown(state: Path) -> None:
    path = state / "ledger" / "ledger-0001.jsonl"
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"round":1', b'"round":3', 1))
    try:
        for command in ("verify", "show"):
            told = call(command, state)
            assert told.exit_code == 1 and "was changed after it was written" in told.stderr
            assert "Traceback" not in told.output
    finally:
        path.write_bytes(before)


def test_the_page_lists_everything_that_left(state: Path, tmp_path: Path) -> None:
    told = call("show", state, "--output", tmp_path / "page.html")
    assert told.exit_code == 0 and "Left: 4 messages" in told.output
    page = (tmp_path / "page.html").read_text()
    tensors, _ = load_tensors(state / "run" / "sites" / "north" / "shared.safetensors")
    assert len(tensors) > 100 and all(f">{name}<" in page for name in tensors)
    assert ">test/auc<" in page and "train/loss" not in page
    assert ">prototypes<" in page and "run/sites/north/private.safetensors" in page
    assert "Held back" in page and "Private tensors left this site" not in page
    assert "http" not in page


def test_without_noise_it_says_that_nothing_is_guaranteed(state: Path, tmp_path: Path) -> None:
    told = call("show", state, "--output", tmp_path / "page.html")
    said = (
        "no guarantee: weights without noise in 2 messages, prototypes without noise in 2 "
        "messages, exact figures in 2 messages"
    )
    assert f"Privacy budget: {said}" in " ".join(told.output.split())
    assert said in (tmp_path / "page.html").read_text()


def test_with_noise_it_says_what_is_spent_and_on_what(tmp_path: Path) -> None:
    policy = (
        'may-leave = ["weights", "prototypes"]\nclip-update = 0.01\nupdate-noise = 5.0\n'
        "prototype-noise = 8.0\ndelta = 1e-6\n"
    )
    run_server(server, deploy(tiny_config(tmp_path, epochs=2), {"north": policy}))
    told = call("show", tmp_path / "state" / "north", "--output", tmp_path / "page.html")
    # Twice weights, and prototypes of two classes, whose multiplier is half of their deviation.
    spent = upper(epsilon({5.0: 2, 4.0: 4}, 1e-6))
    said = f"ε ≤ {spent} at δ = 1e-06 for all images of the site together, over 2 messages"
    assert f"Privacy budget: {said}" in " ".join(told.output.split())
    page = (tmp_path / "page.html").read_text()
    assert said in page and "Noise multiplier" in page and "counts ε, an upper bound" in page
    assert "no guarantee" in " ".join(call("show", tmp_path / "state" / "south").output.split())


def test_a_private_tensor_among_what_left_is_named_and_ends_in_an_error(
    state: Path, tmp_path: Path
) -> None:
    shutil.copytree(state, tmp_path / "north")
    tensors, _ = load_tensors(state / "run" / "sites" / "north" / "private.safetensors")
    name, tensor = next((n, t) for n, t in tensors.items() if n.endswith("running_var"))
    digest = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    part = LedgerPart("shared", "innocent", tuple(tensor.shape), "float32", tensor.nbytes, digest)
    enter(
        tmp_path / "north" / "ledger",
        Message("north", "run", 3, "training", "sent", "", 99, (part,)),
    )
    told = call("show", tmp_path / "north", "--output", tmp_path / "page.html")
    assert told.exit_code == 1 and f"private.safetensors: {name}" in told.output
    assert "Private tensors left this site" in (tmp_path / "page.html").read_text()


def test_a_folder_without_a_ledger_is_told_so(tmp_path: Path) -> None:
    told = call("show", tmp_path)
    assert told.exit_code == 1 and "holds no ledger" in told.stderr
