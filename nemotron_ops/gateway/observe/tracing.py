"""Writes one OpenTelemetry span per request, if the environment enables traces and the library is installed. Threads.

The standard variables decide: `OTEL_EXPORTER_OTLP_ENDPOINT` (or `..._TRACES_ENDPOINT`), `OTEL_TRACES_EXPORTER=otlp`,
`OTEL_SDK_DISABLED`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME` and the others that OpenTelemetry's SDK reads itself.
Without them nothing is imported. A span is written when its request is over, from the numbers of its record, and sent
by the SDK's own thread.

A client's `traceparent` becomes the span's parent; it is not sent to llama-server. A span holds names, numbers and
causes, never a prompt or an answer. Attributes follow the semantic conventions for HTTP servers and generative AI
(opentelemetry.io/docs/specs/semconv/gen-ai); attributes that these do not define begin with `nemotron_ops.`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nemotron_ops import __version__
from nemotron_ops.gateway.api.errors import CLIENT_GONE
from nemotron_ops.gateway.api.routes import Api, Kind, Route
from nemotron_ops.gateway.observe.log_line import Line
from nemotron_ops.gateway.record import Record

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter


ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
EXPORTER = "OTEL_TRACES_EXPORTER"
SERVICE = "nemotron-ops"
FLUSH_MS = 2000
CONTEXT_HEADERS = ("traceparent", "tracestate")
OPERATIONS: dict[Api, str] = {
    Api.CHAT: "chat", Api.MESSAGES: "chat", Api.RESPONSES: "chat", Api.OLLAMA: "chat",
    Api.COMPLETION: "text_completion", Api.NATIVE: "text_completion",
}  # fmt: skip
Value = str | int | float | bool


def wanted(env: Mapping[str, str]) -> bool:
    """Whether the environment enables traces over OTLP."""
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = [name.strip() for name in env.get(EXPORTER, "").split(",") if name.strip()]
    return "otlp" in exporters if exporters else any(env.get(name) for name in ENDPOINTS)


def start(env: Mapping[str, str]) -> Tracing | None:
    """The span writer; None if traces are disabled, or if the library is missing (with a warning on stderr)."""
    if not wanted(env):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as exc:
        hint = "install nemotron-ops[otel], or unset the OTEL_ variables"
        sys.stderr.write(f"warning: traces are asked for but cannot be sent: {exc}\nhint: {hint}\n")
        sys.stderr.flush()
        return None
    return Tracing(OTLPSpanExporter(), env)


class Tracing:
    """Writes spans, and closes `exporter` at the end."""

    def __init__(self, exporter: SpanExporter, env: Mapping[str, str]) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        own: dict[str, str] = {"service.version": __version__}
        if not env.get("OTEL_SERVICE_NAME") and "service.name=" not in env.get("OTEL_RESOURCE_ATTRIBUTES", ""):
            own["service.name"] = SERVICE
        self._provider: TracerProvider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("nemotron_ops.gateway", __version__)
        self._parent = TraceContextTextMapPropagator().extract
        self._server = trace.SpanKind.SERVER
        self._failed = trace.Status(trace.StatusCode.ERROR)

    def finished(self, record: Record, line: Line, now: float) -> None:
        """Write the span of a finished request; `now` is the event loop's clock, `line` the request's log line.

        A request that was refused before it counted against a quota gets no span, so strangers cannot fill the traces.
        """
        if not record.entered:
            return
        ns = _wall_clock(now, line.time)
        headers = record.request.headers
        carrier = {name: headers.get(name.encode(), b"").decode("latin-1") for name in CONTEXT_HEADERS}
        span = self._tracer.start_span(
            span_name(record.route, record.asked or record.model), context=self._parent(carrier),
            kind=self._server, attributes=attributes(record, line), start_time=ns(record.started),
        )  # fmt: skip
        if span.is_recording():
            for at, instance, reason in record.losses:
                lost: dict[str, Value] = {"nemotron_ops.instance": instance, "nemotron_ops.reason": reason}
                span.add_event("nemotron_ops.instance_lost", lost, timestamp=ns(at))
            relay = record.relay
            if relay is not None and relay.began:
                span.add_event("nemotron_ops.first_token", timestamp=ns(relay.first_at))
            if record.status >= 500 or failed_late(record):
                span.set_status(self._failed)
        span.end(ns(now))

    def close(self) -> None:
        """Send the remaining spans. Blocks for at most FLUSH_MS."""
        self._provider.force_flush(FLUSH_MS)


def span_name(route: Route, model: str) -> str:
    """The span's name: operation and model."""
    return f"{operation(route)} {model}" if model else operation(route)


def operation(route: Route) -> str:
    """`gen_ai.operation.name` of a route."""
    if route.kind is Kind.GENERATE:
        return OPERATIONS[route.api]
    name = route.path.rsplit("/", 1)[-1]
    return "embeddings" if name.startswith("embedding") else name


def failed_late(record: Record) -> bool:
    """Whether a response failed after it had begun with status 200."""
    return record.status < 400 and bool(record.cause) and record.cause != "lost_in_thought"


def attributes(record: Record, line: Line) -> dict[str, Value]:
    """The span's attributes. Unknown values are left out."""
    route, relay = record.route, record.relay
    found: dict[str, Value] = {
        "http.request.method": record.request.method,
        "http.route": route.path,
        "http.response.status_code": record.status or CLIENT_GONE,
        "gen_ai.operation.name": operation(route),
        "gen_ai.provider.name": "llama.cpp",
        "nemotron_ops.request_id": record.id,
        "nemotron_ops.key": record.key.id,
        "nemotron_ops.tries": record.tries,
        "nemotron_ops.resumed": record.recovery.resumed,
        "nemotron_ops.queue_seconds": round(record.queued_s, 6),
    }
    if record.asked or record.model:
        found["gen_ai.request.model"] = record.asked or record.model
        found["gen_ai.response.model"] = record.model
    if record.instance:
        found["nemotron_ops.instance"] = record.instance
    if record.cause or not record.status:
        found["error.type"] = record.cause or "client_gone"
    if relay is not None:
        found["gen_ai.request.stream"] = relay.outlet is record.client.answer
        if relay.began:
            found["gen_ai.response.time_to_first_chunk"] = round(relay.first_at - record.started, 6)
    if line.prompt_tokens:
        found["gen_ai.usage.input_tokens"] = line.prompt_tokens
        found["gen_ai.usage.cache_read.input_tokens"] = line.cached_tokens
    if line.completion_tokens:
        found["gen_ai.usage.output_tokens"] = line.completion_tokens
    return found


def _wall_clock(now: float, wall: float) -> Callable[[float], int]:
    """Converts the event loop's seconds to nanoseconds since 1970."""
    offset = int(wall * 1e9) - int(now * 1e9)
    return lambda at: offset + int(at * 1e9)
