"""Our OpenAPI description against a real gateway: requests made up from it get answers that it names."""

from __future__ import annotations

import json
import os
import re
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from nemotron_ops.gateway.api.routes import ROUTES, WITH_NAMES, Api, Route
from nemotron_ops.gateway.openapi import fields
from nemotron_ops.gateway.openapi.describe import describe
from nemotron_ops.gateway.request.fields import allowed
from nemotron_ops.supervisor.snapshot import ModelView
from tests.fakes.scripted_engine import Heard, ScriptedEngine, chunk, events
from tests.stages.gateway import Stage, gateway

pytestmark = pytest.mark.process
ALL = (*ROUTES, *WITH_NAMES)
CONFORMS = [
    status_code_conformance, content_type_conformance, response_schema_conformance, response_headers_conformance,
]  # fmt: skip
EXAMPLES = settings(
    max_examples=5,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
MESSAGE = {"role": "assistant", "content": "four"}
TOP = {"id": "x", "created": 1, "model": "engine"}
CHOICE = {"index": 0, "finish_reason": "stop"}
USAGE = {"input_tokens": 1, "output_tokens": 1}
ANSWERS: dict[str, Any] = {
    "/v1/chat/completions": {**TOP, "object": "chat.completion", "choices": [{**CHOICE, "message": MESSAGE}]},
    "/v1/completions": {**TOP, "object": "text_completion", "choices": [{**CHOICE, "text": "four"}]},
    "/v1/responses": {**TOP, "object": "response", "status": "completed", "output": []},
    "/v1/messages": {
        **TOP, "type": "message", "role": "assistant", "content": [{"type": "text", "text": "four"}], "usage": USAGE,
    },
    "/v1/embeddings": {"object": "list", "data": [{"index": 0, "embedding": [0.5]}]},
    "/embeddings": [{"index": 0, "embedding": [[0.5]]}],
    "/embedding": [{"index": 0, "embedding": [[0.5]]}],
    "/v1/rerank": {"results": [{"index": 0, "relevance_score": 0.5}]},
    "/v1/audio/transcriptions": {"text": "four"},
    "/v1/messages/count_tokens": {"input_tokens": 1},
    "/v1/chat/completions/input_tokens": {"input_tokens": 1},
    "/v1/responses/input_tokens": {"input_tokens": 1},
    "/tokenize": {"tokens": [1]},
    "/detokenize": {"content": "four"},
    "/apply-template": {"prompt": "four"},
    "/props": {},
    "/slots": [{"id": 0}],
    "/lora-adapters": [],
}  # fmt: skip
NATIVE = {"content": "four", "stop": True, "model": "engine"}
STREAMS = {
    "/v1/chat/completions": "chat", "/v1/completions": "completion", "/v1/responses": "responses",
    "/v1/messages": "messages", "/completion": "native", "/completions": "native", "/infill": "native",
}  # fmt: skip
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def no_bug(ctx: Any, response: Any, case: Any) -> None:
    """The gateway's own word for a bug of its own."""
    assert b'"code":"internal"' not in response.content


def whole(status: int, value: Any, kind: str = "application/json; charset=utf-8") -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def agreeable(s: socket.socket, request: Heard) -> None:
    """Answers whatever is asked, in the shape that llama-server has for it."""
    path = request.path.partition("?")[0]
    if path == "/metrics":
        s.sendall(whole(200, b"llamacpp:requests_processing 0\n", "text/plain; version=0.0.4"))
    elif path in STREAMS and json.loads(request.body, parse_int=float).get("stream") is True:
        s.sendall(STREAM + b"".join(map(chunk, events(STREAMS[path]))) + b"0\r\n\r\n")
    else:
        s.sendall(whole(200, ANSWERS.get(path, NATIVE)))


def moody(s: socket.socket, request: Heard) -> None:
    """The same, but as llama-server refuses or fails it as often; the same request gets the same answer."""
    moods = (0, 400, 500, 501, 503, 404, -1)
    status = moods[zlib.crc32(request.body + request.path.encode()) % len(moods)]
    if status > 0:
        s.sendall(whole(status, {"error": {"code": status, "message": "no", "type": "server_error"}}))
    elif status == 0:
        agreeable(s, request)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("openapi")
    with gateway(folder, "--retries", "1", "--batches-folder", str(folder / "batches")) as found:
        yield found


@pytest.fixture(scope="module")
def described(stage: Stage) -> Any:
    return schemathesis.openapi.from_dict(requests.get(f"{stage.url}/openapi.json", timeout=30).json())


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as found:
        found.trust_env = False
        yield found


@pytest.fixture
def engine(stage: Stage, tmp_path: Path) -> Iterator[ScriptedEngine]:
    found = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=agreeable, pid=os.getpid(), slots=4).start()
    model = ModelView(name="m", names=("m",), queue_wait_s=5.0)
    view = found.view(kv_unified=True, ctx_tokens=4096, restarts=stage.control.snapshot.serial)
    stage.control.show(models=(model,), instances=(view,))
    stage.settle()
    yield found
    found.stop()


def agree(body: dict[str, Any]) -> None:
    """Rules between fields that no schema says: a choice needs the tool that it names, and tools exclude formats."""
    for name in ("tool_choice", "functions", "function_call"):
        body.pop(name, None)
    if body.get("tools"):
        for name in ("response_format", "json_schema", "grammar", "text"):
            body.pop(name, None)


def check(operation: Any, stage: Stage, session: requests.Session, mode: GenerationMode, checks: list[Any]) -> None:
    @EXAMPLES
    @given(operation.as_strategy(generation_mode=mode))
    def conforms(case: Any) -> None:
        if isinstance(case.body, dict) and "model" in case.body and mode is GenerationMode.POSITIVE:
            case.body["model"] = "m"  # the only one that there is
        if isinstance(case.body, dict) and mode is GenerationMode.POSITIVE and isinstance(case.body.get("n"), float):
            case.body["n"] = int(case.body["n"])  # JSON Schema takes 4.0 for an integer, the gateway does not
        if isinstance(case.body, dict) and mode is GenerationMode.POSITIVE:
            agree(case.body)
        response = case.call(base_url=stage.url, session=session, timeout=30)
        case.validate_response(response, checks=checks)

    conforms()


@pytest.mark.parametrize("route", ALL, ids=lambda r: f"{r.method} {r.path}")
def test_what_is_described_is_accepted_and_answered_as_described(
    described: Any, stage: Stage, session: requests.Session, engine: ScriptedEngine, route: Route
) -> None:
    wants = [*CONFORMS, positive_data_acceptance, not_a_server_error]
    check(described[route.path][route.method], stage, session, GenerationMode.POSITIVE, wants)


@pytest.mark.parametrize(
    "route", [r for r in ALL if r.method == "POST" and "{" not in r.path], ids=lambda r: f"{r.method} {r.path}"
)
def test_what_is_not_described_and_what_the_engine_refuses_is_answered_as_described(
    described: Any, stage: Stage, session: requests.Session, engine: ScriptedEngine, route: Route
) -> None:
    engine.play = moody
    check(described[route.path][route.method], stage, session, GenerationMode.NEGATIVE, [*CONFORMS, no_bug])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"model": "m", "messages": [{"type": ["image_url"], "content": [{"type": {}}]}]}', 200),
        (f'{{"model": "m", "messages": [], "max_tokens": {"9" * 5000}}}', 200),
        (f'{{"model": "m", "messages": [], "n": {"9" * 5000}, "max_tokens": {"9" * 400}}}', 400),
    ],
    ids=["a-type-that-is-none", "a-limit-of-5000-digits", "as-many-choices"],
)
def test_values_that_no_client_means_do_no_harm(
    stage: Stage, session: requests.Session, engine: ScriptedEngine, body: str, status: int
) -> None:
    answer = session.post(f"{stage.url}/v1/chat/completions", data=body, timeout=30)
    assert answer.status_code == status


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "GET", "POST"])
def test_another_method_is_told_which_there_are(stage: Stage, session: requests.Session, method: str) -> None:
    for path in {route.path for route in ALL}:
        allowed_ = [route.method for route in ALL if route.path == path]
        if method in allowed_:
            continue
        answer = session.request(method, stage.url + path, timeout=30)
        assert (answer.status_code, answer.headers["Allow"]) == (405, ", ".join(allowed_))
        assert answer.json()["error"]


def test_every_status_that_the_gateway_gives_is_described() -> None:
    source = "".join(p.read_text() for p in Path(fields.__file__).parent.glob("*.py"))
    given_ = {int(s) for s in re.findall(r"(?:status=|_stop\()(\d{3})", source)} - {200, 405}  # 405: no such operation
    described = {int(s) for methods in describe()["paths"].values() for o in methods.values() for s in o["responses"]}
    assert given_ <= described


def test_every_field_has_a_type() -> None:
    for api in Api:
        assert {name for name in allowed(api) if fields.of(api, name) is None} == set()
