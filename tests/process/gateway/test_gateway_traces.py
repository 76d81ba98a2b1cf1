"""Traces: the real SDK in a real gateway, sending to a real OTLP receiver. And nothing of it where nobody asks."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import opentelemetry.semconv._incubating.attributes.gen_ai_attributes as conventions
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from nemotron_ops.gateway.api.routes import ROUTES, Kind
from nemotron_ops.gateway.observe import tracing
from nemotron_ops.supervisor.snapshot import ModelView
from tests.fakes.scripted_engine import ScriptedEngine, dies_after, hangs_after, well
from tests.stages.gateway import Stage, gateway, open_request

pytestmark = pytest.mark.process
CHAT = "/v1/chat/completions"
SECRET = "canary-4711"
BODY = {"model": "m:calm", "messages": [{"role": "user", "content": SECRET}]}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
MODEL = ModelView(name="m", names=("m",), profiles={"calm": {"temperature": 0.1}}, queue_wait_s=5.0)


@dataclass
class Receiver:
    """An OTLP/HTTP collector; `spans` are those that came."""

    port: int = 0
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def requests(self) -> list[Any]:
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]

    @property
    def spans(self) -> list[Any]:
        return [s for r in self.requests for rs in r.resource_spans for ss in rs.scope_spans for s in ss.spans]

    def resource(self) -> dict[str, Any]:
        return told(self.requests[0].resource_spans[0].resource.attributes)


def told(attributes: Any) -> dict[str, Any]:
    """Attributes as a plain dictionary."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Door(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.paths.append(self.path)
            found.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        found.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Stage]:
    asked = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.port}", "OTEL_BSP_SCHEDULE_DELAY": "50",
        "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in asked.items():
            patch.setenv(name, value)
        with gateway(tmp_path_factory.mktemp("traces")) as found:
            yield found


@pytest.fixture
def engines(stage: Stage, tmp_path: Path) -> Iterator[Callable[..., list[ScriptedEngine]]]:
    started: list[ScriptedEngine] = []

    def start(*plays: Any) -> list[ScriptedEngine]:
        for n, play in enumerate(plays):
            started.append(
                ScriptedEngine(name=f"m-{n}", path=tmp_path / f"{n}.sock", play=play, pid=os.getpid()).start()
            )
        serial = stage.control.snapshot.serial
        stage.control.show(models=(MODEL,), instances=tuple(e.view(restarts=serial) for e in started))
        stage.settle()
        return started

    yield start
    for engine in started:
        engine.stop()


def span_of(receiver: Receiver, request_id: str, eventually: Callable[..., None]) -> Any:
    """The span of the request with this id, once it has come."""

    def found() -> list[Any]:
        return [s for s in receiver.spans if told(s.attributes)["nemotron_ops.request_id"] == request_id]

    eventually(found)
    (span,) = found()
    return span


def ask(stage: Stage, request_id: str, *, path: str = CHAT, body: Any = None, **headers: str) -> bytes:
    given = {"X-Request-Id": request_id, **{k.replace("_", "-"): v for k, v in headers.items()}}
    with open_request(stage, path, {**BODY, **(body or {})}, headers=given) as answer:
        return answer.rest()


def test_a_request_is_a_span_in_its_clients_trace(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], receiver: Receiver, eventually: Callable[..., None]
) -> None:
    (engine,) = engines(well)
    ask(stage, "whole", traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1")
    span = span_of(receiver, "whole", eventually)
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) == (TRACE, PARENT, "vendor=1")
    assert span.name == "chat m:calm"
    found = told(span.attributes)
    first = found.pop("gen_ai.response.time_to_first_chunk")
    assert 0 < first <= (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 + 1e-5
    assert found.pop("nemotron_ops.queue_seconds") >= 0
    assert found == {
        "http.request.method": "POST", "http.route": CHAT, "http.response.status_code": 200,
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "llama.cpp", "gen_ai.request.model": "m:calm",
        "gen_ai.response.model": "m", "gen_ai.request.stream": False, "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 0, "gen_ai.usage.output_tokens": 5, "nemotron_ops.request_id": "whole",
        "nemotron_ops.key": "anyone", "nemotron_ops.tries": 1, "nemotron_ops.resumed": False,
        "nemotron_ops.instance": "m-0",
    }  # fmt: skip
    assert [e.name for e in span.events] == ["nemotron_ops.first_token"]
    assert receiver.resource()["service.name"] == "nemotron-ops"
    assert set(receiver.paths) == {"/v1/traces"}
    assert not any("trace" in name for name in engine.heard[0].headers)


def test_a_continued_stream_says_what_was_lost_and_when(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], receiver: Receiver, eventually: Callable[..., None]
) -> None:
    engines(dies_after(3), well)
    stage.prefer("m-0", "m-1")
    ask(stage, "resumed", body={"stream": True})
    span = span_of(receiver, "resumed", eventually)
    found = told(span.attributes)
    assert (found["nemotron_ops.tries"], found["nemotron_ops.resumed"]) == (2, True)
    assert (found["nemotron_ops.instance"], found["gen_ai.request.stream"]) == ("m-1", True)
    lost = next(e for e in span.events if e.name == "nemotron_ops.instance_lost")
    assert told(lost.attributes)["nemotron_ops.instance"] == "m-0"
    assert span.start_time_unix_nano <= lost.time_unix_nano <= span.end_time_unix_nano
    assert span.status.code == 0


def test_an_answer_that_was_cut_off_is_an_error(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], receiver: Receiver, eventually: Callable[..., None]
) -> None:
    engines(dies_after(0))
    ask(stage, "lost", body={"stream": True, "logprobs": True})
    span = span_of(receiver, "lost", eventually)
    assert span.status.code == 2
    assert told(span.attributes)["error.type"] == "engine_lost"


def test_a_client_that_left_is_an_error_of_its_own(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], receiver: Receiver, eventually: Callable[..., None]
) -> None:
    (engine,) = engines(hangs_after(0))
    with open_request(stage, CHAT, BODY, headers={"X-Request-Id": "gone"}):
        eventually(lambda: engine.heard)
    found = told(span_of(receiver, "gone", eventually).attributes)
    assert (found["error.type"], found["http.response.status_code"]) == ("client_gone", 499)


@pytest.mark.parametrize("header", ["", "00-zz-yy-01", "ff-" + "0" * 60, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_damaged_context_begins_a_new_trace(
    stage: Stage,
    engines: Callable[..., list[ScriptedEngine]],
    receiver: Receiver,
    eventually: Callable[..., None],
    header: str,
) -> None:
    engines(well)
    ask(stage, f"damaged-{len(header)}", traceparent=header)
    span = span_of(receiver, f"damaged-{len(header)}", eventually)
    assert span.parent_span_id == b""
    assert any(span.trace_id)


def test_no_span_has_content_and_pages_of_the_gateway_have_none(
    stage: Stage, engines: Callable[..., list[ScriptedEngine]], receiver: Receiver, eventually: Callable[..., None]
) -> None:
    engines(well)
    stage.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    ask(stage, "content", body={"user": SECRET})
    span_of(receiver, "content", eventually)
    everything = b"".join(receiver.bodies)
    assert SECRET.encode() not in everything
    assert b"four" not in everything
    assert not any(told(s.attributes)["http.route"] in ("/health", "/metrics") for s in receiver.spans)


def test_spans_that_wait_are_sent_at_the_end(tmp_path: Path, receiver: Receiver) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        with gateway(tmp_path) as stage:
            stage.control.show(models=(MODEL,), instances=())
            stage.settle()
            ask(stage, "last", X_Request_Timeout="0.1")
    assert [s for s in receiver.spans if told(s.attributes)["nemotron_ops.request_id"] == "last"]


def test_where_nobody_asks_nothing_of_it_is_loaded() -> None:
    code = (
        "import sys, asyncio\n"
        "import nemotron_ops.gateway.__main__\n"
        "from nemotron_ops.gateway.observe.accounting import Accounting\n"
        "from nemotron_ops.gateway.options import Options\n"
        "assert Accounting(Options()).tracing is None\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, timeout=60)


def test_a_missing_library_is_said_and_serves_on() -> None:
    code = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from nemotron_ops.gateway.observe import tracing\n"
        "assert tracing.start({'OTEL_TRACES_EXPORTER': 'otlp'}) is None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert "nemotron-ops[otel]" in done.stderr


@pytest.mark.parametrize(
    ("env", "on"),
    [
        ({}, False), ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True), ({"OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False),
    ],
)  # fmt: skip
def test_the_standard_variables_decide(env: dict[str, str], on: bool) -> None:
    assert tracing.wanted(env) is on


def test_names_are_those_of_the_conventions() -> None:
    known = {v for k, v in vars(conventions).items() if k.startswith("GEN_AI_") and isinstance(v, str)}
    used = {
        word.strip('"') for line in Path(tracing.__file__).read_text().splitlines() if '"gen_ai.' in line
        for word in line.replace("]", " ").replace(":", " ").replace("[", " ").split() if word.startswith('"gen_ai.')
    }  # fmt: skip
    assert len(used) >= 8
    assert used <= known


def test_every_route_of_a_model_has_an_operation() -> None:
    for route in ROUTES:
        if route.kind not in (Kind.LOCAL, Kind.INSPECT, Kind.STORE):
            assert tracing.operation(route)
