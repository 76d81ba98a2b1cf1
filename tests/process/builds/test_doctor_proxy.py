"""`doctor` behind a proxy: one that reaches the hub, one that answers for it, one that is not there. About 5 s."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.process
HUB = "http://hub.invalid"


@contextmanager
def proxy(*, lies: bool) -> Iterator[str]:
    """The address of a proxy that has the hub's answers, or that shows a login page for everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, kind = (b"<html>Log in", "text/html") if lies else (b"[]", "application/json; charset=utf-8")
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def hub(home: Path, address: str, *, no_proxy: str = "") -> dict[str, str]:
    """What `doctor` says of the hub."""
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    env = {**kept, "NEMOTRON_OPS_HOME": str(home), "HF_ENDPOINT": HUB, "HTTP_PROXY": address, "NO_PROXY": no_proxy}
    argv = [sys.executable, "-m", "nemotron_ops", "doctor", "--json"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    findings = json.loads(done.stdout)
    findings = findings["findings"] if isinstance(findings, dict) else findings
    found: dict[str, str] = next(f for f in findings if f["what"] == "hub")
    return found


@pytest.mark.parametrize("no_proxy", ["", "::1,[::1],fd00::/8,localhost"])
def test_a_proxy_that_reaches_the_hub_is_well(tmp_path: Path, no_proxy: str) -> None:
    with proxy(lies=False) as address:
        assert hub(tmp_path, address, no_proxy=no_proxy)["status"] == "ok"


def test_a_proxy_that_answers_for_the_hub_is_told(tmp_path: Path) -> None:
    with proxy(lies=True) as address:
        found = hub(tmp_path, address)
    assert found["status"] == "warning"
    assert "something else: 200, text/html" in found["found"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "gopher://127.0.0.1"])
def test_a_proxy_that_is_not_there_or_cannot_be_used_is_told(tmp_path: Path, address: str) -> None:
    found = hub(tmp_path, address)
    assert found["status"] == "warning"
    assert "through the proxy" in found["found"]
