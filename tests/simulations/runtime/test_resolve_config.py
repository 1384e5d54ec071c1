from pathlib import Path

import pytest

from common.config.schema import Config
from common.errors import RunError
from simulations.runtime.placement import Placement
from simulations.runtime.resolve_config import resolve_config

PLACED = Placement(threads=3, cpus=8, cpus_per_site=3)


def test_paths_hold_wherever_the_sites_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config(
        data="images", sites="a, b=../b ,c=/c", pretrained="weights.pt", cache_dir="cache"
    )
    settled = resolve_config(config, Path("runs"), PLACED)
    assert settled.data == str(tmp_path / "images")
    assert settled.site_folder("a") == tmp_path / "images" / "a"
    assert (settled.site_folder("b") or Path()).resolve() == tmp_path.parent / "b"
    assert settled.site_folder("c") == Path("/c")
    assert settled.pretrained == str(tmp_path / "weights.pt")
    assert settled.cache_dir == str(tmp_path / "cache")
    assert settled.runs_dir == str(tmp_path / "runs")
    assert settled.run_name.startswith("federated-")


def test_what_is_no_path_stays() -> None:
    settled = resolve_config(Config(), Path("/runs"), PLACED)
    assert (settled.data, settled.pretrained, settled.cache_dir) == ("synthetic", "", "")
    assert settled.site_names == Config().site_names
    assert settled.site_folder("hospital-a") is None


def test_threads_are_settled_once() -> None:
    assert resolve_config(Config(), Path("/runs"), PLACED).threads == 3
    assert resolve_config(Config(threads=2), Path("/runs"), PLACED).threads == 2


def test_a_resumed_run_keeps_its_threads(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "config.toml").write_text(Config(run_name="one", threads=7).to_toml())
    resumed = Config(run_name="one", resume=True)
    assert resolve_config(resumed, tmp_path, PLACED).threads == 7
    assert resolve_config(resumed.changed(threads=2), tmp_path, PLACED).threads == 2


def test_a_run_that_is_not_there_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run 'one'"):
        resolve_config(Config(run_name="one", resume=True), tmp_path, PLACED)


def test_a_site_s_gpu_is_numbered_from_zero() -> None:
    assert resolve_config(Config(device="cuda:1"), Path("/runs"), PLACED).device == "cuda"
    assert resolve_config(Config(device="auto"), Path("/runs"), PLACED).device == "auto"
