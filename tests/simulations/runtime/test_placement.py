import importlib
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from common.config.schema import Config
from common.errors import RunError
from simulations.runtime import placement
from simulations.runtime.placement import (
    Placement,
    child_environment,
    resolve_config,
    with_absolute_paths,
)


def place(config: Config, cpus: int, **more: Any) -> Placement:
    """Deal out a machine of so many CPUs."""
    with patch("os.sched_getaffinity", return_value=range(cpus)):
        return placement.place(config, **more)


THREE_SITES = Config(sites="a,b,c", device="cpu")
PLACED = Placement(threads=3, cpus=8, cpus_per_site=3)


@pytest.mark.parametrize(
    ("cpus", "threads", "at_once"),
    [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 2, 2), (8, 2, 4), (64, 21, 3)],
)
def test_a_machine_is_dealt_out_with_two_threads_or_more_a_site(
    cpus: int, threads: int, at_once: int
) -> None:
    placed = place(THREE_SITES, cpus=cpus)
    assert (placed.threads, placed.cpus_per_site) == (threads, threads)
    assert placed.cpus // placed.cpus_per_site == at_once


def test_threads_depend_on_the_configuration_and_not_on_how_many_sites_ray_runs() -> None:
    config = THREE_SITES.changed(threads=2)
    assert {place(config, cpus=cpus).threads for cpus in (1, 2, 8)} == {2}
    assert place(config, cpus=1).cpus_per_site == 1
    assert place(THREE_SITES, cpus=8, cpus_per_site=8).threads == 2


def test_one_site_gets_every_cpu_as_single_site_training_does() -> None:
    assert place(Config(sites="a", device="cpu"), cpus=6).threads == 6


def test_a_site_that_would_not_fit_is_refused() -> None:
    with pytest.raises(RunError, match="would take 4 CPUs, but 2"):
        place(THREE_SITES, cpus=2, cpus_per_site=4)


@pytest.mark.parametrize(
    ("gpus", "sites", "share"), [(0, 2, 0.0), (1, 1, 1.0), (1, 2, 0.5), (2, 3, 0.5), (1, 3, 0.3333)]
)
def test_every_site_finds_room_on_the_gpus(
    gpus: int, sites: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "_count_gpus", lambda _: gpus)
    placed = place(Config(sites=",".join("abcdef"[:sites])), cpus=8)
    assert (placed.gpus, placed.gpus_per_site) == (gpus, share)
    if gpus:
        assert gpus * int(1 / share) >= sites
    assert place(Config(sites="a,b", device="cpu"), cpus=8).gpus == 0


def test_a_cluster_that_exists_is_told_no_numbers() -> None:
    own = Placement(1, 4, 2).federation_config(3)
    assert own["init_args_num_cpus"] == 4
    given = Placement(1, 4, 2, ray_address="127.0.0.1:6379").federation_config(3)
    assert given == {
        "num_supernodes": 3,
        "client_resources_num_cpus": 2,
        "client_resources_num_gpus": 0.0,
    }


def test_nothing_of_the_caller_s_flower_or_ray_reaches_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLWR_HOME", "/elsewhere")
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_CONTROL_API", "1")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_TMPDIR", "/elsewhere")
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "socks5h://proxy.example.org:1080")
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.setenv("KEPT", "yes")
    monkeypatch.setenv("XSITE_HOME", "home")
    monkeypatch.chdir(tmp_path)
    environment = child_environment(tmp_path, THREE_SITES, Placement(3, 8, 2))
    assert "FLWR_INTERNAL_GRPC_CONTROL_API" not in environment
    assert environment["FLWR_HOME"] == str(tmp_path / "flwr")
    assert environment["XSITE_HOME"] == str(tmp_path / "home")
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    proxies = {name: value for name, value in environment.items() if "proxy" in name.lower()}
    assert proxies == dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost,::1")
    assert (environment["RAY_ADDRESS"], environment["RAY_TMPDIR"]) == ("local", str(tmp_path))
    assert (environment["OMP_NUM_THREADS"], environment["KEPT"]) == ("3", "yes")
    again = child_environment(tmp_path, THREE_SITES, Placement(3, 8, 2))
    assert environment["RAY_AUTH_TOKEN"] != again["RAY_AUTH_TOKEN"]
    given = child_environment(tmp_path, THREE_SITES, Placement(1, 1, 1, ray_address="host:1"))
    assert given["RAY_ADDRESS"] == "host:1"
    assert "RAY_AUTH_TOKEN" not in given


def test_the_variable_that_keeps_ray_on_the_loopback_is_ray_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    constants = importlib.import_module("ray._private.ray_constants")
    assert constants.ENABLE_RAY_CLUSTERS_ENV_VAR in child_environment(
        Path("/tmp"), THREE_SITES, Placement(1, 1, 1)
    )


def test_a_named_gpu_is_the_one_that_its_sites_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(device="cuda:1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    seen = child_environment(tmp_path, config, Placement(1, 1, 1))["CUDA_VISIBLE_DEVICES"]
    assert seen == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    seen = child_environment(tmp_path, config, Placement(1, 1, 1))["CUDA_VISIBLE_DEVICES"]
    assert seen == "7"


def test_without_a_number_every_cpu_of_this_process_is_dealt_out() -> None:
    assert placement.place(THREE_SITES).cpus == len(os.sched_getaffinity(0))


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


def test_a_site_s_gpu_is_numbered_from_zero() -> None:
    assert resolve_config(Config(device="cuda:1"), Path("/runs"), PLACED).device == "cuda"
    assert resolve_config(Config(device="auto"), Path("/runs"), PLACED).device == "auto"


def test_paths_are_resolved_against_the_present_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/her")
    values = {
        **{"data": "d", "pretrained": "synthetic", "runs-dir": "/r", "cache-dir": ""},
        **{"sites": "a=x/y, b,c=~/c", "run-name": "d", "epochs": 3},
    }
    assert with_absolute_paths(values) == values | {
        "data": f"{tmp_path}/d",
        "pretrained": f"{tmp_path}/synthetic",
        "sites": f"a={tmp_path}/x/y,b,c=/home/her/c",
    }
    assert with_absolute_paths({"data": "synthetic"}) == {"data": "synthetic"}
    assert with_absolute_paths({"data": "", "epochs": 1}) == {"data": "", "epochs": 1}
