import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from toy_app import write_toy_app

from common.config import Config
from common.errors import RunError
from common.results import read_result
from simulations.federated import (
    Ending,
    _conclude,
    _note_end,
    _private_folder,
    _result_written,
    train_federated,
)
from simulations.guard import alone_in
from simulations.progress import SilentReport
from simulations.superlink import RunState

COMPLETED = RunState("finished", "completed", "")
FAILED = RunState("finished", "failed", "Simulation failed with exception: no site answered")


def make_run(base: Path, config: Config | None = None, **result: object) -> Path:
    config = config or Config(run_name="one")
    run = base / config.run_name
    run.mkdir()
    (run / "config.toml").write_text(config.to_toml())
    (run / "result.json").write_text(json.dumps({"mode": "federated", **result}))
    return run


def test_a_run_that_says_it_completed_did(tmp_path: Path) -> None:
    run = make_run(tmp_path, status="completed")
    assert _conclude(run, {}, Ending(COMPLETED, "")) == run


def test_a_run_that_flower_calls_completed_without_a_result_has_failed(tmp_path: Path) -> None:
    run = make_run(tmp_path, status="running")
    with pytest.raises(RunError, match="Flower says 'completed', but the server wrote no result"):
        _conclude(run, {}, Ending(COMPLETED, ""))
    assert read_result(run)["status"] == "failed"


@pytest.mark.parametrize(
    ("result", "ending", "reason"),
    [
        ({"status": "failed", "reason": "a is missing"}, Ending(FAILED, "other"), "a is missing"),
        ({"status": "running"}, Ending(FAILED, "other"), "no site answered"),
        (
            {"status": "running"},
            Ending(
                RunState("finished", "failed", "An error was encountered. Ending simulation."),
                "no site answered",
            ),
            "no site answered",
        ),
        (
            {"status": "running"},
            Ending(RunState("finished", "failed", "No heartbeat received from the task"), ""),
            "killed for want of memory",
        ),
    ],
)
def test_the_reason_is_the_best_that_somebody_gave(
    result: dict[str, str], ending: Ending, reason: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path, **result)
    with pytest.raises(RunError, match=f"run 'one' failed: .*{reason}.*log.txt"):
        _conclude(run, {}, ending)
    after = read_result(run)
    assert after["status"] == "failed"
    assert reason in after["reason"]


def test_what_an_earlier_attempt_wrote_is_no_result_of_this_one(tmp_path: Path) -> None:
    run = make_run(tmp_path, status="failed", reason="an earlier reason")
    with pytest.raises(RunError, match="no site answered"):
        _conclude(run, read_result(run), Ending(FAILED, ""))
    assert read_result(run)["reason"] == "no site answered"


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no site answered$"):
        _conclude(tmp_path / "one", {}, Ending(FAILED, ""))
    assert not list(tmp_path.iterdir())


def test_what_the_server_wrote_at_the_end_stays(tmp_path: Path) -> None:
    run = make_run(tmp_path, status="failed", reason="a is missing")
    _note_end(run, {}, "interrupted", "stopped by hand")
    assert read_result(run)["reason"] == "a is missing"


def test_a_result_counts_from_this_run_s_start(tmp_path: Path) -> None:
    run = make_run(tmp_path, status="failed")
    written = (run / "result.json").stat().st_mtime
    assert _result_written(run, written - 1)
    assert not _result_written(run, written + 1)
    (run / "result.json").write_text('{"status": "running"}')
    assert not _result_written(run, written - 1)


def test_ray_s_sockets_fit_wherever_temporary_files_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 60)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with _private_folder() as folder:
        socket = folder / "ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
        assert len(str(socket)) < 107
        (folder / "some").mkdir()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 3}, r"differs in epochs \(100 there, 3 here\)"),
        ({"run_name": "two"}, "no run 'two'"),
    ],
)
def test_a_resumption_that_cannot_be_is_refused_before_anything_starts(
    change: dict[str, int | str], said: str, tmp_path: Path
) -> None:
    make_run(tmp_path, Config(run_name="one", threads=1), status="interrupted")
    config = Config(run_name="one", resume=True).changed(**change)
    with pytest.raises(RunError, match=said):
        train_federated(config, tmp_path, SilentReport())


def test_a_completed_run_is_not_run_again_and_a_name_is_not_taken_twice(tmp_path: Path) -> None:
    run = make_run(tmp_path, Config(run_name="one", threads=1), status="completed")
    resumed = Config(run_name="one", resume=True)
    assert train_federated(resumed, tmp_path, SilentReport()) == run
    with pytest.raises(RunError, match="exists already"):
        train_federated(Config(run_name="one"), tmp_path, SilentReport())


def test_a_run_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path, Config(run_name="one", threads=1), status="running")
    with ExitStack() as other:
        other.enter_context(alone_in(run))
        with pytest.raises(RunError, match="Another process"):
            train_federated(Config(run_name="one", resume=True), tmp_path, SilentReport())


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, with a short path, that nobody else uses."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def descendants() -> list[str]:
    return [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]


@pytest.mark.slow
def test_a_failing_server_is_an_error_with_its_reason_and_leaves_nothing_behind(
    tmp_path: Path, scratch: Path
) -> None:
    before = descendants()
    app = write_toy_app(tmp_path / "app")
    config = Config(run_name="one", pretrained="raise", sites="hospital-a,hospital-b")
    with pytest.raises(RunError, match="'one' failed: hospital-b sent nothing that could be used"):
        train_federated(config, tmp_path / "runs", SilentReport(), app=app)
    assert descendants() == before
    assert list(scratch.iterdir()) == []
    assert read_result(tmp_path / "runs" / "one")["status"] == "failed"
    assert "RuntimeError" in (tmp_path / "runs" / "one" / "log.txt").read_text()
