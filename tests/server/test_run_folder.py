"""A run's folder: never overwritten, whole at any moment, and able to go on."""

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from common import files
from common.config.schema import Config
from common.errors import RunError
from common.exchange.fingerprint import code_fingerprint
from common.files import read_json
from common.runs.result import read_result, runs_base
from server import run_folder as runs
from server.run_folder import (
    ROOT,
    RunFolder,
    describe_environment,
    differing_keys,
    read_begun,
    run_folder_name,
)

CONFIG = Config(run_name="run", width=0.05, image_size=32, seed=3, fold=1)


def test_a_new_run_says_what_it_is_and_with_what(tmp_path: Path) -> None:
    folder = RunFolder.create(CONFIG, "pooled", tmp_path)
    assert folder.path == tmp_path / "run"
    stored = runs.read_run_config(folder.path)
    assert stored == CONFIG and stored.digest() == CONFIG.digest()
    result = read_result(folder.path)
    assert (result["status"], result["mode"]) == ("running", "pooled")
    assert (result["seed"], result["fold"], result["split"]) == (3, 1, "patient")
    assert result["config_digest"] == CONFIG.digest()
    environment = read_json(folder.path / "environment.json")
    assert environment["code_fingerprint"] == code_fingerprint()
    assert set(environment["packages"]) >= {"torch", "flwr", "numpy"}
    assert environment["cores"] >= 1 and environment["memory_gib"] > 0
    # A checkout says which revision it is; a copy without Git, and an installed one, say nothing.
    assert (ROOT / "server").is_dir()
    assert (environment["git"] is not None) == (ROOT / ".git").exists()


def test_nothing_in_the_folder_names_the_machine(tmp_path: Path) -> None:
    described = json.dumps(describe_environment())
    assert socket.gethostname() not in re.findall(r"[\w.-]+", described)
    assert str(ROOT) not in described
    folder = RunFolder.create(CONFIG, "pooled", tmp_path)
    folder.add_metrics([runs.MetricsRow(1, 4, "a", "test", {"accuracy": 0.5})], 1)
    names = [path.name for path in folder.path.rglob("*")]
    assert not any(socket.gethostname() in name for name in names)


def test_an_existing_folder_is_refused_and_unharmed(tmp_path: Path) -> None:
    folder = RunFolder.create(CONFIG, "pooled", tmp_path)
    before = {p: p.read_bytes() for p in folder.path.iterdir() if p.is_file()}
    with pytest.raises(RunError, match="'run' exists already"):
        RunFolder.create(CONFIG.changed(seed=4), "pooled", tmp_path)
    assert before == {p: p.read_bytes() for p in folder.path.iterdir() if p.is_file()}
    for name in (".", ".."):
        with pytest.raises(RunError, match="no name of a new folder"):
            RunFolder.create(CONFIG.changed(run_name=name), "pooled", tmp_path)


def test_resuming_wants_the_same_configuration_and_mode(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run 'run'"):
        RunFolder.create(CONFIG.changed(resume=True), "pooled", tmp_path)
    folder = RunFolder.create(CONFIG, "pooled", tmp_path)
    folder.fail("interrupted", "stopped by hand")
    with pytest.raises(
        RunError, match=r"alpha \(1\.0 there, 0\.5 here\); seed \(3 there, 4 here\)"
    ):
        RunFolder.create(CONFIG.changed(resume=True, alpha=0.5, seed=4), "pooled", tmp_path)
    with pytest.raises(RunError, match="is pooled training, not single"):
        RunFolder.create(CONFIG.changed(resume=True), "single", tmp_path)
    assert read_result(folder.path)["status"] == "interrupted"
    # Where a run lives and how long a round may take does not matter.
    again = CONFIG.changed(resume=True, cache_dir="elsewhere", round_timeout=5)
    assert RunFolder.create(again, "pooled", tmp_path).path == folder.path
    assert read_result(folder.path)["status"] == "running"
    assert "resumed" in (folder.path / "log.txt").read_text()


def test_a_resumed_run_keeps_its_number_of_threads(tmp_path: Path) -> None:
    RunFolder.create(CONFIG.changed(threads=7), "federated", tmp_path)
    resumed = CONFIG.changed(resume=True)
    assert read_begun(resumed, "federated", tmp_path)[0].threads == 7
    assert read_begun(resumed.changed(threads=7), "federated", tmp_path)[0].threads == 7
    with pytest.raises(RunError, match=r"threads \(7 there, 2 here\)"):
        read_begun(resumed.changed(threads=2), "federated", tmp_path)


def test_a_resumed_run_notes_what_it_is_computed_with_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.create(CONFIG, "pooled", tmp_path)
    environment = describe_environment() | {"cpu": "another"}
    monkeypatch.setattr(runs, "describe_environment", lambda: environment)
    RunFolder.create(CONFIG.changed(resume=True), "pooled", tmp_path)
    last = (folder.path / "log.txt").read_text().splitlines()[-1]
    assert last.endswith("resumed; other than at the start: cpu")


def test_a_completed_run_stays_completed(tmp_path: Path) -> None:
    folder = RunFolder.create(CONFIG, "pooled", tmp_path)
    folder.finish({"seconds": 1.5, "metrics": {"a": {"test": {"auc": float("nan")}}}})
    text = (folder.path / "result.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["metrics"]["a"]["test"]["auc"] is None
    again = RunFolder.create(CONFIG.changed(resume=True), "pooled", tmp_path)
    assert again.result["status"] == "completed"


def test_a_run_without_a_name_gets_one_of_its_own(tmp_path: Path) -> None:
    unnamed = CONFIG.changed(run_name="")
    first = RunFolder.create(unnamed, "single", tmp_path)
    assert re.fullmatch(r"single-\d{8}-\d{6}", first.path.name)
    assert first.config.run_name == first.path.name
    taken = run_folder_name(unnamed, "single", tmp_path)
    (tmp_path / taken).mkdir(exist_ok=True)
    assert run_folder_name(unnamed, "single", tmp_path) != taken


def test_a_full_disk_is_told_in_a_sentence_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.create(CONFIG, "pooled", tmp_path)
    row = runs.MetricsRow(1, 4, "a", "test")
    folder.add_metrics([row], 1)
    before = (folder.path / "metrics.csv").read_bytes()
    full = OSError(28, "No space left on device")

    def fail(*_: Any, **__: Any) -> Any:
        raise full

    monkeypatch.setattr(files.Path, "write_bytes", fail)
    with pytest.raises(RunError, match=r"result\.json: No space left on device"):
        folder.finish({})
    assert read_result(folder.path)["status"] == "running"
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(RunError, match=r"metrics\.csv: No space left on device"):
        folder.add_metrics([row], 2)
    with pytest.raises(RunError, match=r"log\.txt: No space left on device"):
        folder.log("a line")
    monkeypatch.undo()
    assert (folder.path / "metrics.csv").read_bytes() == before
    assert not list(folder.path.glob("*.part")) and not list(folder.path.glob(".*.part"))


def test_runs_lie_where_the_configuration_says(tmp_path: Path) -> None:
    assert runs_base(Config(), Path("runs")) == Path.cwd() / "runs"
    assert runs_base(Config(runs_dir=str(tmp_path)), Path("runs")) == tmp_path


def test_differing_keys_leave_out_what_determines_nothing() -> None:
    other = CONFIG.changed(runs_dir="elsewhere", run_name="other", batch_size=8)
    assert differing_keys(CONFIG, other) == ["batch-size (16 there, 8 here)"]
