"""What a consortium gets: certificates that hold, keys that are secret, scripts that run."""

import shutil
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from clients.egress.policy import Policy, read_policy
from common.errors import ConfigError
from server.deployment.certificates import make_authority, make_server
from server.deployment.consortium import Consortium, SitePlan
from server.deployment.folders import make_files, write_folders
from simulations.cli import app

LAB = Consortium(
    name="lab",
    hosts=["xsite.example.org", "203.0.113.7"],
    site=[
        SitePlan(name="hospital-a", data_dir="/data/ct", gpus="0"),
        SitePlan(name="hospital-b", gpus="none"),
    ],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(LAB, tmp_path_factory.mktemp("lab") / "lab")


def test_secrets_are_their_owner_s_alone_and_nothing_else_is_secret(folder: Path) -> None:
    secret = {
        "coordinator/ca.key",
        "coordinator/server.key",
        "coordinator/superexec.secret",
        "hospital-a/key",
        "hospital-b/key",
    }
    files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    assert secret <= set(files)
    for name, path in files.items():
        private = b"PRIVATE KEY" in path.read_bytes() or name.endswith("secret")
        assert private == (name in secret), name
        assert (path.stat().st_mode & 0o077 == 0) == (name in secret), name
    assert all(path.stat().st_mode & 0o077 == 0 for path in (folder, *folder.glob("*")))


def test_no_hospital_gets_what_is_another_s_or_the_coordinator_s(folder: Path) -> None:
    secrets = {path: path.read_bytes() for path in folder.rglob("*") if path.name in KEYS}
    for path, content in secrets.items():
        holders = [f for f in folder.rglob("*") if f.is_file() and content in f.read_bytes()]
        assert holders == [path]


KEYS = ("ca.key", "server.key", "superexec.secret", "key")


def test_a_site_s_key_fits_the_public_one_at_the_coordinator(folder: Path) -> None:
    for site in LAB.site_names:
        private = load_ssh_private_key((folder / site / "key").read_bytes(), password=None)
        public = load_ssh_public_key((folder / "coordinator/keys" / f"{site}.pub").read_bytes())
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert private.public_key().public_numbers() == public.public_numbers()
        assert public.curve.name == "secp384r1"


def handshake(folder: Path, server: Path, name: str) -> None:
    """Let a client that trusts the folder's authority meet a server over real TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server / "server.pem", server / "server.key")
    client = ssl.create_default_context(cafile=folder / "ca.crt")
    here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(here, there, server_hostname=name)
    other = context.wrap_bio(there, here, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(20):
        for side in (one, other):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
        if len(done) == 2:
            return
    raise AssertionError("the handshake does not end")


@pytest.mark.parametrize("name", ["xsite.example.org", "203.0.113.7", "localhost", "127.0.0.1"])
def test_the_certificate_holds_for_every_name(folder: Path, name: str) -> None:
    handshake(folder / "hospital-a", folder / "coordinator", name)


def test_another_name_another_authority_and_an_old_certificate_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(folder / "hospital-a", folder / "coordinator", "other.example.org")
    other = make_authority("other", 10)
    (tmp_path / "ca.crt").write_bytes(other.public)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"self-signed|unable to get"):
        handshake(tmp_path, folder / "coordinator", "localhost")
    old = make_server(other, ["localhost"], -1)
    (tmp_path / "server.pem").write_bytes(old.public)
    (tmp_path / "server.key").write_bytes(old.private)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(tmp_path, tmp_path, "localhost")


def test_certificates_hold_as_long_as_the_checklist_says(folder: Path) -> None:
    held = x509.load_pem_x509_certificate((folder / "coordinator/server.pem").read_bytes())
    left = held.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=364) < left <= timedelta(days=365)
    until = held.not_valid_after_utc.strftime("%d %B %Y")
    assert f"hold until {until}" in (folder / "coordinator/CHECKLIST.md").read_text()


def test_scripts_are_sound_and_start_what_they_say(folder: Path, tmp_path: Path) -> None:
    """With programs that only write down how they were called."""
    for name in ("flower-superlink", "flower-superexec", "flower-supernode", "flwr"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            '#!/bin/sh\necho "$PWD: $0 $*"; echo "gpus=${CUDA_VISIBLE_DEVICES-all}"\n'
        )
        program.chmod(0o755)
    environment = {
        "PATH": "/usr/bin:/bin",
        "XSITE_PROGRAMS": str(tmp_path / "bin"),
        "XSITE_STATE": str(tmp_path / "state"),
    }
    told = {
        script.relative_to(folder).as_posix(): subprocess.run(
            [script], env=environment, capture_output=True, text=True, timeout=30, check=True
        ).stdout
        for script in sorted(folder.rglob("*.sh"))
    }
    link = told["coordinator/superlink.sh"]
    assert "--enable-supernode-auth --host 127.0.0.1 --port 9444 --isolation process" in link
    assert f"--ssl-keyfile {folder}/coordinator/server.key" in link and "--insecure" not in link
    assert f"{tmp_path}/state/empty: " in told["coordinator/superexec.sh"]
    register = told["coordinator/register.sh"]
    for site in LAB.site_names:
        assert f"register {folder}/coordinator/keys/{site}.pub lab --name {site}" in register
    node = told["hospital-a/supernode.sh"]
    assert "--superlink xsite.example.org:9443" in node and "gpus=0" in node
    assert f'site="hospital-a" data-dir="/data/ct" state-dir="{tmp_path}/state" policy="' in node
    assert "gpus=\n" in told["hospital-b/supernode.sh"]
    assert "data-dir" not in told["hospital-b/supernode.sh"]


def test_a_node_that_cannot_connect_says_why(folder: Path, tmp_path: Path) -> None:
    """Flower tries for ever and says nothing, or hides the reason in a traceback."""
    program = tmp_path / "bin" / "flower-supernode"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho started\n")
    program.chmod(0o755)

    def start(superlink: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "XSITE_PROGRAMS": str(program.parent),
            "XSITE_STATE": str(tmp_path / "state"),
            "XSITE_SUPERLINK": superlink,
            **variables,
        }
        script = folder / "hospital-a" / "supernode.sh"
        return subprocess.run(
            [script], env=environment, capture_output=True, encoding="utf-8", timeout=30
        )

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        reached = start(address)
        assert (reached.stdout, reached.stderr) == ("started\n", "")
    closed = start(address)
    assert closed.stdout == "started\n"
    assert "cannot be reached (Connection refused). The node tries again and again" in closed.stderr
    unknown = start("no-such-host.invalid:9443")
    assert "no-such-host.invalid:9443 cannot be reached (" in unknown.stderr
    # Behind a proxy this machine need not reach it.
    assert start("no-such-host.invalid:9443", HTTPS_PROXY="http://127.0.0.1:9").stderr == ""
    with socket.create_server(("127.0.0.1", LAB.site[0].runtime_port)):
        taken = start("127.0.0.1:9")
    assert taken.returncode == 1 and not taken.stdout
    assert "the loopback's port 9094 cannot be used (Address already in use)" in taken.stderr


def test_an_ipv6_address_is_quoted_wherever_a_port_follows_and_is_in_the_certificate(
    tmp_path: Path,
) -> None:
    lab = LAB.model_copy(update={"hosts": ["2001:db8::7", "xsite.example.org"]})
    folder = write_folders(lab, tmp_path / "lab")
    handshake(folder / "hospital-a", folder / "coordinator", "2001:db8::7")
    node = (folder / "hospital-a" / "supernode.sh").read_text()
    assert '--superlink "${XSITE_SUPERLINK:-[2001:db8::7]:9443}"' in node
    assert "TLS to [2001:db8::7], port 9443" in (folder / "hospital-a/CHECKLIST.md").read_text()
    nginx = (folder / "coordinator" / "nginx.conf").read_text()
    assert "listen 9443 ssl;" in nginx and "listen [::]:9443 ssl;" in nginx
    assert "server_name [2001:db8::7] xsite.example.org;" in nginx


@pytest.mark.parametrize("own", ["no_proxy", "NO_PROXY", ""])
def test_what_stays_on_a_machine_goes_through_no_proxy(
    folder: Path, tmp_path: Path, own: str
) -> None:
    for name in ("flower-superlink", "flower-superexec", "flower-supernode", "flwr"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\nenv\n")
        program.chmod(0o755)
    proxies = dict.fromkeys(("http_proxy", "HTTPS_PROXY", "ALL_PROXY"), "http://proxy:3128")
    environment = proxies | {
        "PATH": "/usr/bin:/bin",
        "XSITE_PROGRAMS": str(tmp_path / "bin"),
        "XSITE_STATE": str(tmp_path / "state"),
    }
    environment |= {own: "intranet.example.org"} if own else {}
    for script in sorted(folder.rglob("*.sh")):
        done = subprocess.run(
            [script], env=environment, capture_output=True, text=True, timeout=30, check=True
        )
        seen = dict(line.split("=", 1) for line in done.stdout.splitlines())
        for name in ("no_proxy", "NO_PROXY"):
            assert seen[name].startswith("127.0.0.1,localhost,::1"), script
        kept = {name: value for name, value in seen.items() if name in proxies}
        if script.name == "supernode.sh":
            # The coordinator may be behind it.
            assert kept == proxies
            assert seen["NO_PROXY"].endswith(",intranet.example.org" if own else "::1")
        else:
            assert not kept, script


def test_units_wait_for_the_clock_and_checklists_say_how_right_it_must_be(folder: Path) -> None:
    """Flower refuses a node that is more than 5 s ahead, or 5 min behind, and does not say why."""
    units = list(folder.glob("*/*.service"))
    assert len(units) == 4
    for unit in units:
        (after,) = (line for line in unit.read_text().splitlines() if line.startswith("After="))
        assert "time-sync.target" in after.removeprefix("After=").split()
    for checklist in folder.glob("*/CHECKLIST.md"):
        assert "clock" in checklist.read_text()


def test_the_policy_as_made_is_the_default_and_waits_for_a_person(folder: Path) -> None:
    assert read_policy(folder / "hospital-a" / "policy.toml") == Policy(approve_runs=True)


def test_a_hospital_s_own_key_is_taken_and_none_is_made(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("there is no ssh-keygen here")
    command = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", tmp_path / "own"]
    subprocess.run(command, check=True, timeout=30)
    own = str(tmp_path / "own.pub")
    files = make_files(LAB.model_copy(update={"site": [SitePlan(name="a", public_key=own)]}))
    assert "a/key" not in files
    assert files["coordinator/keys/a.pub"].content == (tmp_path / "own.pub").read_bytes()
    assert b"Put your private key there" in files["a/CHECKLIST.md"].content
    (tmp_path / "own.pub").write_text("ssh-ed25519 AAAA")
    with pytest.raises(ConfigError, match="no public key of a that Flower takes"):
        make_files(LAB.model_copy(update={"site": [SitePlan(name="a", public_key=own)]}))


def test_the_command_makes_a_new_folder_and_never_touches_another(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('name = "lab"\nhosts = ["h"]\n[[site]]\nname = "a"\n')
    words = ["deploy", "init", str(tmp_path / "lab.toml"), "--output", str(tmp_path / "out")]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0 and "CHECKLIST.md" in told.output
    key = (tmp_path / "out" / "a" / "key").read_bytes()
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 2 and "is not empty" in again.stderr
    assert (tmp_path / "out" / "a" / "key").read_bytes() == key
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab.toml", "out"]
