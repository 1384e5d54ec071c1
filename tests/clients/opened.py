"""A tiny site that is open, and what a server could ask of it."""

from pathlib import Path
from typing import Any

from clients.identity import identify
from clients.site import OpenSite, open_identity
from common.config.schema import Config
from common.exchange.messages import RoundOrder
from common.models.sharing import pack


def opened(config: Config, name: str = "north", nodes: int = 2) -> OpenSite:
    """Open a site as a node of a simulation; as a hospital's own where ``nodes`` is 0."""
    node: dict[str, Any] = {
        "site": name,
        "data-dir": f"{config.data}/{name}",
        "state-dir": str(Path(config.runs_dir).parent / "state"),
    }
    if nodes:
        node = {"partition-id": config.site_names.index(name), "num-partitions": nodes}
    return open_identity(identify(node, config.to_run_config()), "run")


def order(site: OpenSite, **values: Any) -> RoundOrder:
    """Return the order of the first round of three, two steps each, with initial weights."""
    own: dict[str, Any] = {
        "run": "run",
        "purpose": "train",
        "round": 1,
        "previous": 0,
        "best": 0,
        "steps": range(2),
        "total_steps": 6,
        "evaluate": True,
        "shared": pack(site.network()),
        "prototypes": (),
        "class_counts": {},
    }
    return RoundOrder(**own | values)
