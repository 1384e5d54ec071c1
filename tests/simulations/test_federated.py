import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from common.config.schema import Config
from common.console.progress import ProgressListener
from common.errors import RunError
from common.files import alone_in
from common.runs.result import read_result
from common.tensor_files import load_tensors
from server.metrics import read_rows
from simulations.federated import (
    _conclude,
    _note_end,
    _plain_details,
    train_federated,
)
from simulations.runtime.backends import result_written
from simulations.runtime.bundle import make_bundle
from simulations.runtime.in_process import IN_PROCESS
from simulations.runtime.placement import Placement
from simulations.runtime.private_folder import private_folder
from simulations.runtime.superlink import LinkRunState
from tests.federation.hospitals import federate
from tests.full_disk import small_disk
from tests.simulations.runtime.test_processes import wait_for
from tests.simulations.tiny import tiny_config

ROOT = Path(__file__).parents[2]

COMPLETED = LinkRunState("finished", "completed", "")
FAILED = LinkRunState("finished", "failed", "Simulation failed with exception: no site answered")


def conclude(run: Path, before: dict[str, Any], outcome: LinkRunState) -> Path:
    return _conclude(run, sorted(run.glob("sites/*")), before, outcome)


def make_run(base: Path, config: Config | None = None, **result: object) -> Path:
    config = config or Config(run_name="one")
    run = base / config.run_name
    run.mkdir()
    (run / "config.toml").write_text(config.to_toml())
    (run / "result.json").write_text(json.dumps({"mode": "federated", **result}))
    return run


def test_a_run_that_says_it_completed_did(tmp_path: Path) -> None:
    run = make_run(tmp_path, status="completed")
    assert conclude(run, {}, COMPLETED) == run


def test_a_run_that_flower_calls_completed_without_a_result_has_failed(tmp_path: Path) -> None:
    run = make_run(tmp_path, status="running")
    with pytest.raises(RunError, match="Flower says 'completed', but the server wrote no result"):
        conclude(run, {}, COMPLETED)
    assert read_result(run)["status"] == "failed"


@pytest.mark.parametrize(
    ("result", "outcome", "reason"),
    [
        (
            {"status": "failed", "reason": "a is missing"},
            replace(FAILED, error="other"),
            "a is missing",
        ),
        ({"status": "running"}, replace(FAILED, error="other"), "no site answered"),
        (
            {"status": "running"},
            LinkRunState(
                "finished",
                "failed",
                "An error was encountered. Ending simulation.",
                "no site answered",
            ),
            "no site answered",
        ),
        (
            {"status": "running"},
            LinkRunState("finished", "failed", "No heartbeat received from the task"),
            "killed for want of memory",
        ),
    ],
)
def test_the_reason_is_the_best_that_somebody_gave(
    result: dict[str, str], outcome: LinkRunState, reason: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path, **result)
    with pytest.raises(RunError, match=f"run 'one' failed: .*{reason}.*log.txt and flower.txt"):
        conclude(run, {}, outcome)
    after = read_result(run)
    assert after["status"] == "failed"
    assert reason in after["reason"]


def test_what_an_earlier_attempt_wrote_is_no_result_of_this_one(tmp_path: Path) -> None:
    run = make_run(tmp_path, status="failed", reason="an earlier reason")
    with pytest.raises(RunError, match="no site answered"):
        conclude(run, read_result(run), FAILED)
    assert read_result(run)["reason"] == "no site answered"


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no site answered$"):
        conclude(tmp_path / "one", {}, FAILED)
    assert not list(tmp_path.iterdir())


def test_what_the_server_wrote_at_the_end_stays(tmp_path: Path) -> None:
    run = make_run(tmp_path, status="failed", reason="a is missing")
    _note_end(run, {}, "failed", "another reason")
    assert read_result(run)["reason"] == "a is missing"
    _note_end(run, {}, "interrupted", "stopped by hand")
    assert read_result(run)["status"] == "interrupted"
    run = make_run(tmp_path, Config(run_name="two"), status="completed")
    _note_end(run, {}, "interrupted", "stopped by hand")
    assert read_result(run)["status"] == "completed"


def test_a_result_counts_from_this_run_s_start(tmp_path: Path) -> None:
    run = make_run(tmp_path, status="failed")
    written = (run / "result.json").stat().st_mtime
    assert result_written(run, written - 1)
    assert not result_written(run, written + 1)
    (run / "result.json").write_text('{"status": "running"}')
    assert not result_written(run, written - 1)


def test_ray_s_sockets_fit_wherever_temporary_files_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 60)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with private_folder(Config(cache_dir=str(tmp_path / "cache"))) as folder:
        socket = folder / "ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
        assert len(str(socket)) < 107
        (folder / "some").mkdir()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 3}, r"differs in epochs \(10 there, 3 here\)"),
        ({"run_name": "two"}, "no run 'two'"),
    ],
)
def test_a_resumption_that_cannot_be_is_refused_before_anything_starts(
    change: dict[str, int | str], said: str, tmp_path: Path
) -> None:
    make_run(tmp_path, Config(run_name="one", threads=1), status="interrupted")
    config = Config(run_name="one", resume=True).changed(**change)
    with pytest.raises(RunError, match=said):
        train_federated(config, tmp_path, ProgressListener())


def test_a_completed_run_is_not_run_again_and_a_name_is_not_taken_twice(tmp_path: Path) -> None:
    run = make_run(tmp_path, Config(run_name="one", threads=1), status="completed")
    resumed = Config(run_name="one", resume=True)
    assert train_federated(resumed, tmp_path, ProgressListener()) == run
    with pytest.raises(RunError, match="exists already"):
        train_federated(Config(run_name="one"), tmp_path, ProgressListener())


def test_a_run_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path, Config(run_name="one", threads=1), status="running")
    with ExitStack() as other:
        other.enter_context(alone_in(run))
        with pytest.raises(RunError, match="Another process"):
            train_federated(Config(run_name="one", resume=True), tmp_path, ProgressListener())


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, with a short path, that nobody else uses."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for all tests here: where pip compiled nothing, the first run compiles."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def decoy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with other packages of the app's names, in which the command is given.

    And proxies that lead nowhere, behind which the run's processes are not.
    """
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
    folder = tmp_path / "decoy"
    for package in ("common", "clients", "server"):
        (folder / package).mkdir(parents=True)
        for file in ("__init__.py", "app.py", "config.py"):
            (folder / package / file).write_text("raise SystemExit('a decoy was imported')\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def left_behind(scratch: Path) -> list[str]:
    """Return the processes that a simulation started: Flower's folder in their environment says so.

    Whose parent is gone is found too.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("FLWR_HOME", "").startswith(str(scratch)):
                found.append(f"{process.pid} {process.status()} {process.name()}")
    return found


def xsite(*arguments: str | Path) -> "subprocess.Popen[str]":
    """Start the command in the current folder."""
    program = f"import sys; sys.path[0] = {str(ROOT)!r}; from simulations.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    files = [run / "shared.safetensors", *sorted(run.glob("sites/*/private.safetensors"))]
    assert len(files) == 3
    return {
        f"{file.relative_to(run)}:{name}": tensor
        for file in files
        for name, tensor in load_tensors(file)[0].items()
    }


@pytest.mark.slow
def test_weights_survive_decoys_an_interruption_and_another_number_of_workers(
    tmp_path: Path, scratch: Path, cache: Path, decoy: Path
) -> None:
    config = tiny_config(tmp_path, epochs=6).changed(cache_dir=str(cache))
    runs = tmp_path / "runs"
    # Without Ray, without a process of its own for any site, without interruption.
    federate(config.changed(run_name="whole", runs_dir=str(runs)))
    # PyTorch has made a folder of its own there, if this is the process's first optimizer.
    before = list(scratch.iterdir())

    file = tmp_path / "config.toml"
    file.write_text(config.changed(run_name="cut").to_toml())
    command = xsite("train", "federated", "--config", file, "--runs", runs)
    try:
        table = runs / "cut" / "metrics.csv"
        wait_for(lambda: table.exists() or command.poll() is not None, seconds=200)
        command.send_signal(signal.SIGINT)
        output, _ = command.communicate(timeout=60)
    finally:
        command.kill()
    assert command.returncode == 130, output
    assert left_behind(scratch) == []
    assert list(scratch.iterdir()) == before
    assert read_result(runs / "cut")["status"] == "interrupted"
    assert 1 <= len({row.round for row in read_rows(table)}) < 6

    resumed = config.changed(run_name="cut", resume=True)
    one_worker = Placement(threads=1, cpus=1, cpus_per_site=1)
    assert train_federated(resumed, runs, ProgressListener(), one_worker) == runs / "cut"
    assert left_behind(scratch) == []
    whole, cut = weights(runs / "whole"), weights(runs / "cut")
    assert whole.keys() == cut.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, cut[name]), name


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help exists on Linux alone")
def test_a_run_that_is_killed_leaves_no_process_and_the_next_one_removes_its_folder(
    tmp_path: Path, scratch: Path, cache: Path
) -> None:
    config = tiny_config(tmp_path, run_name="killed", epochs=60).changed(cache_dir=str(cache))
    file = tmp_path / "config.toml"
    file.write_text(config.to_toml())
    command = xsite("train", "federated", "--config", file, "--runs", tmp_path / "runs")
    table = tmp_path / "runs" / "killed" / "metrics.csv"
    try:
        wait_for(lambda: table.exists() or command.poll() is not None, seconds=200)
        assert left_behind(scratch)
        with private_folder(config) as other:
            # Who is under way is left alone.
            assert len(list(scratch.glob("xsite-*"))) == 2
    finally:
        command.kill()
    command.wait(timeout=10)
    wait_for(lambda: not left_behind(scratch), seconds=5)
    assert left_behind(scratch) == []
    (abandoned,) = scratch.glob("xsite-*")
    with private_folder(config) as other:
        assert list(scratch.glob("xsite-*")) == [other]
    assert not list(scratch.glob("xsite-*")) and not abandoned.exists()


def test_a_full_folder_of_temporary_files_is_named_and_not_what_was_copied(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(cache_dir=str(tmp_path / "cache"), runs_dir=str(tmp_path))
    said = r"No space left on device.*0 MB are free in .*TMPDIR"
    with small_disk(scratch / "d", 64) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with pytest.raises(RunError, match=said) as caught, private_folder(config) as folder:
            make_bundle(folder / "app")
        assert str(ROOT) not in str(caught.value) and str(disk) in str(caught.value)
        assert not list(disk.iterdir())
        told = _plain_details(copy_errors(errno.ENOSPC), config, disk / "xsite-1")
    assert re.fullmatch(rf"No space .*: \d MB are free in .*TMPDIR\), {disk}\. Free .*", told)
    assert "/there" not in told


def copy_errors(number: int) -> str:
    """Return what Flower says of a folder of two files that cannot be copied."""
    said = f"[Errno {number}] {os.strerror(number)}: "
    return "Simulation failed with exception: " + str(
        [(f"/here/{name}", f"/there/{name}", f"{said}'/there/{name}'") for name in "ab"]
    )


def test_what_flower_raises_as_a_list_is_told_in_one_line() -> None:
    told = _plain_details(copy_errors(errno.EACCES), Config(), Path("/tmp/xsite-1"))
    assert told == "[Errno 13] Permission denied: '/there/a'"
    assert _plain_details("no site answered", Config(), Path("/tmp/x")) == "no site answered"


def test_only_what_a_run_of_this_account_left_is_removed(tmp_path: Path, scratch: Path) -> None:
    config = Config(cache_dir=str(tmp_path / "cache"))
    (scratch / "xsite-no-lock").mkdir()
    (scratch / "xsite-error-1.txt").touch()
    left, living, linked = (scratch / f"xsite-{name}" for name in ("left", "living", "linked"))
    compiled = tmp_path / "cache" / "bytecode" / left.relative_to("/")
    for folder in (left, living, compiled, tmp_path / "other"):
        folder.mkdir(parents=True)
        (folder / ".lock").touch()
        (folder / "some").mkdir()
    linked.symlink_to(tmp_path / "other")
    before = {path for path in scratch.iterdir() if path != left}
    with alone_in(living), private_folder(config) as own:
        assert set(scratch.iterdir()) == before | {own}
        assert not compiled.exists() and (living / "some").exists()
    assert set(scratch.iterdir()) == before and (tmp_path / "other" / "some").exists()


def test_what_another_account_put_there_is_left(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = scratch / "xsite-other"
    other.mkdir()
    (other / ".lock").touch()
    monkeypatch.setattr("os.geteuid", lambda: other.stat().st_uid + 1)
    with private_folder(Config(cache_dir=str(scratch / "cache"))):
        assert other.exists()


@pytest.mark.slow
def test_a_site_that_cannot_take_part_fails_the_command_with_the_reason(
    tmp_path: Path, scratch: Path, cache: Path
) -> None:
    config = tiny_config(tmp_path, run_name="broken").changed(cache_dir=str(cache))
    # A name of Windows: no class of the run, and not the class that the site may lack.
    (tmp_path / "data" / "b" / "covid").rename(tmp_path / "data" / "b" / "COVID")
    file = tmp_path / "config.toml"
    file.write_text(config.to_toml())
    command = xsite("train", "federated", "--config", file, "--runs", tmp_path / "runs")
    try:
        output, _ = command.communicate(timeout=180)
    finally:
        command.kill()
    assert command.returncode == 1, output
    assert "federated run 'broken' failed" in output
    assert "b says: Site 'b'" in output
    assert left_behind(scratch) == []
    assert list(scratch.iterdir()) == []
    result = read_result(tmp_path / "runs" / "broken")
    assert result["status"] == "failed"
    assert result["reason"] in " ".join(output.split())


def figures_of(run: Path) -> dict[str, Any]:
    """Return what a run came to, but for what time and place decide."""
    result = read_result(run)
    for key in ("started", "finished", "seconds"):
        del result[key]
    rows = [replace(row, seconds=0.0) for row in read_rows(run / "metrics.csv")]
    tables = {
        str(file.relative_to(run)): file.read_text()
        for file in sorted(run.glob("sites/*/*predictions.csv"))
    }
    return {"result": result, "rows": list(map(str, rows)), "predictions": tables}


@pytest.mark.slow
def test_ray_and_this_process_train_the_same_run(
    tmp_path: Path, scratch: Path, cache: Path
) -> None:
    config = tiny_config(tmp_path, epochs=3, validation_fraction=0.3, run_name="run").changed(
        cache_dir=str(cache)
    )
    ray = train_federated(config, tmp_path / "ray", ProgressListener())
    here = train_federated(config, tmp_path / "here", ProgressListener(), backend=IN_PROCESS)
    expected, found = figures_of(ray), figures_of(here)
    assert found == expected
    assert len(expected["rows"]) == 12 and len(expected["predictions"]) == 4
    assert expected["result"]["best"]["a"]["round"] >= 1
    assert expected["result"]["bytes"]["up"] > 0
    assert weights(here).keys() == weights(ray).keys()
    for name, tensor in weights(ray).items():
        assert torch.equal(tensor, weights(here)[name]), name
    files = [
        {str(file.relative_to(run)) for file in run.rglob("*") if "tfevents" not in file.name}
        for run in (ray, here)
    ]
    assert files[0] == files[1]
