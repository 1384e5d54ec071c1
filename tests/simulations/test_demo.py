"""The demonstration: its settings explain themselves, and its table fits a terminal."""

import io
import re
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

from common.config.load import load_config
from common.config.schema import Config
from common.config.sections import SYNTHETIC
from common.console.progress import ProgressListener, SilentListener
from common.runs.folder import RunFolder
from common.runs.tables import MetricsRow
from simulations import compare, demo
from simulations.comparison import print_comparison, read_comparison

CONFIG = Path(__file__).parents[2] / "configs" / "demo.toml"


def stand_in(mode: str) -> compare.Train:
    def train(config: Config, base: Path, listener: ProgressListener) -> Path:
        folder = RunFolder.create(config, mode, base)
        figures = {"auc": 0.9123, "accuracy": 0.8, "auc_low": 0.85, "auc_high": 0.95, "images": 9}
        metrics = {site: {"test": figures} for site in config.site_names}
        folder.add_metrics([MetricsRow(1, 10, s, "test", {"auc": 0.9}) for s in metrics], 1)
        folder.finish({"metrics": metrics, "seconds": 2.0})
        return folder.path

    return train


def test_it_needs_no_data_and_every_key_is_explained_where_it_stands() -> None:
    config = load_config(CONFIG)
    assert config.data == SYNTHETIC
    assert len(config.site_names) == 2
    lines = CONFIG.read_text().splitlines()
    keys = [n for n, line in enumerate(lines) if re.match(r"[a-z-]+ = ", line)]
    assert len(keys) == len(tomllib.loads(CONFIG.read_text()))
    for number in keys:
        assert lines[number - 1].startswith("# "), lines[number]


def test_an_installed_copy_has_the_same_settings() -> None:
    assert demo.SETTINGS.read_bytes() == CONFIG.read_bytes()
    assert demo.SETTINGS.parent == Path(demo.__file__).parent


def test_it_compares_three_modes_prints_a_table_and_names_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "trainer", stand_in)
    monkeypatch.setenv("COLUMNS", "80")
    page = demo.demo(tmp_path)
    assert page == tmp_path / "demo" / "report.html"
    printed = capsys.readouterr().out
    modes = re.findall(r"^ +(Pooled|Federated|Single-site) +1 +80.0 .* 91.2", printed, re.MULTILINE)
    assert modes == ["Pooled", "Federated", "Single-site"] * 3
    assert "[85.0, 95.0]" in printed
    assert printed.rstrip().endswith(f"Report: {page}")
    assert page.exists()


@pytest.mark.parametrize(("width", "told"), [(80, 5), (76, 5), (75, 2), (40, 2)])
def test_the_table_of_several_runs_fits_the_screen(width: int, told: int, tmp_path: Path) -> None:
    for fold in (0, 1):
        name = f"federated-fold{fold}-seed0"
        config = Config(run_name=name, fold=fold, sites="a-rather-long-hospital-s-name,b")
        stand_in("federated")(config, tmp_path, SilentListener())
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    print_comparison(console, read_comparison(tmp_path))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert "91.2 ± 0.0" in text
    assert len(re.findall(r"^ +Federated .*", text, re.MULTILINE)) == 3
    assert sum(name in text for name in ("Accuracy", "F1", "Sens", "Precision", "AUC")) == told
    assert "…" not in text
