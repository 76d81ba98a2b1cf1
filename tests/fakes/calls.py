"""Complete requests to a gateway on its stage, with keys and an engine behind it. HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemotron_ops.gateway.keys import keystore
from nemotron_ops.gateway.keys.ring import Key
from nemotron_ops.supervisor.snapshot import ModelView
from tests.fakes.scripted_engine import ScriptedEngine
from tests.stages.gateway import Stage, gateway

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Say it"}]}
MODEL = ModelView(name="m", names=("m",))


def body_of(api: str, *, stream: bool) -> dict[str, object]:
    """The body of a request in the shape of `api`."""
    body: dict[str, object] = {"model": "org/m", "stream": stream, "max_tokens": 50}
    if api in ("completion", "native"):
        return {**body, "prompt": "Say it: "}
    if api == "responses":
        return {"model": "org/m", "stream": stream, "input": "Say it"}
    return {**body, "messages": [{"role": "user", "content": "Say it"}]}


def tools_of(api: str) -> list[dict[str, object]]:
    """Tools of a request in the shape of `api`; only responses leave out an empty list."""
    return [{"type": "function", "name": "f", "parameters": {}}] if api == "responses" else []


def text_in(answer: bytes) -> str:
    """The text of a streamed response of any API."""
    found = ""
    for line in answer.split(b"\n"):
        if not line.startswith(b"data: {"):
            continue
        value = json.loads(line[6:])
        found += value.get("content") or "" if isinstance(value.get("content"), str) else ""
        found += value["delta"] if isinstance(value.get("delta"), str) else (value.get("delta") or {}).get("text", "")
        for choice in value.get("choices", ()):
            found += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
    return found


def call(
    stage: Stage, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """One request by the standard library's client; status, headers and body of the response."""
    connection = http.client.HTTPConnection("127.0.0.1", stage.port, timeout=30)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method, path, body=data, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def make(keys: Path, name: str, **settings: Any) -> str:
    return keystore.create(keys, Key(id="", sha256="", name=name, **settings))[1]


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def rss_mib(stage: Stage) -> float:
    status = Path(f"/proc/{stage.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextlib.contextmanager
def served(folder: Path, engine: ScriptedEngine, *flags: str, key: str = "") -> Iterator[Stage]:
    engine.start()
    with gateway(folder, *flags) as stage:
        stage.control.show(models=(MODEL,), instances=(engine.view(),))
        if key or "--api-keys-file" not in flags:
            stage.settle(key)
        yield stage
    engine.stop()
