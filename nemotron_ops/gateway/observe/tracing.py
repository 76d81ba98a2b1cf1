"""One OpenTelemetry span per request, where the environment asks for traces and the library is there. Threads.

The standard variables decide: `OTEL_EXPORTER_OTLP_ENDPOINT` (or `..._TRACES_ENDPOINT`), `OTEL_TRACES_EXPORTER=otlp`,
`OTEL_SDK_DISABLED`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME` and the others that OpenTelemetry's SDK reads itself.
Without them nothing is imported. A span is written when its request is over, from numbers that are there anyway, and
is sent by the SDK's own thread.

A client's `traceparent` is continued. It ends here: llama-server gets no header of a client. A span has names, numbers
and causes, never what was asked or answered. Attributes follow the semantic conventions for HTTP servers and
generative AI (opentelemetry.io/docs/specs/semconv/gen-ai); what these have no word for is under `nemotron_ops.`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nemotron_ops import __version__
from nemotron_ops.gateway.api.errors import CLIENT_GONE
from nemotron_ops.gateway.api.routes import Api, Kind, Route

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from nemotron_ops.gateway.exchange.exchange import Exchange
    from nemotron_ops.gateway.observe.accounting import Line

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
EXPORTER = "OTEL_TRACES_EXPORTER"
SERVICE = "nemotron-ops"
FLUSH_MS = 2000
CONTEXT_HEADERS = ("traceparent", "tracestate")
OPERATIONS: dict[Api, str] = {
    Api.CHAT: "chat", Api.MESSAGES: "chat", Api.RESPONSES: "chat", Api.COMPLETION: "text_completion",
    Api.NATIVE: "text_completion",
}  # fmt: skip
Value = str | int | float | bool


def wanted(env: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces over OTLP."""
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = [name.strip() for name in env.get(EXPORTER, "").split(",") if name.strip()]
    return "otlp" in exporters if exporters else any(env.get(name) for name in ENDPOINTS)


def start(env: Mapping[str, str]) -> Tracing | None:
    """What writes spans, or None where nobody asks for them or the library is missing (which is said on stderr)."""
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
    """Writes spans. `exporter` is closed with it."""

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

    def finished(self, exchange: Exchange, line: Line, now: float) -> None:
        """Write the span of a request that is over, `now` by the event loop's clock. `line` is what the log says of it.

        Nothing is written for one that was refused at the door: strangers do not fill the traces.
        """
        if not exchange.entered:
            return
        ns = _wall_clock(now, line.time)
        headers = exchange.request.headers
        carrier = {name: headers.get(name.encode(), b"").decode("latin-1") for name in CONTEXT_HEADERS}
        span = self._tracer.start_span(
            span_name(exchange.route, exchange.asked or exchange.model), context=self._parent(carrier),
            kind=self._server, attributes=attributes(exchange, line), start_time=ns(exchange.started),
        )  # fmt: skip
        if span.is_recording():
            for at, instance, reason in exchange.losses:
                told: dict[str, Value] = {"nemotron_ops.instance": instance, "nemotron_ops.reason": reason}
                span.add_event("nemotron_ops.instance_lost", told, timestamp=ns(at))
            relay = exchange.relay
            if relay is not None and relay.began:
                span.add_event("nemotron_ops.first_token", timestamp=ns(relay.first_at))
            if exchange.status >= 500 or failed_late(exchange):
                span.set_status(self._failed)
        span.end(ns(now))

    def close(self) -> None:
        """Send what is left. Blocks, but not for long."""
        self._provider.force_flush(FLUSH_MS)


def span_name(route: Route, model: str) -> str:
    """What a request is called in a trace: what is done, and with which model."""
    return f"{operation(route)} {model}" if model else operation(route)


def operation(route: Route) -> str:
    """`gen_ai.operation.name` of a route."""
    if route.kind is Kind.GENERATE:
        return OPERATIONS[route.api]
    name = route.path.rsplit("/", 1)[-1]
    return "embeddings" if name.startswith("embedding") else name


def failed_late(exchange: Exchange) -> bool:
    """Whether an answer that began well did not end so."""
    return exchange.status < 400 and bool(exchange.cause) and exchange.cause != "lost_in_thought"


def attributes(exchange: Exchange, line: Line) -> dict[str, Value]:
    """A request in names and numbers. What is not known is left out."""
    route, relay = exchange.route, exchange.relay
    found: dict[str, Value] = {
        "http.request.method": exchange.request.method,
        "http.route": route.path,
        "http.response.status_code": exchange.status or CLIENT_GONE,
        "gen_ai.operation.name": operation(route),
        "gen_ai.provider.name": "llama.cpp",
        "nemotron_ops.request_id": exchange.id,
        "nemotron_ops.key": exchange.key.id,
        "nemotron_ops.tries": exchange.tries,
        "nemotron_ops.resumed": exchange.resumed,
        "nemotron_ops.queue_seconds": round(exchange.queued_s, 6),
    }
    if exchange.asked or exchange.model:
        found["gen_ai.request.model"] = exchange.asked or exchange.model
        found["gen_ai.response.model"] = exchange.model
    if exchange.instance:
        found["nemotron_ops.instance"] = exchange.instance
    if exchange.cause or not exchange.status:
        found["error.type"] = exchange.cause or "client_gone"
    if relay is not None:
        found["gen_ai.request.stream"] = relay.outlet is exchange.client.answer
        if relay.began:
            found["gen_ai.response.time_to_first_chunk"] = round(relay.first_at - exchange.started, 6)
    if line.prompt_tokens:
        found["gen_ai.usage.input_tokens"] = line.prompt_tokens
        found["gen_ai.usage.cache_read.input_tokens"] = line.cached_tokens
    if line.completion_tokens:
        found["gen_ai.usage.output_tokens"] = line.completion_tokens
    return found


def _wall_clock(now: float, wall: float) -> Callable[[float], int]:
    """From the event loop's seconds to nanoseconds since 1970."""
    offset = int(wall * 1e9) - int(now * 1e9)
    return lambda at: offset + int(at * 1e9)
