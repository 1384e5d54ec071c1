"""The key `algorithm` names a method, and `algorithm-options` are what its own file says."""

from typing import Any

import pytest
from pydantic import Field

from common.config.schema import Config
from common.config.toml_model import TomlModel
from common.errors import ConfigError
from common.methods import registry
from common.methods.algorithm import Algorithm, NoOptions, read_options
from common.methods.registry import methods_of
from server.checks import check_names
from tests.common.small_training import config


class StepOptions(TomlModel):
    rate: float = Field(0.5, gt=0)
    how_often: int = 1


class Stepping(Algorithm):
    name = "stepping"
    options = StepOptions


class Plain(Algorithm):
    name = "plain"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTERED", (*registry.REGISTERED, Stepping(), Plain()))


def stepping(options: str) -> Config:
    return config(algorithm="stepping", algorithm_options=options)


def test_a_method_of_a_run_is_the_one_that_the_key_names() -> None:
    names = [method.name for method in methods_of(stepping("")).members]
    assert "stepping" in names and "plain" not in names


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", (0.5, 1)),
        ("rate = 0.25", (0.25, 1)),
        ("rate = 2, how-often = 3", (2.0, 3)),
    ],
)
def test_options_have_their_defaults_and_types(text: str, values: tuple[float, int]) -> None:
    options = read_options(StepOptions, stepping(text))
    assert (options.rate, options.how_often) == values
    assert [type(options.rate), type(options.how_often)] == [float, int]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("speed = 1", "^algorithm-options names 'speed', which 'stepping' does not have; it has "
                      "rate, how-often.$"),
        ("how_often = 1", "names 'how_often'"),
        ("rate = 0.0", "^algorithm-options of 'stepping': rate: .*greater than 0; found 0.0.$"),
        ("rate = 'much'", "of 'stepping': rate: .*number; found 'much'"),
        ("rate", "^algorithm-options is 'rate'; expected options as TOML"),
        ("[" * 9999, r"^algorithm-options is '\[{40}…'; expected options as TOML"),
    ],
)  # fmt: skip
def test_other_options_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        methods_of(stepping(text))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"algorithm": "steping"}, "^No algorithm is called 'steping'. Did you mean 'stepping'?"),
        ({"algorithm_options": "rate = 1"}, "^algorithm-options is given, but no algorithm.$"),
        ({"algorithm": "plain", "algorithm_options": "rate = 1"}, "'plain' .*; it has none.$"),
        ({"codec": "half-deltaz"}, "^No codec is called 'half-deltaz'. Did you mean"),
        (
            {"codec_down": "zip"},
            "^No codec is called 'zip'. There are: none, half-deltas, int8-deltas, int4-deltas.$",
        ),
        ({"task": "classify"}, "^No task is called 'classify'. Did you mean 'classification'?"),
    ],
)
def test_what_there_is_not_is_refused_by_name(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_names(config(**settings))


def test_an_algorithm_without_options_reads_none() -> None:
    assert read_options(NoOptions, config(algorithm="plain")) == NoOptions()
