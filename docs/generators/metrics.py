"""The reference of metrics: names, types, labels, units and meanings, as `exposition` has them. Pure."""

from __future__ import annotations

from nemotron_ops.gateway.observe.exposition import COUNTERS, GAUGES, HISTOGRAMS, PREFIX, RESTARTS
from nemotron_ops.gateway.observe.metrics import GAP_S, LATENCY_S

LABELS: dict[str, str] = {
    "model": "name of a model in the configuration; empty where a request named none that exists",
    "instance": "name of an instance; empty where no instance had the request",
    "route": "path of a route, as in the access log; empty for an unknown path",
    "status": "HTTP status; 499 if the client disconnected before there was one",
    "cause": "[error code](api-errors.md), `client_gone` or `lost_in_thought`",
    "kind": "`prompt`, `cached` (part of `prompt`) or `completion`",
    "key": "id of an API key; `anyone` where no keys are configured",
    "result": "`hit`, `miss` or `overloaded`",
    "outcome": "`clean`, `healed`, `invalid` or `truncated`",
    "step": "a step of [healing](../explanation/tool-calls.md)",
    "reason": "`asked` (by hand or for a change), `wedged`, or the cause of a death",
    "state": "state of an [instance](lifecycle.md)",
    "device": "`host`, or a GPU as llama.cpp names it",
    "version": "version of nemotron-ops",
    "build": "id of a llama.cpp build",
}
UNITS = ("seconds", "bytes", "tokens")


def page() -> str:
    """One row per metric, and what its labels are."""
    rows = [_row(PREFIX + name + "_total", "counter", about, labels) for name, about, labels in _counters()]
    rows += [_row(PREFIX + name, "histogram", about, labels) for name, about, labels in HISTOGRAMS.values()]
    rows += [_row(PREFIX + name, "gauge", about, labels) for name, (about, labels) in GAUGES.items()]
    labels = [f"| `{name}` | {about} |" for name, about in LABELS.items()]
    parts = [
        "# Metrics",
        "`/metrics` has these in Prometheus' text format; once there are keys, it takes a key of the scope `metrics`.\n"
        "[grafana.json](../grafana.json) is a dashboard for them. Counters begin at 0 when the gateway starts;\n"
        "`instance_restarts_total` is the supervisor's and begins with that.",
        "\n".join(["| metric | type | labels | unit | meaning |", "| --- | --- | --- | --- | --- |", *rows]),
        "## Labels",
        "\n".join(["| label | value |", "| --- | --- |", *labels]),
        "## Buckets",
        "Histograms have `_bucket` (label `le`), `_sum` and `_count`. Bounds in seconds:\n\n"
        f"- `inter_token_seconds`: {_bounds(GAP_S)}\n- the others: {_bounds(LATENCY_S)}",
    ]
    return "\n\n".join(parts) + "\n"


def _counters() -> list[tuple[str, str, tuple[str, ...]]]:
    return [*COUNTERS.values(), RESTARTS]


def _row(name: str, kind: str, about: str, labels: tuple[str, ...]) -> str:
    unit = next((u for u in UNITS if u in name.split("_")), "")
    shown = ", ".join(f"`{label}`" for label in labels)
    return f"| `{name}` | {kind} | {shown} | {unit} | {about} |"


def _bounds(bounds: tuple[float, ...]) -> str:
    return ", ".join(f"{bound:g}" for bound in bounds)
