"""Who is refused: real SuperNodes and clients before a real SuperLink behind a real nginx."""

import contextlib
import os
import shutil
import socket
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from common.errors import RunError
from server.deployment.certificates import Pair, make_server, make_site_key
from server.deployment.consortium import make_consortium
from server.deployment.folders import write_folders
from simulations.runtime.processes import ProcessTree, start
from simulations.runtime.superlink import SuperLink, free_port, wait_until_ready

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/bin")
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
PROGRAMS = sysconfig.get_path("scripts")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed here"),
]


@dataclass(frozen=True)
class Lab:
    """A consortium of which hospital-a alone is registered; ``proxy``: what hospitals see."""

    folder: Path
    link: SuperLink
    proxy: str

    def node(
        self, site: str, *more: str, at: str = "", wait: float = 0.0, **files: bytes
    ) -> tuple[int | None, str]:
        """Start a site's node with its own script; return how it ended, and its output.

        It has ended if the first is not None; else it was accepted, and is taken down.
        """
        own = self.folder / f"{site}-{time.monotonic_ns()}"
        shutil.copytree(self.folder / "lab" / site, own)
        for name, content in files.items():
            (own / name).write_bytes(content)
        script = own / "supernode.sh"
        script.write_text(
            script.read_text().replace(
                "exec flower-supernode", f"exec flower-supernode {' '.join(more)}"
            )
        )
        log = own / "log"
        environment = {"XSITE_STATE": str(own / "state"), "XSITE_SUPERLINK": at or self.proxy}
        process = start([str(script)], own, os.environ | environment, log)
        tree = ProcessTree(process)
        try:
            deadline = time.monotonic() + 90
            while time.monotonic() < deadline and process.poll() is None:
                if "SuperNode ID" in log.read_text(errors="replace"):
                    # Until its own processes talk to each other.
                    time.sleep(wait)
                    return None, log.read_text(errors="replace")
                time.sleep(0.2)
            assert process.poll() is not None, log.read_text(errors="replace")
            return process.poll(), log.read_text(errors="replace")
        finally:
            tree.take_down()


@contextlib.contextmanager
def running(
    command: list[str], folder: Path, log: Path, **environment: str
) -> Iterator[ProcessTree]:
    tree = ProcessTree(start(command, folder, os.environ | environment, log))
    try:
        yield tree
    finally:
        tree.take_down()


def wait_for(port: int, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on port {port}")


def superlink_of(folder: Path, port: int, log: Path, tree: ProcessTree) -> SuperLink:
    link = SuperLink(tree._root, f"127.0.0.1:{port}", log, folder / "ca.crt")
    wait_until_ready(link)
    return link


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("refusals")
    proxy, link_port = free_port(), free_port()
    values = {
        "name": "lab",
        "hosts": ["127.0.0.1", "::1"],
        "port": proxy,
        "superlink-port": link_port,
        "folder": str(root / "lab" / "coordinator"),
        "programs": PROGRAMS,
        "site": [
            {"name": name, "programs": PROGRAMS, "runtime-port": free_port()}
            for name in ("hospital-a", "hospital-b", "hospital-d")
        ],
    }
    coordinator = write_folders(make_consortium(values, "a test"), root / "lab") / "coordinator"
    (root / "nginx.conf").write_text(
        f"daemon off; pid {root}/nginx.pid; error_log {root}/nginx.log; worker_processes 1;\n"
        "events {}\n"
        f"http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p;\n"
        f"fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n"
        f"include {coordinator}/nginx.conf; }}\n"
    )
    nginx = [str(NGINX), "-c", str(root / "nginx.conf"), "-e", str(root / "nginx.log")]
    script, log = [str(coordinator / "superlink.sh")], root / "superlink.log"
    with (
        running(script, root, log, XSITE_STATE=str(root / "state")) as tree,
        running(nginx, root, root / "nginx.txt"),
    ):
        link = superlink_of(coordinator, link_port, log, tree)
        wait_for(proxy)
        link.register("hospital-a", (root / "lab" / "hospital-a" / "key.pub").read_bytes())
        yield Lab(root, link, f"127.0.0.1:{proxy}")


def test_a_registered_site_comes_through_the_proxy(lab: Lab) -> None:
    ended, log = lab.node("hospital-a")
    assert ended is None, log


def test_a_registered_site_comes_through_over_ipv6_and_no_proxy_takes_it_elsewhere(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    # The key of a node that was killed is refused for a minute.
    public = lab.folder / "lab" / "hospital-d" / "key.pub"
    lab.link.register("hospital-d", public.read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        ended, log = lab.node("hospital-d", at=f"[::1]:{lab.proxy.partition(':')[2]}", wait=4.0)
        assert ended is None, log
        # What its processes say to each other would come here.
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_a_site_that_nobody_registered_and_another_s_key_are_refused(lab: Lab) -> None:
    for key in ({}, {"key": make_site_key("hospital-b").private}):
        ended, log = lab.node("hospital-b", **key)
        assert ended not in (None, 0), log
        assert "SuperNode ID" not in log


def test_a_client_that_does_not_encrypt_is_refused(lab: Lab) -> None:
    for address in (lab.proxy, lab.link.address):
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"http://{address}/v1/fleet/activate-node", timeout=5).raise_for_status()


def test_a_site_does_not_talk_to_a_server_whose_certificate_has_expired(lab: Lab) -> None:
    coordinator = lab.folder / "lab" / "coordinator"
    authority = Pair((coordinator / "ca.key").read_bytes(), (coordinator / "ca.crt").read_bytes())
    old = make_server(authority, ["127.0.0.1"], -1)
    there = lab.folder / "expired"
    shutil.copytree(coordinator, there)
    (there / "server.pem").write_bytes(old.public)
    (there / "server.key").write_bytes(old.private)
    port = free_port()
    script = (there / "superlink.sh").read_text()
    before = lab.link.address.partition(":")[2]
    (there / "superlink.sh").write_text(script.replace(before, str(port)))
    state = str(lab.folder / "expired-state")
    with running([str(there / "superlink.sh")], there, there / "log", XSITE_STATE=state) as tree:
        link = superlink_of(there, port, there / "log", tree)
        with pytest.raises(RunError, match="expired"):
            link.register("hospital-a", make_site_key("x").public)
        ended, log = lab.node("hospital-a", "--max-retries", "1", at=link.address)
        assert ended not in (None, 0), log


def test_a_hospital_can_neither_start_a_run_nor_register_nor_take_a_task(lab: Lab) -> None:
    """With the consortium's own certificate, which every hospital has."""
    through = SuperLink(lab.link.process, lab.proxy, lab.link.log, lab.link.authority)
    with pytest.raises(RunError, match=r"Flower did not accept the run.*404"):
        through.submit(b"", {}, {})
    with pytest.raises(RunError, match=r"does not register.*404"):
        through.register("mallory", make_site_key("mallory").public)
    with httpx.Client(verify=str(lab.link.authority), timeout=10) as client:
        for path in (
            "/",
            "/v1/runtime/pull-task",
            "/v1/control/list-runs",
            "/v1/fleet/../control/",
        ):
            assert client.post(f"https://{lab.proxy}{path}").status_code == 404, path
    # What stands behind the proxy does answer: the proxy is what keeps hospitals away.
    lab.link.register("hospital-c", make_site_key("hospital-c").public)


def test_whoever_lacks_the_secret_gets_no_task_of_the_coordinator(lab: Lab) -> None:
    guessed, true = lab.folder / "guessed", lab.folder / "lab" / "coordinator" / "superexec.secret"
    guessed.write_text("guessed")

    def superexec(secret: Path, seconds: float) -> float:
        """Return how long a process with a secret lived, at most so many seconds."""
        command = [
            *(f"{PROGRAMS}/flower-superexec", "--runtime-api-address", lab.link.address),
            *("--root-certificates", str(lab.link.authority)),
            *("--superexec-auth-secret-file", str(secret)),
        ]
        began = time.monotonic()
        with running(command, lab.folder, lab.folder / "superexec.log", **QUIET) as tree:
            while tree.alive() and time.monotonic() < began + seconds:
                time.sleep(0.1)
            return time.monotonic() - began

    lived = superexec(guessed, 60)
    assert lived < 60
    assert "SuperExec authentication failed" in lab.link.log.read_text(errors="replace")
    # The one with the secret goes on asking.
    assert superexec(true, 2 * lived + 3) >= 2 * lived + 3
