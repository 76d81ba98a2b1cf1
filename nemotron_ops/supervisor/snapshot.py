"""What the supervisor tells the gateway: an immutable picture of all instances. Pure.

The gateway connects to the control socket, writes `{"verb": "follow"}` and a newline, and reads one JSON object
per line, each `{"snapshot": …}` as made by `to_json` here. It keeps the last one while the supervisor is away. On the
same connection the gateway writes lines `{"inflight": {instance: requests}}` whenever the counts changed (at most ten
times a second), so that the supervisor knows when an instance has drained, and `{"inflight": …, "seen": serial}` after
each snapshot: from there on it gives an instance that takes no requests none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """The state of an instance. `wanted` is a field of its own."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    KILLING = "killing"
    BACKOFF = "backoff"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """One public model: what clients may call it, and how requests for it are treated.

    `names` are all names that resolve to it (recipe name, alias), the first being the one shown in `/v1/models`. Keys
    may be bound to these, and not to `aliases`.
    `profiles` maps a profile's name to request fields (`temperature`, `top_p`, `max_tokens` …) that are filled in
    where a client left them out. `adapters` maps the name of each LoRA adapter to its scale, in llama-server's order.
    `adapter` is empty, but for the view of this model with one of them, as the gateway makes it.
    """

    name: str
    names: tuple[str, ...]
    aliases: tuple[str, ...] = ()  # further names of the recipe; with * and ? in them, they are patterns
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    adapters: Mapping[str, float] = field(default_factory=dict)
    adapter: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    capped: Mapping[str, float] = field(default_factory=dict)
    queue_length: int = 256
    queue_wait_s: float = 600.0
    lost_in_thought: str = "report"
    heal_tool_calls: str = "safe"
    reask_tool_calls: int = 0
    on_demand: bool = False


@dataclass(frozen=True, kw_only=True)
class InstanceView:
    """One llama-server. `model` is the ModelView's name; only READY and not `draining` may take traffic.

    `cut` asks the gateway to close upstream connections of this instance now. `api_key_file` holds the key that
    llama-server expects (mode 0600). `load_progress` is 0..1 while loading, or None. `reason` explains a BACKOFF
    or FAILED in one line.
    """

    name: str
    model: str
    state: State
    socket: str
    api_key_file: str
    slots: int = 1
    ctx_tokens: int = 0  # that one slot may use
    kv_unified: bool = False  # the slots share these tokens; else each slot has as many
    draining: bool = False
    cut: bool = False
    pid: int | None = None
    restarts: int = 0
    restart_reasons: Mapping[str, int] = field(default_factory=dict)  # cause of death, "asked", "wedged" -> number
    load_progress: float | None = None
    reason: str = ""
    build: str = ""
    planned_bytes: Mapping[str, int] = field(default_factory=dict)  # device name -> planned
    used_bytes: Mapping[str, int] = field(default_factory=dict)  # device name -> held by the process, as last seen


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything the gateway routes by. `serial` grows by one with every change."""

    serial: int = 0
    models: tuple[ModelView, ...] = ()
    instances: tuple[InstanceView, ...] = ()
    stopping: bool = False
    default_model: str = ""


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """`snapshot` as plain JSON values."""
    return asdict(snapshot)


def from_json(value: Mapping[str, Any]) -> Snapshot:
    """The Snapshot in `value`. Unknown keys are ignored, so that two versions can talk during an upgrade."""
    return Snapshot(
        serial=int(value.get("serial", 0)),
        models=tuple(_model(m) for m in value.get("models", ())),
        instances=tuple(_instance(i) for i in value.get("instances", ())),
        stopping=bool(value.get("stopping", False)),
        default_model=str(value.get("default_model", "")),
    )


def _model(value: Mapping[str, Any]) -> ModelView:
    known = {k: v for k, v in value.items() if k in ModelView.__dataclass_fields__}
    return ModelView(**{**known, "names": tuple(value["names"]), "aliases": tuple(value.get("aliases", ()))})


def _instance(value: Mapping[str, Any]) -> InstanceView:
    known = {k: v for k, v in value.items() if k in InstanceView.__dataclass_fields__}
    return InstanceView(**{**known, "state": State(value["state"])})
