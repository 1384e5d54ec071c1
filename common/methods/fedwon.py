"""FedWon: no normalisation, so that no site's statistics enter what all share.

W. Zhuang and L. Lyu, *FedWon: triumphing multi-domain federated learning without normalization*,
ICLR 2024. Federated averaging of a network without normalisation layers, whose convolutions have
standardised weights (:mod:`common.models.standardised`), with adaptive gradient clipping
(:func:`common.learning.optimiser.clip_gradients`). Every tensor is shared.

The row's λ was chosen by validation images of two chest X-ray sites, one fold and one seed, batches
of 16: mean AUC 90.4 at 0.01, 89.8 at 0.16, 91.6 at 1.28.
"""

from common.config.schema import Config
from common.errors import ConfigError
from common.methods.method import PLAIN, Method, Variant


class FedWon(Method):
    """Normalise nothing."""

    name = "fedwon"
    key = "normalisation"
    variants = (
        Variant(
            "fedwon",
            "FedWon",
            "federated",
            PLAIN | {"normalisation": "none", "clip-ratio": 1.28, "clip-norm": 0.0},
        ),
    )

    def active(self, config: Config) -> bool:
        """Say whether nothing is normalised."""
        return config.normalisation == "none"

    def check(self, config: Config) -> None:
        """Refuse adapters, which convolve with weights as they are."""
        if config.adapters != "none":
            raise ConfigError(
                f"adapters = '{config.adapters}' stand at plain convolutions, and normalisation = "
                "'none' standardises their weights: leave one of the two out."
            )
