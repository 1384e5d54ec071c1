from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clients.identity import Identity, IdentityError, identify
from common.config.schema import Config
from common.errors import ConfigError, SiteError

SETTINGS: dict[str, Any] = {"sites": "north,south", "data": "/data"}
FIRST = {"partition-id": 0, "num-partitions": 2}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XSITE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XSITE_DATA", raising=False)
    return tmp_path / "home"


def who(node: Mapping[str, Any], **values: Any) -> Identity:
    return identify(node, Config().changed(**SETTINGS | values).to_run_config())


def test_a_hospital_says_itself_who_it_is_and_where_its_files_are() -> None:
    found = who({"site": "south", "data-dir": "/images", "state-dir": "/state"})
    assert (found.site, found.images, found.base) == ("south", Path("/images"), Path("/state"))
    assert (found.deployed, found.nodes) == (True, 0)
    assert found.config.cache_dir == "/state/cache"
    assert found.own("a-run") == Path("/state/a-run/sites/south")


def test_without_a_state_dir_a_hospital_s_files_are_in_xsite_s_home(home: Path) -> None:
    found = who({"site": "south", "data-dir": "/images"})
    assert (found.base, found.config.cache_dir) == (home / "runs", str(home / "cache"))


def test_a_tilde_is_the_home_of_who_runs_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    found = who({"site": "south", "data-dir": "~/images", "state-dir": "~/xsite"})
    assert (found.images, found.base) == (
        Path("/home/someone/images"),
        Path("/home/someone/xsite"),
    )


def test_no_path_of_the_coordinator_s_is_a_hospital_s() -> None:
    values = {
        "sites": "north=/coordinator/north,south=/coordinator/south",
        "runs_dir": "/coordinator/runs",
        "cache_dir": "/coordinator/cache",
    }
    node = {"site": "south", "data-dir": "/images", "state-dir": "/state"}
    found = who(node, **values)
    assert "/coordinator" not in f"{found.images} {found.base} {found.config.cache_dir}"
    assert found.config.runs_dir == ""
    # The digest is that of the others all the same, or the server would refuse the site.
    assert found.config.digest() == Config().changed(**SETTINGS | values).digest()
    with pytest.raises(ConfigError, match=r"Name the folder of the site's images: .*data-dir"):
        who({"site": "south"}, **values)


def test_a_synthetic_hospital_needs_no_folder() -> None:
    found = who({"site": "south", "state-dir": "/state"}, data="synthetic")
    assert (found.images, found.deployed) == (None, True)
    own = who({"site": "south", "data-dir": "/images"}, data="synthetic")
    assert own.images == Path("/images")
    with pytest.raises(ConfigError, match="Name the folder"):
        who({"site": "south"}, data="synthetic", sites="north,south=/coordinator/south")


@pytest.mark.parametrize("key", ["data-dir", "state-dir"])
@pytest.mark.parametrize("path", ["images", "./images", "../images", ""])
def test_a_hospital_s_paths_are_whole(key: str, path: str) -> None:
    node = {"site": "south", "data-dir": "/images", "state-dir": "/state", key: path}
    with pytest.raises(ConfigError, match=rf"{key} is '{path}'.*write the whole path, from '/'"):
        who(node)


def test_a_name_outside_the_run_is_refused_with_the_run_s_names() -> None:
    with pytest.raises(IdentityError, match=r"is site 'east', but the run's sites are north, so"):
        who({"site": "east", "data-dir": "/images"})
    with pytest.raises(IdentityError, match="is site '', but"):
        who({"site": ""})


def test_a_node_without_a_name_or_a_number_is_told_how_to_get_one() -> None:
    with pytest.raises(
        IdentityError, match=r"no name: start its SuperNode .* data-dir=.*state-dir"
    ):
        who({"num-partitions": 2})


def test_a_name_goes_before_a_number() -> None:
    found = who({"site": "south", "data-dir": "/images", **FIRST})
    assert (found.site, found.deployed) == ("south", True)


@pytest.mark.parametrize(("number", "site"), [(0, "north"), (1, "south")])
def test_a_simulated_node_s_number_chooses_the_site(number: int, site: str, home: Path) -> None:
    found = who({"partition-id": number, "num-partitions": 2})
    assert (found.site, found.images) == (site, Path("/data") / site)
    assert (found.deployed, found.nodes, found.base) == (False, 2, home / "runs")
    assert found.own("a-run") == home / "runs" / "a-run" / "sites" / site


def test_a_simulated_site_s_files_are_the_run_s() -> None:
    found = who(FIRST, runs_dir="/runs", cache_dir="/cache", sites="north=/else/where,south")
    assert (found.base, found.config.cache_dir) == (Path("/runs"), "/cache")
    assert found.images == Path("/else/where")


def test_the_environment_may_say_where_a_simulation_s_images_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XSITE_DATA", "/from/environment")
    found = who(FIRST, data="")
    assert found.images == Path("/from/environment/north")
    assert found.config.digest() == Config().changed(**SETTINGS | {"data": ""}).digest()
    monkeypatch.delenv("XSITE_DATA")
    with pytest.raises(ConfigError, match="No folder is named for site 'north'"):
        who(FIRST, data="")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"data": "data"}, "the folder of site 'north' is 'data/north'"),
        ({"sites": "north=images,south"}, "the folder of site 'north' is 'images'"),
        ({"runs_dir": "runs"}, "runs-dir is 'runs'"),
        ({"cache_dir": "cache"}, "cache-dir is 'cache'"),
    ],
)
def test_a_simulated_site_s_paths_are_whole(values: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        who(FIRST, **values)


def test_a_node_too_many_is_no_site() -> None:
    expected = r"node 3 of 5, but the run has 2 sites\. .*'num-supernodes=2'"
    with pytest.raises(IdentityError, match=expected):
        who({"partition-id": 2, "num-partitions": 5})


def test_an_invalid_configuration_is_the_run_s_and_not_the_node_s() -> None:
    with pytest.raises(ConfigError, match="rounds") as caught:
        identify(FIRST, {"sites": "north", "rounds": 3})
    assert not isinstance(caught.value, IdentityError | SiteError)


@pytest.mark.parametrize(
    "run", ["", ".", "..", "../north", "a/b", "/etc", "a\n", "a b", "ä", "a\0"]
)
def test_a_run_that_is_no_folder_s_name_is_refused(run: str) -> None:
    found = who({"site": "south", "data-dir": "/images", "state-dir": "/state"})
    with pytest.raises(ConfigError, match="no name of a folder"):
        found.own(run)


@pytest.mark.parametrize("run", ["a", "...", ".hidden", "federated-20250101-120000", "A_b.c"])
def test_every_name_that_a_run_may_have_is_a_folder_in_the_base(run: str) -> None:
    found = who({"site": "south", "data-dir": "/images", "state-dir": "/state"})
    assert found.own(run).parents[2] == Path("/state")
    assert found.own(run).resolve().parts == ("/", "state", run, "sites", "south")
