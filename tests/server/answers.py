"""Site infos, replies and a run's context by hand, of a network with two shared tensors."""

from typing import Any

import numpy as np

from common.config.schema import Config
from common.data.folds import Leakage
from common.exchange.messages import RoundReply, SiteInfo
from common.learning.prototypes import Prototypes
from common.models.sharing import Layout
from server.participants import Participants, RunContext
from server.schedule import Plan

LAYOUT = Layout(("dense.weight", "dense.bias"), ((2, 3), (2,)), "float32", 8)


def site_info(site: str, **values: Any) -> SiteInfo:
    """Return the info of a site with 6 and 4 training images."""
    own: dict[str, Any] = {
        "site": site,
        "fingerprint": "f" * 64,
        "config": "c" * 64,
        "layout": "1" * 64,
        "class_counts": (6, 4),
        "nodes": 0,
        "leakage": Leakage(site, "patient", 20, 0, 0, 0),
    }
    return SiteInfo(**own | values)


def prototypes(site: str, **values: Any) -> Prototypes:
    """Return two prototypes of two values each."""
    own: dict[str, Any] = {
        "classes": np.array([0, 1]),
        "vectors": np.array([[[1, 0], [0, 0]], [[0.36, 0.48], [0.64, 0.48]]], np.float32),
        "counts": np.array([6, 4]),
    }
    return Prototypes(site, **own | values)


def reply(site: str, **values: Any) -> RoundReply:
    """Return a reply to round 1 that passes every check."""
    own: dict[str, Any] = {
        "run": "run",
        "round": 1,
        "site": site,
        "fingerprint": "f" * 64,
        "metrics": {"train/loss": 0.5, "train/images": 12.0},
        "images": 10,
        "layout": LAYOUT,
        "shared": np.arange(8, dtype=np.float32),
        "prototypes": prototypes(site),
    }
    return RoundReply(**own | values)


def context(*sites: str, **values: Any) -> RunContext:
    """Return the context of a run over sites at the nodes 100, 101, …"""
    config = Config().changed(sites=",".join(sites), **values)
    participants = Participants(sites)
    for number, site in enumerate(sites):
        participants.add(100 + number, site_info(site))
    parameters = np.ones(8, dtype=bool)
    return RunContext("run", config, participants, Plan(10, 4, 4), LAYOUT, "f" * 64, parameters)
