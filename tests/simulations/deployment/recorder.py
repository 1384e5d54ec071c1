"""A proxy between SuperNodes and SuperLink that ends their TLS and keeps every byte, both ways."""

import io
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import httpx
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)
from flwr.app import Message
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse, PushObjectRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from server.deployment.consortium import Consortium
from simulations import rehearsal

FLEET = "/v1/fleet/"
# Of one connection, and none of the message's business.
PASSING = {"connection", "host", "content-length", "transfer-encoding"}


@dataclass(frozen=True)
class Exchange:
    """A request and its response.

    ``head``: what the node sent before the body, to the byte; ``sent`` and ``received``: the
    bodies, as they were; ``answered``: the response's status and headers.
    """

    site: str
    method: str
    head: bytes
    sent: bytes
    answered: bytes
    received: bytes


@dataclass(frozen=True)
class Capture:
    """All exchanges of a run, in the order in which the SuperLink answered."""

    exchanges: tuple[Exchange, ...]

    def of(self, site: str, *methods: str) -> list[Exchange]:
        """Return a site's exchanges, or those of some methods of Flower's fleet interface."""
        own = [one for one in self.exchanges if one.site == site]
        return [one for one in own if not methods or one.method in methods]

    def objects(self) -> dict[str, bytes]:
        """Return the objects that went up, by Flower's name for them."""
        pushes = [PushObjectRequest.FromString(one.sent) for one in self._all("push-object")]
        return {push.object_id: push.object_content for push in pushes}

    def sent_by(self, site: str) -> list[Message]:
        """Put a site's messages together from the objects that it pushed.

        An object that another site pushed before, Flower does not ask for again.
        """
        asked = [PushMessagesRequest.FromString(e.sent) for e in self.of(site, "push-messages")]
        trees = [tree for request in asked for tree in request.message_object_trees]
        return [_inflate(tree, self.objects()) for tree in trees]

    def received_by(self, site: str) -> list[Message]:
        """Put the messages together that a site got."""
        pulled = {}
        for one in self.of(site, "pull-object"):
            content = PullObjectResponse.FromString(one.received).object_content
            pulled[get_object_id(content)] = content
        got = [PullMessagesResponse.FromString(e.received) for e in self.of(site, "pull-messages")]
        trees = [tree for response in got for tree in response.message_object_trees]
        return [_inflate(tree, pulled) for tree in trees]

    def up(self, site: str) -> bytes:
        """Return all that a site sent: requests as they were, and arrays put together."""
        requests = [part for one in self.of(site) for part in (one.head, one.sent)]
        return b"".join(requests) + b"\0\0\0".join(_arrays(self.sent_by(site)))

    def down(self, site: str) -> bytes:
        """Return all that a site got: responses as they were, and arrays put together."""
        responses = [part for one in self.of(site) for part in (one.answered, one.received)]
        return b"".join(responses) + b"\0\0\0".join(_arrays(self.received_by(site)))

    def changed(self, object_id: str, content: bytes) -> "Capture":
        """Return a capture in which an object that went up has another content."""

        def change(one: Exchange) -> Exchange:
            if one.method != "push-object":
                return one
            push = PushObjectRequest.FromString(one.sent)
            if push.object_id != object_id:
                return one
            push.object_content = content
            return replace(one, sent=push.SerializeToString())

        return Capture(tuple(change(one) for one in self.exchanges))

    def _all(self, method: str) -> list[Exchange]:
        return [one for one in self.exchanges if one.method == method]


@dataclass
class Recorder:
    """The proxy, which stands on the consortium's port, as nginx does.

    Attributes
    ----------
    before : callable
        Called with the site and the method of every request before it goes on.
    prepare : callable
        Called with the consortium's folder before a script starts.
    """

    before: Callable[[str, str], None] = lambda _site, _method: None
    prepare: Callable[[Path], None] = lambda _folder: None
    exchanges: list[Exchange] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)

    @contextmanager
    def between(self) -> Iterator[None]:
        """Stand between the nodes and the SuperLink of deployments on this machine."""
        standing = rehearsal.standing

        @contextmanager
        def recorded(plan: Consortium, folder: Path, *more: Any) -> Iterator[Any]:
            with self._on_its_port(plan, folder), standing(plan, folder, *more) as deployed:
                yield deployed

        with (
            patch.object(rehearsal, "standing", recorded),
            patch.object(rehearsal, "reached", lambda plan: f"127.0.0.1:{plan.port}"),
        ):
            yield

    @contextmanager
    def _on_its_port(self, plan: Consortium, folder: Path) -> Iterator[None]:
        self.prepare(folder)
        authority = ssl.create_default_context(cafile=folder / "coordinator" / "ca.crt")
        base = f"https://127.0.0.1:{plan.superlink_port}"
        with (
            httpx.Client(base_url=base, verify=authority, timeout=120) as superlink,
            ThreadingHTTPServer(("127.0.0.1", plan.port), _Handler) as server,
        ):
            server.daemon_threads = True
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            own = folder / "coordinator"
            tls.load_cert_chain(own / "server.pem", own / "server.key")
            server.socket = tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
            keys = {_header(folder / site / "key.pub"): site for site in plan.site_names}
            # Handlers find these at the server, as the standard library has it.
            vars(server).update(recorder=self, superlink=superlink, keys=keys)
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield
            finally:
                server.shutdown()

    def capture(self) -> Capture:
        """Return what has been recorded; nothing may have passed that was not understood."""
        assert self.strange == []
        return Capture(tuple(self.exchanges))


class _Tee(io.RawIOBase):
    """Reads from a connection and keeps what was read."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self.connection, self.kept = connection, bytearray()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.connection.recv_into(buffer)
        self.kept += memoryview(buffer)[:count]
        return count


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body of a response leave in two writes.
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.tee = _Tee(self.connection)
        self.rfile = io.BufferedReader(self.tee)

    def do_POST(self) -> None:
        server = cast(Any, self.server)
        recorder: Recorder = server.recorder
        body = self.rfile.read(int(self.headers["content-length"]))
        raw, self.tee.kept = bytes(self.tee.kept), bytearray()
        method = self.path.removeprefix(FLEET)
        site = server.keys.get(self.headers[FLEET_HTTP_PUBLIC_KEY_HEADER], "")
        # Nothing before, between or behind head and body: requests follow one another.
        if not (raw.endswith(body) and raw.startswith(b"POST") and site):
            recorder.strange.append(f"{site or 'a stranger'}: {raw[:80]!r}")
        recorder.before(site, method)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in PASSING}
        with server.superlink.stream("POST", self.path, content=body, headers=headers) as answer:
            received = b"".join(answer.iter_raw())
        kept = [(k, v) for k, v in answer.headers.items() if k.lower() not in PASSING]
        if answer.headers.get("content-encoding"):
            recorder.strange.append(f"a response is {answer.headers['content-encoding']}-encoded")
        said = f"{answer.status_code} {answer.reason_phrase}\n" + "".join(
            f"{name}: {value}\n" for name, value in kept
        )
        head = raw[: len(raw) - len(body)]
        recorder.exchanges.append(Exchange(site, method, head, body, said.encode(), received))
        self.send_response(answer.status_code)
        for name, value in kept:
            self.send_header(name, value)
        self.send_header("content-length", str(len(received)))
        self.end_headers()
        self.wfile.write(received)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _header(public_key: Path) -> str:
    """Return how a node says whose it is."""
    key = load_ssh_public_key(public_key.read_bytes())
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(pem).decode()


def _inflate(tree: ObjectTree, objects: dict[str, bytes]) -> Message:
    contents = dict(objects)
    return cast(
        Message, inflate_object_from_contents(tree.object_id, contents, keep_object_contents=True)
    )


def _arrays(messages: list[Message]) -> list[bytes]:
    records = [
        record
        for message in messages
        if message.has_content()
        for record in message.content.array_records.values()
    ]
    return [array.data for record in records for array in record.values()]
