"""A SuperLink of one's own for one run: started, given the run, asked, stopped.

The one file that knows Flower's control interface, which answers in milliseconds where each
``flwr`` command takes seconds to start.
"""

import socket
import ssl
import subprocess
import sysconfig
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from common.config.schema import Scalar
from common.errors import RunError
from simulations.runtime.flower_inside import (
    ControlHttpClient,
    Fab,
    ListRunsRequest,
    RegisterNodeRequest,
    RuntimeVersionHttpInterceptor,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
    fab_to_proto,
    run_from_proto,
    simulation_config_from_json,
    user_config_to_proto,
)
from simulations.runtime.processes import ProcessTree, last_lines, start

START_SECONDS = 90.0
UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class LinkRunState:
    """What the SuperLink says of a run.

    ``status`` is pending, starting, running, finished, or that it does not answer; ``outcome``, of
    a finished run, is completed, failed or stopped; ``details`` says why it failed, and ``error``
    is the last exception in its server's output.
    """

    status: str
    outcome: str
    details: str
    error: str = ""


@dataclass(frozen=True)
class SuperLink:
    """A running SuperLink: its process, its address on the loopback, the file of its output.

    Process and file are None where somebody else started it. ``authority``: the certificate of who
    signed its own; None where it is reached without TLS. ``kept``: who started it starts it again
    when it ends, so that no answer is no end of the run.
    """

    process: "subprocess.Popen[bytes] | None"
    address: str
    log: Path | None
    authority: Path | None = None
    kept: bool = False

    def register(self, name: str, public_key: bytes) -> None:
        """Make a site's key known; its node is refused before.

        Parameters
        ----------
        name : str
            The site.
        public_key : bytes
            In OpenSSH's format.

        Raises
        ------
        RunError
            If the SuperLink does not take it.
        """
        pem = load_ssh_public_key(public_key).public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        try:
            with self._client() as client:
                client.RegisterNode(RegisterNodeRequest(public_key=pem, name=name))
        except Exception as error:
            raise RunError(f"Flower does not register {name}: {error}. {self.tail()}") from error

    def submit(
        self, bundle: bytes, run_config: Mapping[str, Scalar], federation: Mapping[str, Scalar]
    ) -> int:
        """Start a run.

        Parameters
        ----------
        bundle : bytes
            The app, as :func:`simulations.runtime.bundle.make_bundle` makes it.
        run_config : mapping
            Values that override the defaults in the bundle's ``pyproject.toml``.
        federation : mapping
            Keys of ``flwr run --federation-config``, with underscores; empty in a deployment.

        Returns
        -------
        int
            The run's id.

        Raises
        ------
        RunError
            If the SuperLink does not accept the run.
        """
        request = StartRunRequest(
            fab=fab_to_proto(Fab(sha256(bundle).hexdigest(), bundle, {})),
            override_config=user_config_to_proto(dict(run_config)),
            override_federation_config=(
                simulation_config_from_json(dict(federation)) if federation else None
            ),
        )
        try:
            with self._client() as client:
                reply = client.StartRun(request)
        except Exception as error:
            raise RunError(f"Flower did not accept the run: {error}. {self.tail()}") from error
        if not reply.HasField("run_id"):
            raise RunError(f"Flower did not accept the run. {self.tail()}")
        return int(reply.run_id)

    def state(self, run_id: int) -> LinkRunState:
        """Return the state of a run.

        Raises
        ------
        RunError
            If the SuperLink's process has ended, or has not answered for half a minute.
        """
        if not self.kept and self.ended():
            raise RunError(f"Flower's SuperLink ended during the run. {self.tail()}")
        try:
            with self._client() as client:
                reply = client.ListRuns(ListRunsRequest(run_id=run_id))
        except Exception as error:
            if self.kept:
                return LinkRunState(UNREACHABLE, "", "")
            raise RunError(f"Flower's SuperLink does not answer: {error}. {self.tail()}") from error
        status = run_from_proto(reply.run_dict[run_id]).status
        return LinkRunState(status.status, status.sub_status, status.details)

    def stop(self, run_id: int) -> None:
        """Tell the SuperLink to stop a run; a run that has ended, or a dead SuperLink, is fine."""
        try:
            with self._client(timeout=3.0) as client:
                client.StopRun(StopRunRequest(run_id=run_id))
        except Exception:
            # The processes are ended next anyway.
            return

    def copy_log(self, run_id: int, write: Callable[[str], object]) -> None:
        """Pass the run's output to ``write`` as it comes, and return when the run has ended."""
        try:
            with self._client() as client:
                for part in client.StreamLogs(StreamLogsRequest(run_id=run_id)):
                    write(part.log_output)
        except Exception:
            # The SuperLink went away under the stream; whoever asks for the state will say so.
            return

    def ended(self) -> bool:
        """Say whether its process, if it is known, has ended."""
        return self.process is not None and self.process.poll() is not None

    def tail(self) -> str:
        """Return the last lines of the SuperLink's own output, for an error's sentence."""
        return last_lines(self.log) if self.log else ""

    def _client(self, timeout: float = 30.0) -> "_LoopbackClient":
        return _LoopbackClient(self.address, self.authority, timeout)


class _LoopbackClient(ControlHttpClient):
    """Flower's client, which goes straight to this machine, whatever proxy leads out of it.

    Parameters
    ----------
    address : str
        Host and port of the SuperLink.
    authority : Path or None
        As of :class:`SuperLink`.
    timeout : float
        Seconds.
    """

    def __init__(self, address: str, authority: Path | None, timeout: float) -> None:
        # Flower's own makes a client that asks the environment, and fails there over a SOCKS proxy.
        self._base_url = f"{'https' if authority else 'http'}://{address}"
        self._interceptors = (RuntimeVersionHttpInterceptor(component_name="flwr CLI"),)
        self._retry_invoker = None
        verify = ssl.create_default_context(cafile=authority) if authority else True
        self._client = httpx.Client(verify=verify, timeout=timeout, trust_env=False)


def start_superlink(folder: Path, environment: Mapping[str, str]) -> tuple[SuperLink, ProcessTree]:
    """Start a SuperLink for simulation on a free port of the loopback.

    Parameters
    ----------
    folder : Path
        A private folder; the SuperLink works in an empty folder below it, since simulated sites
        import Python packages from the folder in which it was started before the run's own.
    environment : mapping
        All environment variables of it and of everything that it starts.

    Returns
    -------
    tuple of SuperLink and ProcessTree
        It, which may not answer yet (see :func:`wait_until_ready`), and its processes.
    """
    working = folder / "empty"
    working.mkdir(exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    host, _, port = address.partition(":")
    program = str(Path(sysconfig.get_path("scripts")) / "flower-superlink")
    options = ["--insecure", "--simulation", "--host", host, "--port", port]
    log = folder / "superlink.log"
    process = start([program, *options], working, environment, log)
    return SuperLink(process, address, log), ProcessTree(process)


def wait_until_ready(link: SuperLink) -> None:
    """Wait until a SuperLink answers.

    Raises
    ------
    RunError
        If it ends, or does not answer in time; its last lines are in the message.
    """
    host, _, port = link.address.partition(":")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if link.ended():
            raise RunError(f"Flower's SuperLink did not start. {link.tail()}")
        try:
            socket.create_connection((host, int(port)), timeout=1.0).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RunError(f"Flower's SuperLink did not answer within {START_SECONDS:.0f} s. {link.tail()}")


def free_port() -> int:
    """Return a port of the loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
