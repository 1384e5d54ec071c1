from pathlib import Path

import pytest

from common.config.sites import SiteEntry, format_sites, parse_sites
from simulations.runtime.placement import with_absolute_paths


def test_a_list_of_sites_is_read_and_written() -> None:
    sites = parse_sites(" b = /x y/b , a,, c=")
    assert sites == (SiteEntry("b", "/x y/b"), SiteEntry("a"), SiteEntry("c"))
    assert format_sites(sites) == "b=/x y/b,a,c"
    assert parse_sites(" ") == ()


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
