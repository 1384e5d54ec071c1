"""A method that the key ``algorithm`` names, with options that are a class of its own file."""

import tomllib
from typing import ClassVar, TypeVar

from pydantic import ValidationError

from common.config.schema import Config
from common.config.toml_model import TomlModel, key_of
from common.errors import ConfigError
from common.methods.method import Method

Options = TypeVar("Options", bound=TomlModel)


class NoOptions(TomlModel):
    """What an algorithm has that leaves nothing to choose."""


class Algorithm(Method):
    """A method that the key ``algorithm`` names."""

    key = "algorithm"
    federated = True
    options: ClassVar[type[TomlModel]] = NoOptions
    """What ``algorithm-options`` may say: types, ranges, defaults, and a docstring for each."""

    def active(self, config: Config) -> bool:
        """Say whether it is the configuration's algorithm."""
        return config.algorithm == self.name

    def check(self, config: Config) -> None:
        """Refuse options that it does not have."""
        read_options(self.options, config)


def read_options(kind: type[Options], config: Config) -> Options:
    """Return what a configuration says in ``algorithm-options``.

    Parameters
    ----------
    kind : type of TomlModel
        The options that there are.
    config : Config
        The run's.

    Raises
    ------
    ConfigError
        If the text is not TOML, or names no option, or a value that an option cannot have.
    """
    text, names = config.algorithm_options, [key_of(name) for name in kind.model_fields]
    try:
        values = tomllib.loads(f"options = {{{text}}}")["options"]
        if unknown := [key for key in values if key not in names]:
            there = f"it has {', '.join(names)}" if names else "it has none"
            raise ConfigError(
                f"algorithm-options names '{unknown[0]}', which '{config.algorithm}' does not "
                f"have; {there}."
            )
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"algorithm-options of '{config.algorithm}': {where}: {first['msg']}; found "
            f"{first['input']!r}."
        ) from None
    except (ValueError, RecursionError):
        shown = text if len(text) < 40 else f"{text[:40]}…"
        raise ConfigError(
            f"algorithm-options is '{shown}'; expected options as TOML, for example "
            "'rate = 0.1, tau = 0.01'."
        ) from None
