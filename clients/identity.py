"""Who this node is: the site's name, where its images lie, where its own files go.

In a deployment the hospital says so itself, in its SuperNode's configuration
(``site="hospital-a" data-dir="/abs/images" state-dir="/abs/xsite" policy="/etc/xsite.toml"``), and
no path that the coordinator names is used. In a simulation the node's number chooses the site.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.egress.policy import Policy, read_policy
from common.config.load import load_config, make_config
from common.config.schema import Config
from common.config.sections import SYNTHETIC
from common.data.open import home_folder
from common.errors import ConfigError
from common.runs.result import runs_base

SITE, DATA_DIR, STATE_DIR, POLICY = "site", "data-dir", "state-dir", "policy"
PARTITION, PARTITIONS = "partition-id", "num-partitions"
RUN_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,128}")


class IdentityError(ConfigError):
    """The node is no site of the run."""


@dataclass(frozen=True)
class Identity:
    """A site and its places on this machine."""

    site: str
    """The site's name."""
    config: Config
    """The run's configuration, with this machine's cache folder."""
    images: Path | None
    """The site's folder of images; None for a synthetic hospital."""
    base: Path
    """The folder that holds a folder for every run."""
    nodes: int
    """Nodes of the simulation; 0 in a deployment."""
    policy: Policy
    """What may leave it."""

    @property
    def deployed(self) -> bool:
        """Whether this is a hospital's own node and not a simulated one."""
        return self.nodes == 0

    def own(self, run: str) -> Path:
        """Return the folder of this site's files in a run.

        Raises
        ------
        ConfigError
            If the run's name, which comes from the server, is no name of a folder.
        """
        if not RUN_NAME.fullmatch(run):
            raise ConfigError(f"The run is called '{run}', which is no name of a folder.")
        return self.base / run / "sites" / self.site

    def ledger(self, run: str) -> Path:
        """Return the folder of its ledger: one for all runs, except in a simulation."""
        return (self.base if self.deployed else self.own(run)) / "ledger"


def identify(node: Mapping[str, Any], run_config: Mapping[str, Any]) -> Identity:
    """Work out who this node is.

    Parameters
    ----------
    node : mapping
        The node's configuration as Flower has it.
    run_config : mapping
        The run's configuration, by kebab-case key.

    Raises
    ------
    IdentityError
        If the node is no site of the run: a name that ``sites`` lacks, more nodes than sites, or
        neither a name nor a number.
    ConfigError
        If a path is not absolute (Flower's processes work in folders of their own), or the run's
        configuration is invalid.
    PolicyError
        If the site's policy cannot be read.
    """
    config = make_config(run_config, source="the run's configuration")
    if SITE in node:
        return _deployed(node, config)
    if PARTITION not in node:
        raise IdentityError(
            "This node has no name: start its SuperNode with "
            '--node-config \'site="…" data-dir="/…" state-dir="/…"\'.'
        )
    return _simulated(node, config, run_config)


def _deployed(node: Mapping[str, Any], config: Config) -> Identity:
    site = str(node[SITE])
    if site not in config.site_names:
        raise IdentityError(
            f"This node is site '{site}', but the run's sites are {', '.join(config.site_names)}."
        )
    made = config.data == SYNTHETIC and config.site_folder(site) is None
    if DATA_DIR not in node and not made:
        raise ConfigError(
            f"Name the folder of the site's images: --node-config '{DATA_DIR}=\"/…\"'."
        )
    images = _absolute(DATA_DIR, str(node[DATA_DIR])) if DATA_DIR in node else None
    base, cache = home_folder() / "runs", home_folder() / "cache"
    if STATE_DIR in node:
        base = _absolute(STATE_DIR, str(node[STATE_DIR]))
        cache = base / "cache"
    policy = read_policy(_absolute(POLICY, str(node[POLICY]))) if POLICY in node else Policy()
    # Where the coordinator keeps runs and caches says nothing about this machine.
    own = config.changed(cache_dir=str(cache), runs_dir="")
    return Identity(site, own, images, base, nodes=0, policy=policy)


def _simulated(node: Mapping[str, Any], config: Config, run_config: Mapping[str, Any]) -> Identity:
    number, names = int(node[PARTITION]), config.site_names
    nodes = max(1, int(node.get(PARTITIONS, len(names))))
    if number >= len(names):
        raise IdentityError(
            f"This is node {number + 1} of {nodes}, but the run has {len(names)} sites. "
            f"Simulate with --federation-config 'num-supernodes={len(names)}'."
        )
    site = names[number]
    # Only the place of the images may come from the environment, or the digests would differ.
    images = load_config(overrides=run_config).site_folder(site)
    if images is not None:
        _absolute(f"the folder of site '{site}'", str(images))
    for key, folder in (("runs-dir", config.runs_dir), ("cache-dir", config.cache_dir)):
        if folder:
            _absolute(key, folder)
    base = runs_base(config, home_folder() / "runs")
    # Nobody's images are at stake: what the configuration says is done.
    policy = Policy(min_prototype_images=1, min_statistics_images=1)
    return Identity(site, config, images, base, nodes, policy)


def _absolute(key: str, path: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_absolute():
        raise ConfigError(
            f"{key} is '{path}', but Flower's processes work in folders of their own: "
            "write the whole path, from '/'."
        )
    return folder
