"""A comparison: which runs are done, kept, resumed, and what becomes of those that fail."""

import csv
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from common.config.schema import Config
from common.console.progress import ProgressListener, SilentListener
from common.errors import ConfigError, RunError, SiteError
from common.runs.folder import RunFolder
from common.runs.tables import MetricsRow
from simulations import compare as room
from simulations.comparison import Cell, make_cells, make_comparison, time_left
from simulations.report import read_record
from tests.simulations.tiny import tiny_config

CONFIG = Config(run_name="study")
MODES = ("pooled", "federated", "single")


class Listener(SilentListener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


class StopAt(SilentListener):
    """Presses Ctrl-C at a step."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, done: int, loss: float, images_per_second: float) -> None:
        # Decoding counts its images too, without a loss.
        if done == self.at and math.isfinite(loss):
            os.kill(os.getpid(), signal.SIGINT)


class Trainers:
    """Stand-ins that make a run's folder and its result without training."""

    def __init__(self) -> None:
        self.done: list[tuple[str, bool]] = []
        self.before: dict[str, Callable[[], None]] = {}

    def __call__(self, mode: str) -> room.Train:
        def train(config: Config, base: Path, listener: ProgressListener) -> Path:
            folder = RunFolder.create(config, mode, base)
            self.done.append((config.run_name, config.resume))
            self.before.pop(config.run_name, lambda: None)()
            figures = {"auc": 0.9 - 0.01 * config.fold - 0.1 * (mode == "single"), "images": 9}
            metrics = {site: {"test": figures} for site in config.site_names}
            folder.add_metrics([MetricsRow(1, 10, s, "test", {"auc": 0.9}) for s in metrics], 1)
            folder.finish({"metrics": metrics, "seconds": 2.0})
            return folder.path

        return train


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> Trainers:
    """Replace training, and leave the drawings out: what is tested is which runs are done."""
    stand_ins = Trainers()
    monkeypatch.setattr("simulations.report.page.draw", lambda records, comparison: [])
    monkeypatch.setattr(room, "trainer", stand_ins)
    return stand_ins


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_every_mode_runs_on_every_fold_with_every_seed(tmp_path: Path, trainers: Trainers) -> None:
    page = room.compare(CONFIG, tmp_path, (0, 1), (0, 3), MODES, SilentListener())
    assert page == tmp_path / "study" / "report.html"
    names = [name for name, _ in trainers.done]
    assert names[:4] == [
        "pooled-fold0-seed0",
        "federated-fold0-seed0",
        "single-fold0-seed0",
        "pooled-fold3-seed0",
    ]
    assert len(set(names)) == len(names) == 12
    record = read_record(page.parent / "single-fold3-seed1")
    assert (record.mode, record.config.fold, record.config.seed) == ("single", 3, 1)
    rows = list(csv.DictReader((page.parent / "comparison.csv").open()))
    assert len(rows) == 24
    assert rows[-1]["auc"] == str(0.9 - 0.03 - 0.1)
    told = json.loads((page.parent / "comparison.json").read_text())
    assert len(told["runs"]) == 12
    assert "12 completed of 12" in page.read_text()


def test_what_is_complete_is_kept_and_more_can_be_added(tmp_path: Path, trainers: Trainers) -> None:
    room.compare(CONFIG, tmp_path, (0,), (0,), ("pooled",), SilentListener())
    before = (tmp_path / "study" / "pooled-fold0-seed0" / "result.json").stat().st_mtime_ns
    listener = Listener()
    page = room.compare(CONFIG, tmp_path, (1,), (0,), ("pooled", "single"), listener)
    again = room.compare(CONFIG, tmp_path, (0, 1), (0,), ("pooled",), listener)
    assert trainers.done[1:] == [("pooled-fold0-seed1", False), ("single-fold0-seed1", False)]
    after = (tmp_path / "study" / "pooled-fold0-seed0" / "result.json").stat().st_mtime_ns
    assert before == after
    assert "2 of 2 runs are complete already." in listener.messages
    # The report holds earlier runs too.
    assert "3 completed of 3" in page.read_text()
    assert "3 completed of 3" in again.read_text()


def test_a_failed_run_is_told_and_the_others_go_on(tmp_path: Path, trainers: Trainers) -> None:
    trainers.before["federated-fold0-seed0"] = raising(SiteError("no such image"))
    trainers.before["single-fold1-seed0"] = raising(ZeroDivisionError("oh"))
    listener = Listener()
    with pytest.raises(RunError, match="2 of 6 runs failed: federated-fold0-seed0 and single-fold"):
        room.compare(CONFIG, tmp_path, (0,), (0, 1), MODES, listener)
    assert len(trainers.done) == 6
    assert "federated-fold0-seed0 failed: no such image" in listener.messages
    assert "single-fold1-seed0 failed: ZeroDivisionError: oh" in listener.messages
    assert "4 completed of 6" in (tmp_path / "study" / "report.html").read_text()
    # Tried again, from where they stood; the others are kept.
    room.compare(CONFIG, tmp_path, (0,), (0, 1), MODES, SilentListener())
    assert trainers.done[6:] == [("federated-fold0-seed0", True), ("single-fold1-seed0", True)]


def test_a_run_that_failed_before_its_folder_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: Config, base: Path, listener: ProgressListener) -> Path:
        raise SiteError("hospital-a has no images")

    monkeypatch.setattr(room, "trainer", lambda mode: refuse)
    with pytest.raises(RunError, match="1 of 1 runs failed"):
        room.compare(CONFIG, tmp_path, (0,), (0,), ("pooled",), SilentListener())
    page = (tmp_path / "study" / "report.html").read_text()
    assert "failed: hospital-a has no images" in page


def test_after_an_interruption_the_same_command_goes_on(tmp_path: Path, trainers: Trainers) -> None:
    trainers.before["federated-fold0-seed0"] = raising(KeyboardInterrupt())
    listener = Listener()
    with pytest.raises(KeyboardInterrupt):
        room.compare(CONFIG, tmp_path, (0,), (0,), MODES, listener)
    assert "1 completed of 3" in (tmp_path / "study" / "report.html").read_text()
    assert listener.messages[-1].startswith("The same command goes on with the comparison.")
    room.compare(CONFIG, tmp_path, (0,), (0,), MODES, SilentListener())
    assert trainers.done[2:] == [("federated-fold0-seed0", True), ("single-fold0-seed0", False)]


def test_the_report_is_there_after_every_run(tmp_path: Path, trainers: Trainers) -> None:
    seen: list[str] = []
    page = tmp_path / "study" / "report.html"
    trainers.before["federated-fold0-seed0"] = lambda: seen.append(page.read_text())
    room.compare(CONFIG, tmp_path, (0,), (0,), MODES, SilentListener())
    assert "1 completed of 3" in seen[0]
    assert "not begun" in seen[0]
    assert "3 completed of 3" in page.read_text()


def test_a_folder_that_a_kill_left_half_made_is_made_again(
    tmp_path: Path, trainers: Trainers
) -> None:
    half = tmp_path / "study" / "pooled-fold0-seed0"
    half.mkdir(parents=True)
    (half / "environment.json").write_text("{}")
    room.compare(CONFIG, tmp_path, (0,), (0,), ("pooled",), SilentListener())
    assert trainers.done == [("pooled-fold0-seed0", False)]


def test_another_configuration_is_refused_with_the_keys(tmp_path: Path, trainers: Trainers) -> None:
    room.compare(CONFIG, tmp_path, (0,), (0,), ("pooled",), SilentListener())
    other = CONFIG.changed(epochs=7, alpha=0.0)
    with pytest.raises(RunError, match=r"alpha \(1.0 there, 0.0 here\); epochs \(10 there, 7 h"):
        room.compare(other, tmp_path, (0,), (0,), ("pooled",), SilentListener())
    # Fold and seed are the comparison's own, and where a run lives does not matter.
    same = CONFIG.changed(fold=2, seed=9, cache_dir="/elsewhere", runs_dir=str(tmp_path))
    room.compare(same, tmp_path, (0,), (0,), ("pooled",), SilentListener())
    assert len(trainers.done) == 1


def test_a_run_of_another_configuration_in_the_folder_is_refused(
    tmp_path: Path, trainers: Trainers
) -> None:
    name = "pooled-fold0-seed0"
    RunFolder.create(Config(run_name=name, epochs=7), "pooled", tmp_path / "study")
    with pytest.raises(RunError, match=rf"{name} was made with another configuration: epochs \(7"):
        room.compare(CONFIG, tmp_path, (0,), (0,), ("pooled",), SilentListener())
    assert trainers.done == []


def test_threads_that_a_run_chose_itself_are_no_other_configuration(
    tmp_path: Path, trainers: Trainers
) -> None:
    name = "federated-fold0-seed0"
    settled = Config(run_name=name, threads=3)
    RunFolder.create(settled, "federated", tmp_path / "study").finish({"metrics": {}})
    room.compare(CONFIG, tmp_path, (0,), (0,), ("federated",), SilentListener())
    assert trainers.done == []
    with pytest.raises(RunError, match=r"threads \(3 there, 2 here\)"):
        room.compare(
            CONFIG.changed(threads=2, run_name="study-2"),
            _moved(tmp_path, "study-2"),
            (0,),
            (0,),
            ("federated",),
            SilentListener(),
        )


def _moved(base: Path, name: str) -> Path:
    """Let a comparison have another name and forget its settings."""
    (base / "study").rename(base / name)
    (base / name / "comparison.toml").unlink()
    return base


def test_a_run_s_folder_is_no_comparison(tmp_path: Path, trainers: Trainers) -> None:
    RunFolder.create(Config(run_name="study"), "pooled", tmp_path)
    with pytest.raises(RunError, match="the folder of a run, not of a comparison"):
        room.compare(CONFIG, tmp_path, (0,), (0,), ("pooled",), SilentListener())


def test_without_a_name_the_configuration_names_the_folder(
    tmp_path: Path, trainers: Trainers
) -> None:
    one = room.compare(Config(), tmp_path, (0,), (0,), ("pooled",), SilentListener())
    same = room.compare(Config(seed=5, fold=1), tmp_path, (1,), (0,), ("pooled",), SilentListener())
    other = room.compare(Config(epochs=7), tmp_path, (0,), (0,), ("pooled",), SilentListener())
    assert one == same
    assert one.parent.name.startswith("compare-")
    assert other != one


@pytest.mark.parametrize(
    ("folds", "modes", "what"),
    [((4,), MODES, "no fold 4"), ((0,), ("local",), "no mode 'local'"), ((), MODES, "at least")],
)
def test_what_does_not_exist_is_refused_at_once(
    tmp_path: Path, folds: tuple[int, ...], modes: tuple[str, ...], what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        room.compare(CONFIG, tmp_path, (0,), folds, modes, SilentListener())
    assert list(tmp_path.iterdir()) == []


def test_position_and_time_left_are_told(tmp_path: Path, trainers: Trainers) -> None:
    listener = Listener()
    room.compare(CONFIG, tmp_path, (0,), (0, 1), ("pooled", "single"), listener)
    told = [text for text in listener.messages if text.startswith("Run ")]
    assert told[0] == "Run 1 of 4: pooled training, fold 0, seed 0"
    assert told[3].startswith("Run 4 of 4: single-site training, fold 1, seed 0, about 0.")


def test_time_left_goes_by_mode(tmp_path: Path) -> None:
    cells = make_cells(CONFIG, (0,), (0, 1, 2), ("pooled", "federated"))
    study = make_comparison(CONFIG, tmp_path, cells)
    study.seconds.update({Cell("pooled", 0, 0): 10.0, Cell("federated", 0, 0): 40.0})
    # Two pooled and two federated runs are ahead.
    assert time_left(study, cells[2]) == 100.0
    # Before a federated run has ended, one counts like the pooled one.
    del study.seconds[Cell("federated", 0, 0)]
    assert time_left(study, cells[1]) == 50.0


def test_real_runs_on_the_same_folds(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="real")
    page = room.compare(config, tmp_path, (0,), (0, 1), ("pooled", "single"), SilentListener())
    names = [f"{mode}-fold{fold}-seed0" for mode in ("pooled", "single") for fold in (0, 1)]
    runs = {name: read_record(page.parent / name) for name in names}
    for fold in (0, 1):
        pooled, single = runs[f"pooled-fold{fold}-seed0"], runs[f"single-fold{fold}-seed0"]
        for site in ("a", "b"):
            tested = [run.predictions(site) for run in (pooled, single)]
            assert tested[0] is not None and tested[1] is not None
            assert tested[0].files == tested[1].files
    first, second = (runs[f"pooled-fold{fold}-seed0"].predictions("a") for fold in (0, 1))
    assert first is not None and second is not None
    assert not set(first.files) & set(second.files)
    # The page's mean is that of the runs' own results.
    aucs = [runs[f"pooled-fold{fold}-seed0"].figure("a", "auc") for fold in (0, 1)]
    assert f"{50 * sum(aucs):.1f} ± " in page.read_text()
    # The budgets are the same, or the page would say so.
    assert "different numbers of images" not in page.read_text()


def test_a_real_run_that_is_interrupted_goes_on_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.learning.loop.REPORT_SECONDS", 0.0)
    config = tiny_config(tmp_path, run_name="real")
    with pytest.raises(KeyboardInterrupt):
        room.compare(config, tmp_path, (0,), (0,), ("pooled",), StopAt(3))
    assert read_record(tmp_path / "real" / "pooled-fold0-seed0").status == "interrupted"
    room.compare(config, tmp_path, (0,), (0,), ("pooled",), SilentListener())
    whole = config.changed(run_name="whole")
    room.compare(whole, tmp_path, (0,), (0,), ("pooled",), SilentListener())
    digests = [
        read_record(tmp_path / name / "pooled-fold0-seed0").result["weights_digest"]
        for name in ("real", "whole")
    ]
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_federated_runs_join_the_comparison(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, run_name="three")
    listener = Listener()
    page = room.compare(config, tmp_path, (0,), (0,), MODES, listener)
    text = page.read_text()
    assert "3 completed of 3" in text
    # What holds the modes together: the same budget, code and settings.
    assert "To keep in mind" not in text
    assert "Bytes exchanged between a site and the server" in text
    # It is kept: the number of threads that it chose is no other configuration.
    room.compare(config, tmp_path, (0,), (0,), MODES, listener)
    assert "3 of 3 runs are complete already." in listener.messages
