"""A real HTTP server on a loopback address, whose answers a test scripts by path. One thread for each connection."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer in whole; `cut` bytes of the body are left out although its length is announced."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int = 0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it arrived. Header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


Script = Callable[[Asked], Answer]


@dataclass
class Pages:
    """The server's address, and what it was asked."""

    port: int
    host: str
    asked: list[Asked] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def serving(script: Script, *, host: str = "127.0.0.2", tls: ssl.SSLContext | None = None) -> Iterator[Pages]:
    """Serve `script` on a free port of `host` until the block ends, over TLS if `tls` is given."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            headers = {k.lower(): v for k, v in self.headers.items()}
            asked = Asked(method=self.command, target=self.path, headers=headers, body=self.rfile.read(length))
            pages.asked.append(asked)
            answer = script(asked)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: len(answer.body) - answer.cut])
            self.close_connection = True

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    class Server(ThreadingHTTPServer):
        def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
            plain, address = super().get_request()
            if tls is None:
                return plain, address
            try:
                return tls.wrap_socket(plain, server_side=True), address
            except OSError:
                plain.close()
                raise

        def handle_error(self, request: object, client_address: object) -> None:
            del request, client_address  # a client that goes away

    server = Server((host, 0), Handler)
    pages = Pages(port=server.server_port, host=host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield pages
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
