"""The rows of a comparison: every method's variants, each asked for by its name."""

from collections.abc import Mapping

from common.config.schema import Config, Scalar, keys_of
from common.config.sections import Role
from common.errors import refuse_unknown
from common.methods.algorithm import Algorithm
from common.methods.method import Variant
from common.methods.registry import REGISTERED

METHODS: dict[str, Variant] = {
    variant.name: variant
    for mode in ("single", "pooled", "federated")
    for method in REGISTERED
    for variant in method.variants
    if variant.mode == mode
}
"""Rows of the table of arXiv 2009.07652 first, then federated learning's own, xsite last."""
ALGORITHMS = {one.name: one for one in REGISTERED if isinstance(one, Algorithm)}
"""Methods that the key ``algorithm`` names."""


def find_method(name: str, methods: Mapping[str, Variant] = METHODS) -> Variant:
    """Return a row of the comparison by its name.

    Parameters
    ----------
    name : str
        As it is asked for.
    methods : mapping of str to Variant
        Where to look.

    Raises
    ------
    ConfigError
        If there is none of that name, naming the nearest.
    """
    refuse_unknown("method", name, methods)
    return methods[name]


def values_of(method: Variant) -> dict[str, Scalar]:
    """Return a row's settings, and the defaults of the keys that make a run another method's.

    α is left to the configuration where a method does not unset it.
    """
    defaults = Config().to_run_config()
    return {key: defaults[key] for key in keys_of(Role.METHOD)} | dict(method.settings)
