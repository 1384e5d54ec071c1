"""A tiny site that is open, and what a server could ask of it."""

from pathlib import Path
from typing import Any

from clients import round
from clients.egress.gate import ExpectedMessage
from clients.egress.pipeline import let_leave
from clients.egress.policy import Policy
from clients.identity import identify
from clients.site import OpenSite, open_identity
from common.config.schema import Config
from common.exchange.messages import RoundOrder, RoundReply
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
        "total_steps": 6,
        "evaluate": True,
        "class_counts": {},
        "coded": False,
        "prototypes": (),
    }
    shared, steps = values.pop("shared", None), values.pop("steps", range(2))
    own |= {"first_step": steps.start, "last_step": steps.stop}
    own["arrays"] = {"flat": pack(site.network()) if shared is None else shared}
    return RoundOrder(**own | values)


def train_round(site: OpenSite, order: RoundOrder) -> RoundReply:
    """Train a round and store its end, as if all of it might leave; return what could."""
    trained = round.train_round(site, order)
    expected = ExpectedMessage(
        site.config,
        site.name,
        site.run,
        order.round,
        trained.received,
        trained.moments,
        len(order.steps),
    )
    folder = site.own.parent / "ledger"
    policy = Policy(min_prototype_images=1)
    way = policy, site.own, folder
    leaving = let_leave(trained.reply, expected, trained.memory, *way, trained.after)
    round.keep(site, order, trained, leaving)
    return trained.reply
