"""The methods that xsite is compared with, and its own: a training mode and values of keys each.

Rows of the table of arXiv 2009.07652 first, then federated learning's own, then what is left of
xsite when one part is taken away. Backbone, folds and budget are a run's, not a method's (but for
the two rows of the original COVID-Net, whose point is the backbone).
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from common.config.schema import Config, Scalar, keys_of
from common.config.sections import Role
from common.errors import ConfigError

Mode = Literal["pooled", "federated", "single"]


@dataclass(frozen=True)
class Method:
    """A row of the comparison.

    Attributes
    ----------
    name : str
        How it is asked for.
    label : str
        How a table calls it.
    mode : {'pooled', 'federated', 'single'}
        How it is trained.
    settings : mapping of str to Scalar
        Values of configuration keys, in kebab-case, that make a run this method's.
    """

    name: str
    label: str
    mode: Mode
    settings: Mapping[str, Scalar]

    @property
    def values(self) -> dict[str, Scalar]:
        """Its settings, and the defaults of the keys that make a run another method's.

        α is left to the configuration where a method does not unset it.
        """
        defaults = Config().to_run_config()
        return {key: defaults[key] for key in keys_of(Role.METHOD)} | dict(self.settings)


_PLAIN: dict[str, Scalar] = {"alpha": 0.0}
_SHARED: dict[str, Scalar] = _PLAIN | {"normalisation": "shared"}
_ORIGINAL: dict[str, Scalar] = _SHARED | {"backbone": "covidnet-original", "variant": "corrected"}

METHODS = {
    method.name: method
    for method in (
        # Wang, Liu and Dou 2020, table I.
        Method("single-original", "Single-site, original COVID-Net", "single", _ORIGINAL),
        Method("single", "Single-site", "single", _PLAIN),
        Method("joint-original", "Joint, original COVID-Net", "pooled", _ORIGINAL),
        Method("joint", "Joint, shared normalisation", "pooled", _SHARED),
        Method("series-adapters", "Series adapters", "pooled", _PLAIN | {"adapters": "series"}),
        Method(
            "parallel-adapters", "Parallel adapters", "pooled", _PLAIN | {"adapters": "parallel"}
        ),
        Method("ms-net", "MS-Net", "pooled", _PLAIN | {"auxiliary": True}),
        Method("sepnorm", "SepNorm", "pooled", _PLAIN),
        Method("sepnorm-contrastive", "SepNorm + contrastive", "pooled", {}),
        # McMahan et al., AISTATS 2017; running statistics are averaged too.
        Method("fedavg", "FedAvg", "federated", _SHARED),
        Method("fedprox", "FedProx", "federated", _SHARED | {"proximal": 0.01}),
        # Li et al., ICLR 2021: every site keeps its normalisation.
        Method("fedbn", "FedBN", "federated", _PLAIN),
        Method("moon", "MOON", "federated", _SHARED | {"model-contrast": 1.0}),
        Method(
            "fedproto",
            "FedProto",
            "federated",
            _PLAIN | {"exchange": "prototypes", "prototypes": "average", "prototype-pull": 1.0},
        ),
        Method(
            "fed-adapters",
            "Federated parallel adapters",
            "federated",
            _PLAIN | {"adapters": "parallel"},
        ),
        Method("xsite", "xsite", "federated", {}),
        Method(
            "xsite-once",
            "xsite, prototypes counted once",
            "federated",
            {"prototype-multiplicity": False},
        ),
        Method(
            "xsite-averaged",
            "xsite, prototypes averaged over sites",
            "federated",
            {"prototypes": "average"},
        ),
        Method(
            "xsite-local", "xsite, contrastive within a site", "federated", {"prototypes": "none"}
        ),
    )
}


def find_method(name: str, methods: Mapping[str, Method] = METHODS) -> Method:
    """Return a method by its name.

    Parameters
    ----------
    name : str
        As it is asked for.
    methods : mapping of str to Method
        Where to look.

    Raises
    ------
    ConfigError
        If there is none of that name, naming the nearest.
    """
    if name in methods:
        return methods[name]
    near = difflib.get_close_matches(name, methods, n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(methods)}."
    raise ConfigError(f"No method is called '{name}'. {hint}")
