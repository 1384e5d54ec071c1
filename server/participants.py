"""Who takes part in a run, which node is which site, and what stays the same over the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.config.schema import Config
from common.errors import RunError
from common.exchange.messages import SiteInfo
from common.models.sharing import Layout
from server.schedule import Plan


@dataclass
class Participants:
    """The sites that have come so far; a run that can do without some goes on meanwhile."""

    order: Sequence[str]
    """The configuration's sites, in whose order they are averaged."""
    nodes: dict[str, int] = field(default_factory=dict)
    """Flower's number of each site's node."""
    infos: dict[str, SiteInfo] = field(default_factory=dict)
    """What each site said of itself."""

    def add(self, node: int, info: SiteInfo) -> None:
        """Take a site in, or its new node in place of the old one."""
        nodes = {**self.nodes, info.site: node}
        infos = {**self.infos, info.site: info}
        self.nodes = {site: nodes[site] for site in self.order if site in nodes}
        self.infos = {site: infos[site] for site in self.order if site in infos}

    def site_of(self, node: int) -> str | None:
        """Return the site of a node, None for a stranger."""
        return next((site for site, known in self.nodes.items() if known == node), None)

    @property
    def missing(self) -> list[str]:
        """The sites that have not come."""
        return [site for site in self.order if site not in self.infos]


@dataclass(frozen=True)
class RunContext:
    """What stays the same over a run."""

    run: str
    """Its name."""
    config: Config
    """Its configuration."""
    participants: Participants
    """Its sites."""
    plan: Plan
    """Its length."""
    layout: Layout
    """Of the shared tensors."""
    fingerprint: str
    """Of the code."""
    parameters: NDArray[np.bool_]
    """Shape (layout.size,). Which of the shared values are trained
    (:func:`common.models.sharing.parameter_mask`)."""
    exchanges: bool = True
    """False where one participant holds every site of the network: no byte leaves it."""

    @property
    def enough(self) -> int:
        """How many sites a round needs."""
        sites = len(self.participants.order)
        return min(self.config.min_sites or sites, sites)


@dataclass(frozen=True)
class ExpectedSite:
    """What every site's info must say: digests of code, configuration and layout."""

    fingerprint: str
    config: str
    layout: str


def check_sites(infos: Mapping[str, SiteInfo], expected: ExpectedSite) -> None:
    """Check that every site runs what the server runs.

    Raises
    ------
    RunError
        Naming every site that does not, and in what.
    """
    faults = []
    for site, info in infos.items():
        for what, found, own, advice in (
            ("code", info.fingerprint, expected.fingerprint, "install the same version there"),
            ("configuration", info.config, expected.config, "do both read the same run-config?"),
            ("network", info.layout, expected.layout, "are the same libraries installed?"),
        ):
            if found != own:
                faults.append(
                    f"{site} runs another {what} ({found[:12]}…, here {own[:12]}…): {advice}"
                )
                break
    if faults:
        raise RunError(f"The sites cannot be averaged. {'; '.join(faults)}.")
