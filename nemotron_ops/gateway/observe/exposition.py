"""Renders metrics and gauges in Prometheus' text format, with its official client library. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from nemotron_ops.gateway.observe.metrics import Histogram, Labels, Metrics
from nemotron_ops.supervisor.snapshot import Snapshot, State

PREFIX = "nemotron_ops_"

COUNTERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "requests": ("requests", "Answered requests.", ("model", "route", "status")),
    "errors": ("errors", "Requests that did not end well, by cause.", ("model", "instance", "cause")),
    "retries": ("retries", "Attempts that an instance lost.", ("model", "instance")),
    "resumed": ("resumed_streams", "Streams continued after their instance was lost.", ("model",)),
    "tokens": ("tokens", "Tokens by kind: prompt, cached (part of prompt), completion.", ("model", "instance", "kind")),
    "key_requests": ("key_requests", "Requests by key id.", ("key",)),
    "key_tokens": ("key_tokens", "Tokens by key id.", ("key", "kind")),
    "tool_calls": ("tool_calls", "Tool calls of answers, by how they ended.", ("model", "outcome")),
    "tool_call_heals": ("tool_call_heals", "Steps that healed tool calls.", ("model", "step")),
    "affinity": ("affinity", "Choices of an instance: hit, miss (none known), overloaded.", ("model", "result")),
}
RESTARTS = ("instance_restarts", "Restarts: asked for, wedged, or by what it died of.", ("model", "instance", "reason"))
AT = ("model", "instance")
HISTOGRAMS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "queue_s": ("queue_seconds", "Time a request waited for a slot.", ("model",)),
    "first_token_s": ("time_to_first_token_seconds", "From the request's last byte to the first event.", AT),
    "between_tokens_s": ("inter_token_seconds", "Between events of one stream.", AT),
    "duration_s": ("request_seconds", "From the request's last byte to the end of its answer.", AT),
}
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "queue_length": ("Requests that wait for a slot.", ("model",)),
    "inflight_requests": ("Requests at an instance.", ("instance",)),
    "client_connections": ("Open connections of clients.", ()),
    "tasks": ("Tasks of the gateway: a few, and one per request.", ()),
    "snapshot_serial": ("The supervisor's snapshot that requests are routed by.", ()),
    "supervisor_connected": ("1 while the supervisor can be reached.", ()),
    "instance_state": ("1 for the state that an instance is in.", ("model", "instance", "state")),
    "instance_slots": ("Requests that an instance can work on at once.", ("model", "instance")),
    "instance_context_tokens": ("Context of an instance: shared by its slots, or of each.", ("model", "instance")),
    "instance_reserved_tokens": ("Tokens of a shared context that requests hold.", ("model", "instance")),
    "instance_memory_planned_bytes": ("Memory that was planned for, by device.", ("model", "instance", "device")),
    "instance_memory_used_bytes": ("Memory that the process was seen to hold.", ("model", "instance", "device")),
    "instance_load_progress": ("0 to 1 while an instance loads.", ("model", "instance")),
    "build_info": ("Versions, as labels.", ("version", "model", "instance", "build")),
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Everything that `/metrics` shows, at one moment."""

    metrics: Metrics
    snapshot: Snapshot
    queue_length: Mapping[str, int]
    inflight: Mapping[str, int]
    reserved_tokens: Mapping[str, int]
    connections: int
    tasks: int
    connected: bool
    version: str


class _Collector(Collector):
    def __init__(self, picture: Picture) -> None:
        self.picture = picture

    def collect(self) -> Iterable[Metric]:
        metrics = self.picture.metrics
        for name, (shown, about, labels) in COUNTERS.items():
            yield counter(shown, about, labels, getattr(metrics, name))
        for name, (shown, about, labels) in HISTOGRAMS.items():
            yield histogram(shown, about, labels, getattr(metrics, name))
        yield counter(*RESTARTS, restarts(self.picture.snapshot))
        yield from gauges(self.picture)


def render(picture: Picture) -> bytes:
    """The text that Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(picture))
    return generate_latest(registry)


def names() -> tuple[str, ...]:
    """The names of all metrics, as Prometheus shows them."""
    counters = [PREFIX + shown + "_total" for shown, _, _ in (*COUNTERS.values(), RESTARTS)]
    return (*counters, *(PREFIX + shown for shown, _, _ in HISTOGRAMS.values()), *(PREFIX + g for g in GAUGES))


def counter(name: str, about: str, labels: tuple[str, ...], values: Mapping[Labels, int]) -> Metric:
    """A counter with one sample per label tuple."""
    family = CounterMetricFamily(PREFIX + name, about, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def restarts(snapshot: Snapshot) -> dict[Labels, int]:
    """How often each instance was restarted, by reason; the supervisor counts them from its own start."""
    return {
        (view.model, view.name, reason): count
        for view in snapshot.instances
        for reason, count in view.restart_reasons.items()
    }


def histogram(name: str, about: str, labels: tuple[str, ...], values: Mapping[Labels, Histogram]) -> Metric:
    """A histogram per label tuple."""
    family = HistogramMetricFamily(PREFIX + name, about, labels=labels)
    for key, found in values.items():
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*found.bounds, float("inf")), found.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
        family.add_metric(key, buckets, found.total)
    return family


def gauges(picture: Picture) -> Iterator[Metric]:
    """The current values: queues, connections, instances."""
    values: dict[str, dict[Labels, float]] = {name: {} for name in GAUGES}
    values["queue_length"] = {(m,): n for m, n in picture.queue_length.items()}
    values["inflight_requests"] = {(i,): n for i, n in picture.inflight.items()}
    values["client_connections"] = {(): picture.connections}
    values["tasks"] = {(): picture.tasks}
    values["snapshot_serial"] = {(): picture.snapshot.serial}
    values["supervisor_connected"] = {(): float(picture.connected)}
    for view in picture.snapshot.instances:
        place = (view.model, view.name)
        values["instance_slots"][place] = view.slots
        values["instance_context_tokens"][place] = view.ctx_tokens
        if view.name in picture.reserved_tokens:
            values["instance_reserved_tokens"][place] = picture.reserved_tokens[view.name]
        for device, size in view.planned_bytes.items():
            values["instance_memory_planned_bytes"][(*place, device)] = size
        for device, size in view.used_bytes.items():
            values["instance_memory_used_bytes"][(*place, device)] = size
        if view.load_progress is not None:
            values["instance_load_progress"][place] = view.load_progress
        for state in State:
            values["instance_state"][(*place, state.value)] = float(view.state is state)
        values["build_info"][(picture.version, *place, view.build)] = 1
    for name, (about, labels) in GAUGES.items():
        family = GaugeMetricFamily(PREFIX + name, about, labels=labels)
        for key, value in values[name].items():
            family.add_metric(key, value)
        yield family
