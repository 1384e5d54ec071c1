"""A folder for the coordinator and one for each hospital, with all that each needs to start.

::

    <folder>/coordinator/   ca.crt ca.key server.pem server.key superexec.secret keys/<site>.pub
                            superlink.sh superexec.sh register.sh nginx.conf *.service CHECKLIST.md
    <folder>/<site>/        ca.crt key key.pub policy.toml supernode.sh bin/flower-superexec
                            bin/flwr-clientapp *.service CHECKLIST.md
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common.errors import ConfigError
from common.files import replacing
from server.deployment.certificates import (
    Pair,
    is_site_key,
    make_authority,
    make_server,
    make_site_key,
)
from server.deployment.consortium import Consortium, SitePlan, bracketed

HERE = Path(__file__).parent
COORDINATOR = "coordinator"
SECRET, SCRIPT, TEXT = 0o600, 0o755, 0o644
# A key of a node that was killed is refused for a minute.
NODE_PAUSE, SERVER_PAUSE = 15, 3


@dataclass(frozen=True)
class File:
    """A file to be: what is in it, and who may do what with it."""

    content: bytes
    mode: int = TEXT


def write_folders(consortium: Consortium, folder: Path) -> Path:
    """Make everything that a consortium needs to start.

    Parameters
    ----------
    consortium : Consortium
        Who takes part.
    folder : Path
        A new or empty folder; only its owner may enter it, since there are private keys in it.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigError
        If the folder holds something, or a site's own public key cannot be read.
    RunError
        If it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is not empty. The keys in it may be in use; name a new folder."
        )
    files = make_files(consortium)
    with replacing(folder, mode=0o700) as part:
        for name, file in files.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=SECRET)
            path.write_bytes(file.content)
            path.chmod(file.mode)
    return folder


def make_files(consortium: Consortium) -> dict[str, File]:
    """Return every file by its path below the consortium's folder."""
    authority = make_authority(consortium.name, consortium.days)
    server = make_server(authority, consortium.hosts, consortium.days)
    pairs = {site.name: _pair(site) for site in consortium.site}
    files = {
        f"{COORDINATOR}/{name}": file
        for name, file in _coordinator(consortium, authority, server, pairs).items()
    }
    for site in consortium.site:
        own = _hospital(consortium, site, authority, pairs[site.name])
        files |= {f"{site.name}/{name}": file for name, file in own.items()}
    return files


def _coordinator(
    consortium: Consortium, authority: Pair, server: Pair, pairs: Mapping[str, Pair]
) -> dict[str, File]:
    until = datetime.now(UTC) + timedelta(days=consortium.days)
    shared = _keys("c", consortium) | {
        "until": until.strftime("%d %B %Y"),
        "sites": ",".join(consortium.site_names),
        "hosts": " ".join(map(bracketed, consortium.hosts)),
    }
    files = {
        "ca.crt": File(authority.public),
        "ca.key": File(authority.private, SECRET),
        "server.pem": File(server.public),
        "server.key": File(server.private, SECRET),
        "superexec.secret": File(secrets.token_hex(32).encode(), SECRET),
        "nginx.conf": File(_fill("nginx.conf", shared)),
        "CHECKLIST.md": File(_fill("coordinator.md", shared)),
    }
    files |= {f"keys/{site}.pub": File(pair.public) for site, pair in pairs.items()}
    for name in ("superlink.sh", "superexec.sh", "register.sh"):
        files[name] = File(_fill(name, shared), SCRIPT)
    for name, what, after in (
        ("superlink", "Flower's SuperLink", ""),
        ("superexec", "the coordinator's side of runs", " xsite-superlink.service"),
    ):
        description = f"xsite: {what} of {consortium.name}"
        files[f"xsite-{name}.service"] = _unit(consortium, description, name, SERVER_PAUSE, after)
    return files


def _hospital(
    consortium: Consortium, site: SitePlan, authority: Pair, pair: Pair
) -> dict[str, File]:
    shared = _keys("c", consortium) | _keys("s", site) | _of_a_site(consortium, site)
    description = f"xsite: the node of {site.name} in {consortium.name}"
    files = {
        "ca.crt": File(authority.public),
        "key.pub": File(pair.public),
        "policy.toml": File(_fill("policy.toml", shared)),
        "supernode.sh": File(_fill("supernode.sh", shared), SCRIPT),
        "bin/flwr-clientapp": File(_fill("clientapp", shared), SCRIPT),
        "bin/flower-superexec": File(_fill("superexec", shared), SCRIPT),
        "xsite-supernode.service": _unit(site, description, "supernode", NODE_PAUSE),
        "CHECKLIST.md": File(_fill("hospital.md", shared)),
    }
    if pair.private:
        files["key"] = File(pair.private, SECRET)
    return files


def _unit(
    plan: Consortium | SitePlan, description: str, name: str, pause: int, after: str = ""
) -> File:
    """Return a systemd unit of a plan's script."""
    values = {"description": description, "script": f"{name}.sh", "pause": pause, "after": after}
    return File(_fill("unit.service", _keys("p", plan) | values))


def _pair(site: SitePlan) -> Pair:
    """Return a new pair, or what a hospital that made its own has sent of it."""
    if not site.public_key:
        return make_site_key(site.name)
    path = Path(site.public_key)
    try:
        public = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"Cannot read {site.name}'s public-key {path}: {error.strerror or error}."
        ) from error
    if not is_site_key(public):
        raise ConfigError(
            f"{path} is no public key of {site.name} that Flower takes: expected the whole .pub "
            "file of `ssh-keygen -t ecdsa -b 384`."
        )
    return Pair(b"", public)


def _keys(letter: str, plan: Consortium | SitePlan) -> dict[str, str]:
    """Return what a plan says, by the names that templates have for it, such as ``c.port``."""
    return {f"{letter}.{key}": str(value) for key, value in plan.model_dump().items()}


def _of_a_site(consortium: Consortium, site: SitePlan) -> dict[str, str]:
    """Return what in a hospital's files depends on more than a key."""
    key = "`key` is your site's identity: whoever has it can answer in your name."
    if site.public_key:
        key = f"Put your private key there as `key`, readable by `{site.user}` alone."
    images = "This site has no folder of images: it is a synthetic hospital, for trying things out."
    if site.data_dir:
        check = f"`{site.programs}/xsite check-site {site.data_dir} --name {site.name}`"
        images = (
            f"{check}\n   says whether your images are fit. "
            f"`{site.user}` needs to read them, not to write them."
        )
    gpus = "" if site.gpus == "none" else site.gpus
    return {
        "host": bracketed(consortium.hosts[0]),
        "key": key,
        "images": images,
        "approve_runs": str(site.approve_runs).lower(),
        "gpus": f'export CUDA_VISIBLE_DEVICES="{gpus}"\n' if site.gpus else "",
        "data_dir": f'data-dir=\\"{site.data_dir}\\" ' if site.data_dir else "",
    }


def _fill(template: str, values: Mapping[str, object]) -> bytes:
    """Return a template with its blanks, such as ``{{ c.port }}``, filled; each must be known."""
    text = (HERE / "templates" / template).read_text(encoding="utf-8")
    return re.sub(r"\{\{ ([a-z_.]+) \}\}", lambda blank: str(values[blank[1]]), text).encode()
