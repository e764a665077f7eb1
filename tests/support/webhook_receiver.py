"""A receiver of webhooks on loopback, which keeps what comes and answers what it is told to."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from standardwebhooks import Webhook

WAIT_S_MAX = 50.0


@dataclass(frozen=True)
class Delivery:
    """One request that came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verify(self, secret: str) -> Any:
        """What it says, if the signature is right; by the specification's own library."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass
class Reply:
    """One answer; it is held back until ``release`` is set, if there is one."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    release: threading.Event | None = None


class Receiver:
    """What came, and what to answer: ``replies`` first, then 204."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.replies: list[Reply] = []
        self.port = 0
        self.scheme = "http"
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook"

    def take(self, delivery: Delivery) -> Reply:
        with self._changed:
            self.deliveries.append(delivery)
            self._changed.notify_all()
            return self.replies.pop(0) if self.replies else Reply()

    def wait_for(self, is_there: Callable[[list[Delivery]], bool]) -> list[Delivery]:
        """What came, once ``is_there`` says so."""
        with self._changed:
            assert self._changed.wait_for(lambda: is_there(self.deliveries), WAIT_S_MAX), self.deliveries
            return list(self.deliveries)

    def wait(self, count: int = 1) -> list[Delivery]:
        return self.wait_for(lambda deliveries: len(deliveries) >= count)


@contextmanager
def run_receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver that listens, with TLS if it is given how."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        own: ClassVar[Receiver] = receiver

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = self.own.take(Delivery(self.path, headers, body))
            if reply.release is not None:
                reply.release.wait(WAIT_S_MAX)
            try:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if "content-length" not in {name.lower() for name in reply.headers}:
                    self.send_header("content-length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
            except OSError:
                self.close_connection = True  # whoever sent it gave up

        def log_message(self, *_: object) -> None:
            """Nothing to say."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> tuple[Any, Any]:
            connection, peer = super().get_request()
            # The handshake is done by the first read, on the connection's own thread.
            return (
                (tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), peer)
                if tls
                else (connection, peer)
            )

        def handle_error(self, *_: object) -> None:
            """Clients that break off are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    receiver.scheme = "http" if tls is None else "https"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
