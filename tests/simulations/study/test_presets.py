"""A comparison and the demonstration: which runs are done, kept, resumed, and what is shown."""

import csv
import io
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from common.config.load import load_config
from common.config.schema import Config
from common.config.sections import SYNTHETIC
from common.console.progress import ProgressListener
from common.errors import ConfigError, RunError, SiteError
from common.formatting.tables import print_table
from server.metrics import MetricsRow
from server.run_folder import RunFolder
from simulations.report.records import RunRecord, read_record
from simulations.report.tables import metrics_table
from simulations.report.terminal import fitted
from simulations.study import presets
from simulations.study import run as run_module
from simulations.study.cells import Cell
from simulations.study.plan import PLAN, plan_study, read_file
from tests.simulations.report.cells import comparison_of
from tests.simulations.report.fabricated_runs import fabricate_run
from tests.simulations.tiny import tiny_config

CONFIG = Path(__file__).parents[3] / "configs" / "demo.toml"
MODES = ("pooled", "federated", "single")


class Messages:
    """Keeps what a person would be told; presses Ctrl-C once a cell has done so many steps."""

    def __init__(self, stop_at: int = 0) -> None:
        self.told: list[str] = []
        self._stop_at = stop_at

    def message(self, text: str) -> None:
        self.told.append(text)

    def update(self, done: int, total: int, running: Any, left: float) -> None:
        if self._stop_at and any(one.done >= self._stop_at for one in running):
            raise KeyboardInterrupt

    def close(self) -> None:
        pass


class Trainers:
    """Stand-ins for the processes of cells: they make a run's folder and result untrained."""

    def __init__(self) -> None:
        self.done: list[tuple[str, bool]] = []
        self.before: dict[str, Callable[[], None]] = {}

    def train(self, cell: Cell, path: Path, config: Config) -> None:
        folder = RunFolder.create(config, cell.method.mode, path.parent)
        self.done.append((cell.name, config.resume))
        self.before.pop(cell.name, lambda: None)()
        auc = 0.9 - 0.01 * config.fold - 0.1 * (cell.method.mode == "single")
        figures = {"auc": auc, "accuracy": 0.8, "auc_low": 0.85, "auc_high": 0.95, "images": 9}
        metrics = {site: {"test": figures} for site in config.site_names}
        folder.add_metrics([MetricsRow(1, 10, s, "test", {"auc": 0.9}) for s in metrics], 1)
        folder.finish({"metrics": metrics, "seconds": 2.0})


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> Trainers:
    """Replace the pool: what is tested is which runs are done."""
    stand_ins = Trainers()

    class OneAfterTheOther:
        def __init__(self, slots: object, scratch: Path) -> None:
            self.running: list[SimpleNamespace] = []

        def has_room(self, expected: object, mode: str) -> bool:
            return not self.running

        def start(self, cell: Cell, path: Path, config: Config, resumed: bool, _: str) -> None:
            own = config.changed(run_name=path.name, runs_dir=str(path.parent), resume=resumed)
            one = SimpleNamespace(cell=cell, path=path, resumed=resumed, done=1, reason="")
            self.running.append(SimpleNamespace(**vars(one), config=own, memory=0, peak=1))

        def wait(self, seconds: float) -> list[SimpleNamespace]:
            one = self.running[0]
            one.seconds, one.outcome = 1.0, "done"
            try:
                stand_ins.train(one.cell, one.path, one.config)
            except KeyboardInterrupt:
                one.outcome = "stopped"
                raise
            except Exception as error:
                one.outcome, one.reason = "failed", str(error)
            return [self.running.pop()]

        def stop(self) -> list[SimpleNamespace]:
            return self.running

    monkeypatch.setattr(run_module, "Pool", OneAfterTheOther)
    return stand_ins


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def compare(
    config: Config,
    base: Path,
    modes: tuple[str, ...] = MODES,
    seeds: tuple[int, ...] = (0,),
    folds: tuple[int, ...] = (0,),
    messages: Messages | None = None,
) -> Path:
    told = messages or Messages()
    return presets.compare(config, base / "runs", seeds, folds, modes, ProgressListener(), told)  # type: ignore[arg-type]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny_config(tmp_path, run_name="study")


def cell_of(folder: Path, name: str) -> RunRecord:
    (path,) = (folder / "cells").glob(f"{name}-*")
    return read_record(path)


def test_every_mode_runs_on_every_fold_with_every_seed(
    tmp_path: Path, config: Config, trainers: Trainers
) -> None:
    page = compare(config, tmp_path, MODES, (0, 1), (0, 2))
    assert page == tmp_path / "runs" / "study" / "report.html"
    names = [name for name, _ in trainers.done]
    assert names[:4] == [
        "pooled-fold0-seed0",
        "federated-fold0-seed0",
        "single-fold0-seed0",
        "pooled-fold2-seed0",
    ]
    assert len(set(names)) == len(names) == 12
    record = cell_of(page.parent, "single-fold2-seed1")
    assert (record.mode, record.config.fold, record.config.seed) == ("single", 2, 1)
    rows = list(csv.DictReader((page.parent / "comparison.csv").open()))
    assert len(rows) == 24
    assert rows[-1]["auc"] == str(0.9 - 0.02 - 0.1)
    told = json.loads((page.parent / "comparison.json").read_text())
    assert len(told["cells"]) == 12
    assert "12 done of 12" in page.read_text()


def test_a_mode_leaves_the_keys_as_they_are_by_which_methods_differ(
    tmp_path: Path, config: Config, trainers: Trainers
) -> None:
    own = config.changed(normalisation="shared", alpha=0.25, prototypes="average")
    page = compare(own, tmp_path, ("federated", "single"))
    for mode in ("federated", "single"):
        found = cell_of(page.parent, f"{mode}-fold0-seed0").config
        assert (found.normalisation, found.alpha, found.prototypes) == ("shared", 0.25, "average")


def test_what_is_complete_is_kept_and_more_can_be_added(
    tmp_path: Path, config: Config, trainers: Trainers
) -> None:
    compare(config, tmp_path, ("pooled",))
    first = cell_of(tmp_path / "runs" / "study", "pooled-fold0-seed0").path / "result.json"
    before = first.stat().st_mtime_ns
    messages = Messages()
    page = compare(config, tmp_path, ("pooled", "single"), (1,), messages=messages)
    # The report holds earlier runs too.
    assert "3 done of 3" in page.read_text()
    again = compare(config, tmp_path, ("pooled",), (0, 1), messages=messages)
    assert trainers.done[1:] == [("pooled-fold0-seed1", False), ("single-fold0-seed1", False)]
    assert before == first.stat().st_mtime_ns
    assert "2 of 2 cells are done already." in messages.told
    assert "3 done of 3" in again.read_text()


def test_a_failed_run_is_told_and_the_others_go_on(
    tmp_path: Path, config: Config, trainers: Trainers, capsys: pytest.CaptureFixture[str]
) -> None:
    trainers.before["federated-fold0-seed0"] = raising(SiteError("no such image"))
    trainers.before["single-fold1-seed0"] = raising(ZeroDivisionError("oh"))
    messages = Messages()
    with pytest.raises(RunError, match=r"2 of 6 cells failed.*The same command tries them again"):
        compare(config, tmp_path, MODES, (0,), (0, 1), messages)
    assert len(trainers.done) == 6
    assert "Failed: Federated, fold 0, seed 0: no such image" in messages.told
    assert "Failed: Single-site, fold 1, seed 0: oh" in messages.told
    page = tmp_path / "runs" / "study" / "report.html"
    assert f"Report: {page}" in capsys.readouterr().out
    assert "4 done of 6" in page.read_text()
    assert "failed: no such image" in page.read_text()
    # Tried again, from where they stood; the others are kept.
    compare(config, tmp_path, MODES, (0,), (0, 1))
    assert trainers.done[6:] == [("federated-fold0-seed0", True), ("single-fold1-seed0", True)]


def test_after_an_interruption_the_same_command_goes_on(
    tmp_path: Path, config: Config, trainers: Trainers
) -> None:
    trainers.before["federated-fold0-seed0"] = raising(KeyboardInterrupt())
    messages = Messages()
    with pytest.raises(KeyboardInterrupt):
        compare(config, tmp_path, messages=messages)
    assert "1 done of 3" in (tmp_path / "runs" / "study" / "report.html").read_text()
    assert messages.told[-1].startswith("The same command goes on with the comparison.")
    compare(config, tmp_path)
    assert trainers.done[2:] == [("federated-fold0-seed0", True), ("single-fold0-seed0", False)]


def test_the_report_is_there_after_every_run(
    tmp_path: Path, config: Config, trainers: Trainers
) -> None:
    seen: list[str] = []
    page = tmp_path / "runs" / "study" / "report.html"
    trainers.before["federated-fold0-seed0"] = lambda: seen.append(page.read_text())
    compare(config, tmp_path)
    assert "1 done of 3" in seen[0]
    assert "not done" in seen[0]
    assert "3 done of 3" in page.read_text()


def test_another_configuration_is_refused_with_the_keys(
    tmp_path: Path, config: Config, trainers: Trainers
) -> None:
    compare(config, tmp_path, ("pooled",))
    other = config.changed(epochs=7, alpha=0.0)
    with pytest.raises(RunError, match=r"alpha \(1.0 there, 0.0 here\); epochs \(2 there, 7 here"):
        compare(other, tmp_path, ("pooled",))
    # Fold and seed are the comparison's own, and where a run lives does not matter.
    same = config.changed(fold=2, seed=9, runs_dir=str(tmp_path))
    compare(same, tmp_path, ("pooled",))
    assert len(trainers.done) == 1


def test_threads_that_a_comparison_chose_itself_are_no_other_configuration(
    tmp_path: Path, config: Config, trainers: Trainers
) -> None:
    open_ended = config.changed(threads=0)
    compare(open_ended, tmp_path, ("pooled",))
    compare(open_ended, tmp_path, ("pooled",))
    assert len(trainers.done) == 1
    with pytest.raises(RunError, match=r"threads \(1 there, 2 here\)"):
        compare(config.changed(threads=2), tmp_path, ("pooled",))


def test_the_folders_of_a_run_a_study_and_an_old_comparison_are_refused(
    tmp_path: Path, config: Config, trainers: Trainers
) -> None:
    RunFolder.create(config, "pooled", tmp_path / "runs")
    with pytest.raises(RunError, match="the folder of a run, not of a comparison"):
        compare(config, tmp_path, ("pooled",))
    old = tmp_path / "runs" / "old"
    old.mkdir()
    (old / "comparison.toml").touch()
    with pytest.raises(RunError, match=r"earlier version of xsite.*choose another name \(--name"):
        compare(config.changed(run_name="old"), tmp_path, ("pooled",))
    study = tmp_path / "runs" / "methods"
    study.mkdir()
    (study / PLAN).write_text('methods = ["joint"]\nfolds = [0]\nseeds = [0]\n')
    with pytest.raises(RunError, match="holds a study, not a comparison"):
        compare(config.changed(run_name="methods"), tmp_path, ("pooled",))
    assert trainers.done == []


def test_a_study_does_not_go_on_with_a_comparison(
    tmp_path: Path, config: Config, trainers: Trainers
) -> None:
    page = compare(config, tmp_path, ("pooled",))
    file = read_file(page.parent / PLAN)
    with pytest.raises(ConfigError, match="which `xsite compare` goes on with"):
        plan_study(file, "study.toml", file.run)


def test_without_a_name_the_configuration_names_the_folder(
    tmp_path: Path, config: Config, trainers: Trainers
) -> None:
    plain = config.changed(run_name="")
    one = compare(plain, tmp_path, ("pooled",))
    same = compare(plain.changed(seed=5, fold=1), tmp_path, ("pooled",), (1,))
    other = compare(plain.changed(epochs=7), tmp_path, ("pooled",))
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
        compare(Config(run_name="study"), tmp_path, modes, (0,), folds)
    assert list(tmp_path.iterdir()) == []


def test_real_runs_on_the_same_folds(tmp_path: Path, config: Config) -> None:
    page = compare(config, tmp_path, ("pooled", "single"), (0,), (0, 1))
    names = [f"{mode}-fold{fold}-seed0" for mode in ("pooled", "single") for fold in (0, 1)]
    runs = {name: cell_of(page.parent, name) for name in names}
    for fold in (0, 1):
        pooled, single = runs[f"pooled-fold{fold}-seed0"], runs[f"single-fold{fold}-seed0"]
        for site in ("a", "b"):
            tested = [run.predictions.get(site) for run in (pooled, single)]
            assert tested[0] is not None and tested[1] is not None
            assert tested[0].files == tested[1].files
    first, second = (runs[f"pooled-fold{fold}-seed0"].predictions.get("a") for fold in (0, 1))
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
    monkeypatch.setattr(run_module, "POLL_SECONDS", 0.05)
    config = tiny_config(tmp_path, run_name="real", epochs=20)
    with pytest.raises(KeyboardInterrupt):
        compare(config, tmp_path, ("pooled",), messages=Messages(stop_at=3))
    name = "pooled-fold0-seed0"
    assert cell_of(tmp_path / "runs" / "real", name).result["status"] == "interrupted"
    compare(config, tmp_path, ("pooled",))
    compare(config.changed(run_name="whole"), tmp_path, ("pooled",))
    digests = [
        cell_of(tmp_path / "runs" / folder, name).result["weights_digest"]
        for folder in ("real", "whole")
    ]
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_federated_runs_join_the_comparison(tmp_path: Path, config: Config) -> None:
    messages = Messages()
    page = compare(config, tmp_path, messages=messages)
    text = page.read_text()
    assert "3 done of 3" in text
    # What holds the modes together: the same budget, code and settings.
    assert "To keep in mind" not in text
    assert "Bytes exchanged between a site and the server" in text
    compare(config, tmp_path, messages=messages)
    assert "3 of 3 cells are done already." in messages.told


def test_the_demonstration_needs_no_data_and_every_key_is_explained_where_it_stands() -> None:
    config = load_config(CONFIG)
    assert config.data == SYNTHETIC
    assert len(config.site_names) == 2
    lines = CONFIG.read_text().splitlines()
    keys = [n for n, line in enumerate(lines) if re.match(r"[a-z-]+ = ", line)]
    assert len(keys) == len(tomllib.loads(CONFIG.read_text()))
    for number in keys:
        assert lines[number - 1].startswith("# "), lines[number]


def test_an_installed_copy_has_the_same_settings() -> None:
    assert presets.DEMO.read_bytes() == CONFIG.read_bytes()
    assert presets.DEMO.parent == Path(presets.__file__).parent


def test_the_demonstration_compares_three_modes_prints_a_table_and_names_the_report(
    tmp_path: Path,
    trainers: Trainers,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = presets.demonstrate(tmp_path)
    assert page == tmp_path / "demo" / "report.html"
    printed = capsys.readouterr().out
    modes = re.findall(r"^ +(Pooled|Federated|Single-site) +1 +80.0 .* [89]0.0", printed, re.M)
    assert modes == ["Pooled", "Federated", "Single-site"] * 3
    assert "[85.0, 95.0]" in printed
    assert printed.rstrip().endswith(f"Report: {page}")
    assert page.exists()


@pytest.mark.parametrize(("width", "told"), [(80, 5), (76, 5), (75, 5), (40, 2)])
def test_the_table_of_several_runs_fits_the_screen(width: int, told: int, tmp_path: Path) -> None:
    sites = {"a-rather-long-hospital-s-name": 0.9123, "b": 0.9123}
    metrics = {site: {"test": {"auc": auc, "accuracy": 0.8}} for site, auc in sites.items()}
    runs = [
        fabricate_run(tmp_path, "federated", sites, fold, result={"metrics": metrics})
        for fold in (0, 1)
    ]
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    print_table(console, fitted(metrics_table(comparison_of(runs)), presets.KEPT, console.width))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert "91.2 ± 0.0" in text
    assert len(re.findall(r"^ +Federated .*", text, re.MULTILINE)) == 3
    assert sum(name in text for name in ("Accuracy", "F1", "Sens", "Precision", "AUC")) == told
    assert "…" not in text
