"""Who takes part in a deployment, and where: a small TOML file, checked as a whole.

::

    name = "lab"
    hosts = ["xsite.example.org"]

    [[site]]
    name = "hospital-a"
    data-dir = "/data/ct"
    state-dir = "/srv/xsite"
"""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, model_validator

from common.config.sites import SITE_NAME
from common.config.toml_model import TomlModel, key_of, read_toml
from common.errors import ConfigError

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
SAFE_PATH = re.compile(r"/[A-Za-z0-9._/+@-]*")
"""Paths that stand in shell scripts, units and nginx's file as they are."""


def _host(value: str) -> str:
    try:
        # A zone ('%eth0') means something on one machine alone, and a certificate has none.
        address = ipaddress.ip_address("" if "%" in value else value.strip("[]"))
    except ValueError:
        # Digits behind the last dot are an address that was mistyped.
        if not HOST_NAME.fullmatch(value) or value.rpartition(".")[2].isdigit():
            raise ValueError(
                f"'{value}' is neither a host's name nor an IP address; names are in small "
                "letters, and the port is a key of its own"
            ) from None
        return value
    if address.is_unspecified or address.is_multicast or address.is_link_local:
        raise ValueError(f"'{value}' is no address at which hospitals can reach a machine")
    return str(address)


def bracketed(host: str) -> str:
    """Return a host as it stands before a port and in nginx's file: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _path(value: str) -> str:
    if value and (not SAFE_PATH.fullmatch(value) or ".." in PurePosixPath(value).parts):
        raise ValueError(
            f"'{value}' is no absolute path of letters, digits and . _ / + @ - alone, as scripts "
            "and units need it"
        )
    return value


Host = Annotated[str, AfterValidator(_host)]
AbsolutePath = Annotated[str, AfterValidator(_path)]
Port = Annotated[int, Field(ge=1, le=65535)]


class SitePlan(TomlModel):
    """A hospital."""

    name: str = Field(pattern=f"^{SITE_NAME.pattern}$")
    """The site's name in the run's configuration."""
    data_dir: AbsolutePath = ""
    """The site's folder of images on its machine; '' for a synthetic hospital."""
    state_dir: AbsolutePath = "/var/lib/xsite"
    """Where it keeps its private tensors, predictions, decoded images and ledger."""
    folder: AbsolutePath = "/etc/xsite"
    """Where what is made for it here will lie there."""
    programs: AbsolutePath = "/opt/xsite/bin"
    """The folder of the commands of its installation of xsite."""
    user: str = Field("xsite", pattern=r"^[a-z_][a-z0-9_-]{0,31}$")
    """The account under which it runs; it needs to read the images and to write state-dir."""
    gpus: str = Field("", pattern=r"^[0-9a-zA-Z,-]*$")
    """CUDA_VISIBLE_DEVICES there: '0', '1,2'; '' leaves it as it is, 'none' hides all GPUs."""
    runtime_port: Port = 9094
    """A free port of its own loopback."""
    approve_runs: bool = True
    """Whether its policy, as made here, has a person there approve each run first."""
    public_key: AbsolutePath = ""
    """The site's public key, where the hospital has made its own pair with ssh-keygen -t ecdsa
    -b 384, so that its private key has never been elsewhere; '' makes a pair."""


class Consortium(TomlModel):
    """A coordinator and its hospitals."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    """The federation's name, for `flwr run`."""
    hosts: list[Host] = Field(min_length=1)
    """Names and addresses by which hospitals reach the coordinator; the first one is used."""
    port: Port = 9443
    """What is open to hospitals: nginx, which lets them through to Flower's fleet interface."""
    superlink_port: Port = 9444
    """Of the SuperLink, on the coordinator's loopback."""
    folder: AbsolutePath = "/etc/xsite"
    """Where what is made for the coordinator here will lie there."""
    state_dir: AbsolutePath = "/var/lib/xsite"
    """Where the coordinator keeps Flower's database, runs and checkpoints."""
    programs: AbsolutePath = "/opt/xsite/bin"
    """The folder of the commands of its installation of xsite."""
    user: str = Field("xsite", pattern=r"^[a-z_][a-z0-9_-]{0,31}$")
    """The account under which the coordinator's processes run."""
    days: int = Field(365, ge=1, le=3650)
    """How long the certificates hold."""
    site: list[SitePlan] = Field(min_length=1)
    """The hospitals."""

    @model_validator(mode="after")
    def _fit(self) -> "Consortium":
        names = [site.name for site in self.site]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sites are called {', '.join(twice)}")
        if "coordinator" in names:
            raise ValueError("a site cannot be called 'coordinator', as that is a folder's name")
        if self.port == self.superlink_port:
            raise ValueError(f"port and superlink-port are both {self.port}")
        return self

    @property
    def site_names(self) -> tuple[str, ...]:
        """The hospitals, in the file's order."""
        return tuple(site.name for site in self.site)


def read_consortium(path: Path) -> Consortium:
    """Read a consortium's file.

    Raises
    ------
    ConfigError
        Naming the file, the key, and what is allowed.
    """
    return make_consortium(read_toml(path, "the consortium", ConfigError), str(path))


def make_consortium(values: Mapping[str, Any], source: str) -> Consortium:
    """Check values, by kebab-case key, and make a consortium of them.

    Raises
    ------
    ConfigError
        Naming the source, the key, and what is allowed.
    """
    try:
        return Consortium.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            table = SitePlan if "site" in first["loc"] else Consortium
            known = ", ".join(key_of(name) for name in table.model_fields)
            message = f"there is no such key; there are {known}"
        raise ConfigError(f"{source}{f': {where}' if where else ''}: {message}.") from None
