"""A scripted endpoint for the page: streams what a test says, at the pace it says, and dies when told. Threads."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Script:
    """What the endpoint does. `gate`: tokens after `hold_at` wait for it; `cut_at`: the connection breaks there."""

    tokens: list[str] = field(default_factory=lambda: ["one ", "two ", "three"])
    thinking: list[str] = field(default_factory=list)
    status: int = 200
    error: str = ""
    hold_at: int = -1
    cut_at: int = -1
    pace_s: float = 0.0
    reason: str = "stop"
    profiles: tuple[str, ...] = ()  # of its two models
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)
    open: int = 0  # answers that are being sent
    gone: threading.Event = field(default_factory=threading.Event)  # a client has closed its connection


@contextmanager
def endpoint(script: Script) -> Iterator[str]:
    """The base address of an endpoint that follows `script`, ending in /v1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            names = ("one", "two")
            cards = [{"id": n, "aliases": [], "profiles": [f"{n}:{p}" for p in script.profiles]} for n in names]
            self._json(200, {"data": cards})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            if self.path.endswith("/input_tokens"):
                self._json(200, {"input_tokens": 7})
                return
            script.asked.append(body)
            if script.status != 200:
                self._json(script.status, {"error": {"message": script.error}})
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Connection", "close")
            self.end_headers()
            script.open += 1
            try:
                self._stream()
            except OSError:
                script.gone.set()
            finally:
                script.open -= 1
                self.close_connection = True

        def _stream(self) -> None:
            parts = [{"reasoning_content": t} for t in script.thinking] + [{"content": t} for t in script.tokens]
            for number, delta in enumerate(parts):
                if number == script.hold_at:
                    while not script.gate.wait(0.05):
                        self._send(b": still here\n\n")
                if number == script.cut_at:
                    return
                self._event({"id": "x", "choices": [{"index": 0, "delta": delta}]})
                time.sleep(script.pace_s)
            self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": script.reason}]})
            self._event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(parts)}})
            self._send(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def _event(self, value: Any) -> None:
            self._send(b"data: " + json.dumps(value).encode() + b"\n\n")

        def _send(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

        def _json(self, status: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            del request, client_address

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        script.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
