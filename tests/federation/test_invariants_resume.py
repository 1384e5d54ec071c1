"""Killed at any point and resumed, a run ends with the weights of one that was never stopped."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

import server.app
from common.config.schema import Config
from common.errors import CheckpointError, RunError
from common.exchange.messages import RoundOrder
from common.exchange.wire import decode
from common.runs.result import read_result
from server.metrics import read_rows
from simulations.runtime.in_process import run_server
from tests.federation.hospitals import federate, make_grid, run_of, tiny_config
from tests.federation.test_invariants_reproducible import ROOT, outcome
from tests.federation.watched import WatchedGrid

SETTINGS: dict[str, Any] = {"epochs": 3, "validation_fraction": 0.3}


def resumable(folder: Path, name: str) -> Config:
    """Return a configuration; names are equally long, since they count as bytes exchanged."""
    return tiny_config(folder, run_name=name.ljust(32, "-"), **SETTINGS)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of xsite's catches it and goes on."""


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes], list[str]]:
    folder = tmp_path_factory.mktemp("resume")
    config = resumable(folder, "unharmed")
    federate(config)
    return folder, outcome(config), figures(config)


def figures(config: Config) -> list[str]:
    """Return all rows of metrics.csv but for the time, which nobody can repeat."""
    rows = read_rows(run_of(config) / "metrics.csv")
    return [repr(replace(row, seconds=0.0)) for row in rows]


def killing(kind: str, number: int) -> Callable[[Message], None]:
    """Kill the server before it sends its n-th message of a kind."""
    count = 0

    def before(question: Message) -> None:
        nonlocal count
        count += question.metadata.message_type == kind
        if question.metadata.message_type == kind and count == number:
            raise Killed

    return before


def resume(config: Config) -> WatchedGrid:
    grid = federate(config.changed(resume=True))
    assert read_result(run_of(config))["status"] == "completed"
    return grid


# Two sites, three rounds: train messages 1, 2 | 3, 4 | 5, 6, then two each to evaluate the final
# and the chosen weights.
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("query", 1),
        ("train", 2),  # the first site has trained round 1, the second not
        ("train", 3),
        ("train", 4),
        ("evaluate", 1),
        ("evaluate", 2),
        ("evaluate", 4),
    ],
)
def test_a_server_killed_before_a_message_loses_nothing(
    unharmed: tuple[Path, dict[str, bytes], list[str]], kind: str, number: int
) -> None:
    folder, expected, rows = unharmed
    config = resumable(folder, f"killed-{kind}-{number}")
    with pytest.raises(Killed):
        federate(config, before=killing(kind, number))
    resume(config)
    assert outcome(config) == expected
    assert figures(config) == rows


@pytest.mark.parametrize(
    ("step", "after"),
    [
        ("note_figures", False),
        ("note_best", False),
        ("checkpoint", False),
        ("checkpoint", True),
        ("finish", False),
        ("finish", True),
    ],
)
def test_a_server_killed_while_it_writes_loses_nothing(
    unharmed: tuple[Path, dict[str, bytes], list[str]],
    step: str,
    after: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, expected, rows = unharmed
    config = resumable(folder, f"killed-at-{step}-{after}")
    write, calls = getattr(server.app.Journal, step), 0

    def killed(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == (1 if step == "finish" else 2):
            if after:
                write(*arguments)
            raise Killed
        write(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(server.app.Journal, step, killed)
        federate(config)
    if step == "finish" and after:
        assert read_result(run_of(config))["status"] == "interrupted"
    resume(config)
    assert outcome(config) == expected
    assert figures(config) == rows


def test_a_site_a_round_ahead_goes_back(
    unharmed: tuple[Path, dict[str, bytes], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, expected, _ = unharmed
    config = resumable(folder, "ahead")
    write = server.app.Journal.checkpoint

    def killed(journal: server.app.Journal, state: server.app.RunState) -> None:
        if state.round == 2:
            raise Killed
        write(journal, state)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(server.app.Journal, "checkpoint", killed)
        federate(config)
    assert [path.name for path in (run_of(config) / "checkpoint").iterdir()] == [
        "round-0001.safetensors"
    ]
    for site in config.site_names:
        store = run_of(config) / "sites" / site / "store"
        assert sorted(path.name for path in store.glob("round-*")) == [
            "round-0001.safetensors",
            "round-0002.safetensors",
        ]
    asked: list[tuple[int, int]] = []

    def note(question: Message) -> None:
        if question.metadata.message_type == "train":
            order = decode(RoundOrder, question.content)
            asked.append((order.round, order.previous))

    federate(config.changed(resume=True), before=note)
    assert asked == [(2, 1), (2, 1), (3, 2), (3, 2)]
    assert outcome(config) == expected


def test_a_site_killed_between_rounds_or_before_it_answers_ends_the_run_until_it_is_back(
    unharmed: tuple[Path, dict[str, bytes], list[str]],
) -> None:
    folder, expected, rows = unharmed
    config = resumable(folder, "dead-site").changed(round_timeout=0.5)
    grid = make_grid(config)

    def die(question: Message) -> None:
        if question.metadata.message_type == "train" and question.metadata.group_id == "2":
            grid.dead.add(101)

    grid.before = die
    with pytest.raises(RunError, match=r"Round 2: 1 of 2 .* south: Node unavailable .*code 5"):
        run_server(server.app.app, grid)
    assert read_result(run_of(config))["status"] == "failed"

    def swallow(question: Message, reply: Message) -> list[Message]:
        lost = question.metadata.dst_node_id == 101 and question.metadata.group_id == "3"
        return [] if lost else [reply]

    with pytest.raises(RunError, match=r"Round 3: .* south: no answer within round-timeout"):
        federate(config.changed(resume=True), tamper=swallow)
    resume(config)
    assert outcome(config) == expected
    assert figures(config) == rows


def test_a_process_killed_with_the_real_signal_loses_nothing(
    unharmed: tuple[Path, dict[str, bytes], list[str]],
) -> None:
    folder, expected, rows = unharmed
    config = resumable(folder, "sigkill")
    code = (
        "import os; from pathlib import Path; from tests.federation.hospitals import *\n"
        "def before(question):\n"
        "    if question.metadata.group_id == '2' and question.metadata.dst_node_id == 101:\n"
        "        os.kill(os.getpid(), 9)\n"
        f"config = tiny_config(Path({str(folder)!r}), run_name={config.run_name!r}, **{SETTINGS})\n"
        "federate(config, before=before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == -9
    assert read_result(run_of(config))["status"] == "running"
    resume(config)
    assert outcome(config) == expected
    assert figures(config) == rows


def test_a_damaged_last_checkpoint_ends_the_run_where_the_sites_cannot_go_back_that_far(
    unharmed: tuple[Path, dict[str, bytes], list[str]],
) -> None:
    folder, _, _ = unharmed
    config = resumable(folder, "damaged")
    with pytest.raises(Killed):
        federate(config, before=killing("train", 5))
    for path in (run_of(config) / "checkpoint").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="Cannot read the weights"):
        federate(config.changed(resume=True))


def test_a_resumption_with_another_configuration_or_other_images_is_refused(
    unharmed: tuple[Path, dict[str, bytes], list[str]], tmp_path: Path
) -> None:
    config = tiny_config(tmp_path, **SETTINGS)
    with pytest.raises(Killed):
        federate(config, before=killing("train", 3))
    with pytest.raises(RunError, match=r"differs in learning-rate"):
        federate(config.changed(resume=True, learning_rate=0.5))
    south = tmp_path / "data" / "south"
    metadata = (south / "metadata.csv").read_text().splitlines()
    dropped = [line.partition(",")[0] for line in metadata[1:] if line.endswith(("3", "4"))]
    for file in dropped:
        (south / file).unlink()
    kept = [line for line in metadata if line.partition(",")[0] not in dropped]
    (south / "metadata.csv").write_text("\n".join(kept) + "\n")
    with pytest.raises(CheckpointError, match=r"south has \d training images; at the start"):
        federate(config.changed(resume=True))


def test_a_completed_run_is_left_alone(
    unharmed: tuple[Path, dict[str, bytes], list[str]],
) -> None:
    folder, expected, _ = unharmed
    config = resumable(folder, "unharmed")
    assert federate(config.changed(resume=True)).sent == []
    assert outcome(config) == expected
