"""The bodies of `/v1/models` and `/health`, from a snapshot. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from nemotron_ops.gateway.api.adapters import adapted
from nemotron_ops.gateway.api.aliases import exact
from nemotron_ops.supervisor.snapshot import ModelView, Snapshot, State


def model_card(model: ModelView, snapshot: Snapshot) -> dict[str, Any]:
    """One entry of `/v1/models`."""
    instances = [i for i in snapshot.instances if i.model == model.name]
    ready = [i for i in instances if i.state is State.READY]
    progress = [i.load_progress for i in instances if i.load_progress is not None]
    state = "ready" if ready else "on_demand" if model.on_demand else _state(tuple(i.state for i in instances))
    card: dict[str, Any] = {
        "id": model.names[0],
        "object": "model",
        "created": 0,
        "owned_by": "nemotron-ops",
        "aliases": [*model.names[1:], *exact(model.aliases)],
        "profiles": [f"{model.name}:{p}" for p in model.profiles],
        "adapters": [f"{model.name}:{a}" for a in model.adapters],
        "state": state,
        "meta": {"n_ctx": max((i.ctx_tokens for i in instances), default=0)},
    }
    if model.adapter:
        card["parent"] = model.name
    if not ready and progress:
        card["load_progress"] = max(progress)
    return card


def _state(states: tuple[State, ...]) -> str:
    for state in (State.STARTING, State.BACKOFF, State.STOPPING, State.KILLING, State.FAILED):
        if state in states:
            return "loading" if state in (State.STARTING, State.BACKOFF) else state.value
    return State.STOPPED.value


def models_body(snapshot: Snapshot, shown: Callable[[ModelView], bool]) -> bytes:
    """`/v1/models`, with the models that are `shown`."""
    views = [view for m in snapshot.models for view in (m, *adapted(m))]
    cards = [card for view in views if shown(view) for card in _cards(view, snapshot)]
    return msgspec.json.encode({"object": "list", "data": cards})


def _cards(model: ModelView, snapshot: Snapshot) -> list[dict[str, Any]]:
    """The model's own entry, and one for each alias of its recipe: some clients ask only for names in the list."""
    card = model_card(model, snapshot)
    return [card, *({**card, "id": alias} for alias in exact(model.aliases))]


def health(snapshot: Snapshot, shown: Callable[[ModelView], bool]) -> tuple[int, bytes]:
    """Status and body of `/health`: 503 until a model can answer, as llama-server's; so also while none is served.

    Only `shown` models are named.
    """
    found = {m.names[0]: model_card(m, snapshot)["state"] for m in snapshot.models}
    states = {m.names[0]: found[m.names[0]] for m in snapshot.models if shown(m)}
    if snapshot.stopping:
        error = {"message": "Shutting down", "type": "unavailable_error", "code": 503}
        return 503, msgspec.json.encode({"error": error, "models": states})
    if any(s in ("ready", "on_demand") for s in found.values()):
        return 200, msgspec.json.encode({"status": "ok", "models": states})
    message = "Loading model" if snapshot.models else "No model is served"
    error = {"message": message, "type": "unavailable_error", "code": 503}
    return 503, msgspec.json.encode({"error": error, "models": states})
