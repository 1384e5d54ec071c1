"""xsite's own: supervised contrast of projections, across sites by their prototypes.

Z. Wang, Q. Liu and Q. Dou, *Contrastive cross-site learning with redesigned net for COVID-19 CT
classification*, IEEE J-BHI 2020 (arXiv 2009.07652), which pools the images. Federated, the other
sites' prototypes stand in for their images (:mod:`common.learning.objective`). The rows
after xsite are what is left of it when one part is taken away.
"""

from collections.abc import Sequence

from common.config.schema import Config
from common.learning.objective import Term, contrastive_term
from common.methods.method import PLAIN, Local, Method, Variant


class Contrastive(Method):
    """Add α · the contrastive term."""

    name = "contrastive"
    key = "alpha"

    def meets_prototypes(self, config: Config) -> bool:
        """Say whether prototypes are among its pairs."""
        return config.prototypes != "none"

    def terms(self, local: Local) -> Sequence[Term]:
        """Return the term."""
        site = local.sites[0].name if local.sites else ""
        return [contrastive_term(local.config, local.total_steps, site, local.remote)]

    def describe(self, config: Config) -> tuple[str, str]:
        """Say what it adds, and that no site has anything of its own."""
        weight = "" if config.alpha == 1 else f"{config.alpha:g} × "
        kind = {"site": "", "average": " with averaged prototypes", "none": " within a site"}
        met, heat = kind[config.prototypes], f"τ\u00a0=\u00a0{config.temperature:g}"
        on = " of embeddings" if config.contrastive_on == "embedding" else ""
        return f"{weight}contrastive term{on}{met} ({heat})", ""


class XSite(Method):
    """The contrastive term over private normalisation: what the defaults are, by other methods."""

    name = "xsite"
    variants = (
        Variant("sepnorm", "SepNorm", "pooled", PLAIN),
        Variant("sepnorm-contrastive", "SepNorm + contrastive", "pooled", {}),
        Variant("xsite", "xsite", "federated", {}),
        Variant(
            "xsite-once",
            "xsite, prototypes counted once",
            "federated",
            {"prototype-multiplicity": False},
        ),
        Variant(
            "xsite-averaged",
            "xsite, prototypes averaged over sites",
            "federated",
            {"prototypes": "average"},
        ),
        Variant(
            "xsite-local", "xsite, contrastive within a site", "federated", {"prototypes": "none"}
        ),
        Variant(
            "xsite-across",
            "xsite, contrastive across sites alone",
            "federated",
            {"contrastive-within": False},
        ),
        Variant(
            "xsite-means", "xsite, prototypes without spread", "federated", {"prototype-draws": 0}
        ),
        Variant(
            "xsite-no-anchors",
            "xsite, prototypes as no anchors",
            "federated",
            {"prototype-anchors": False},
        ),
        Variant(
            "xsite-embedding",
            "xsite, contrastive on embeddings",
            "federated",
            {"contrastive-on": "embedding"},
        ),
    )
