import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from common.config.load import describe, load_config, make_config, parse_override
from common.config.schema import Config, about_keys
from common.errors import ConfigError

FOLDER = Path(__file__).parents[3] / "configs"
# Those of studies and of a consortium are other kinds of files.
OTHERS = {*FOLDER.glob("study-*.toml"), FOLDER / "consortium.toml"}
CONFIGS = sorted(set(FOLDER.glob("*.toml")) - OTHERS)


def test_unknown_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"'local-step'.*Did you mean 'local-steps'"):
        make_config({"local-step": 4})


def test_underscores_are_not_a_second_spelling() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'batch-size'"):
        make_config({"batch_size": 4})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", "three"),
        ("epochs", 3.0),
        ("epochs", True),
        ("epochs", 0),
        ("variant", "fixed"),
        ("alpha", -1.0),
        ("alpha", "1"),
        ("alpha", True),
        ("flip", 1),
        ("device", "gpu"),
        ("seed", -1),
    ],
)
def test_a_wrong_value_names_key_and_what_was_found(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"'{key}'.*found {value!r}"):
        make_config({key: value})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"fold": 4}, "fold is 4, but folds = 4 allows 0 to 3"),
        ({"sites": "a,a"}, "one site twice"),
        ({"sites": "Ward 3"}, "sites holds 'Ward 3'"),
        ({"sites": ""}, "synthetic hospitals need names"),
        ({"classes": "covid"}, "at least two different classes"),
        ({"cache-size": 100, "image-size": 224}, "smaller than image-size"),
        ({"min-sites": 3}, "there are 2 sites"),
        ({"resume": True}, "resume needs run-name"),
        ({"variant": "released", "backbone": "torchvision:resnet18"}, "released"),
    ],
)
def test_an_impossible_combination_says_why(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_config(values)


def test_whole_numbers_stand_for_decimals_in_either_spelling() -> None:
    assert make_config({"alpha": 1}).alpha == 1.0
    assert isinstance(make_config({"learning-rate": 1}).learning_rate, float)
    assert Config(learning_rate=1).learning_rate == 1.0


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        Config().epochs = 3  # type: ignore[misc]


def test_toml_and_run_config_round_trip(tmp_path: Path) -> None:
    config = make_config({"sites": "b=/x y/b, a", "data": "/d", "alpha": 0.25, "local-steps": 7})
    file = tmp_path / "run.toml"
    file.write_text(config.to_toml())
    assert load_config(file) == config
    assert make_config(config.to_run_config()) == config
    assert set(config.to_run_config()) == set(about_keys())


def test_sites_and_their_folders() -> None:
    config = make_config({"sites": "b=/x y/b, a", "data": "/d"})
    assert config.site_names == ("b", "a")
    assert config.site_folder("b") == Path("/x y/b")
    assert config.site_folder("a") == Path("/d/a")
    assert Config().site_folder("hospital-a") is None


def test_file_errors_name_the_file(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load_config(missing)
    broken = tmp_path / "broken.toml"
    broken.write_text("epochs = = 3")
    with pytest.raises(ConfigError, match=r"broken\.toml is not TOML"):
        load_config(broken)
    unknown = tmp_path / "unknown.toml"
    unknown.write_text("epoch = 3")
    with pytest.raises(ConfigError, match=r"'epoch' \(in .*unknown\.toml\).*'epochs'"):
        load_config(unknown)


def test_overrides_win_and_are_read_as_toml_or_text(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("epochs = 3\nalpha = 0.5")
    overrides = dict(parse_override(text) for text in ("epochs=4", "data=/a b", "flip=false"))
    config = load_config(file, overrides)
    assert (config.epochs, config.alpha, config.data, config.flip) == (4, 0.5, "/a b", False)
    with pytest.raises(ConfigError, match="not key=value"):
        parse_override("epochs")


def test_an_empty_data_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XSITE_DATA", "/hospitals")
    config = load_config(overrides={"data": "", "sites": "a"})
    assert config.site_folder("a") == Path("/hospitals/a")
    monkeypatch.delenv("XSITE_DATA")
    with pytest.raises(ConfigError, match=r"No folder is named for site 'a'.*XSITE_DATA"):
        load_config(overrides={"data": "", "sites": "a"}).site_folder("a")


def test_digest_covers_results_and_not_places() -> None:
    config = Config()
    assert config.digest() == config.changed(runs_dir="/elsewhere", run_name="x").digest()
    assert config.digest() != config.changed(learning_rate=2e-4).digest()


def test_every_key_is_explained() -> None:
    assert all(explanation for _, _, explanation in describe())


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_shipped_configurations_are_valid_and_explain_each_key(file: Path) -> None:
    load_config(file)
    lines = file.read_text().splitlines()
    for key in tomllib.loads(file.read_text()):
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{key} ="))
        assert "#" in lines[at] or lines[at - 1].startswith("#"), f"{key} is not explained"


@pytest.mark.parametrize(
    ("key", "value"),
    [("pretrained", "weights.pth"), ("proximal", 0.1), ("algorithm", "fedadam")],
)
def test_what_is_about_shared_weights_is_refused_where_none_are_shared(
    key: str, value: str | float
) -> None:
    alone = {"share": "prototypes", "prototype-pull": 1.0}
    make_config(alone)
    with pytest.raises(ConfigError, match=f"{key} is about shared weights, and share"):
        make_config(alone | {key: value})
