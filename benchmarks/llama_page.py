"""llama.cpp's own page for `make bench-studio PEER=…/tools/ui/dist`: its files, and a scripted engine. Threads.

The page is built from llama.cpp's source: `npm ci --ignore-scripts && npm run build` in tools/ui.
"""

from __future__ import annotations

import json
import mimetypes
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

PARAMS = {"temperature": 1.0, "top_p": 1.0, "top_k": 40, "min_p": 0.0, "n_predict": -1, "samplers": [], "stream": True}
PROPS = {
    "default_generation_settings": {"id": 0, "n_ctx": 262144, "params": PARAMS}, "total_slots": 1,
    "model_path": "m.gguf", "modalities": {"vision": False, "audio": False}, "chat_template": "", "build_info": "b1",
}  # fmt: skip
MODELS = {
    "object": "list",
    "data": [{"id": "m", "object": "model", "meta": {"n_ctx": 262144}}],
    "models": [{"name": "m"}],
}
ANSWERS: dict[str, Any] = {
    "/props": PROPS,
    "/v1/models": MODELS,
    "/models": MODELS,
    "/slots": [],
    "/health": {"status": "ok"},
}


class Handler(BaseHTTPRequestHandler):
    """Files of `folder`; a POST streams `tokens`, one each `pace_s` seconds."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, folder: Path, tokens: Sequence[str], pace_s: float) -> None:
        self._folder, self._tokens, self._pace_s = folder, tokens, pace_s
        super().__init__(*args)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in ANSWERS:
            self._answer(200, json.dumps(ANSWERS[path]).encode(), "application/json")
            return
        file = (self._folder / path.lstrip("/")).resolve()
        if path == "/":
            file = self._folder / "index.html"
        if not file.is_relative_to(self._folder) or not file.is_file():
            self._answer(404, b"{}", "application/json")
            return
        self._answer(200, file.read_bytes(), mimetypes.guess_type(file.name)[0] or "application/octet-stream")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.path.startswith("/v1/chat/completions"):
            self._answer(404, b"{}", "application/json")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        begun = time.monotonic()
        for number, token in enumerate(self._tokens):
            self._event({"delta": {"content": token}, "index": 0, "finish_reason": None})
            time.sleep(max(0.0, begun + number * self._pace_s - time.monotonic()))
        self._event({"delta": {}, "index": 0, "finish_reason": "stop"})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, choice: dict[str, Any]) -> None:
        event = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@contextmanager
def llama_page(folder: Path, tokens: Sequence[str], pace_s: float) -> Iterator[str]:
    """The address of the page in `folder` before a scripted engine."""
    handler = partial(Handler, folder=folder.resolve(), tokens=tokens, pace_s=pace_s)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
