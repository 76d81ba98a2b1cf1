"""Tags, ps, show and version of Ollama's API, and the refusals of what the command line does. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.supervisor.snapshot import ModelView, Snapshot, State

VERSION = "0.12.6"  # of Ollama's API whose fields are spoken here; clients compare it with what they need
LONG_AGO, LONG_FROM_NOW = "1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z"  # the gateway knows no times of files
CAPABILITIES = ["completion", "tools", "thinking"]
COMMANDS = {
    "/api/pull": "nemotron-ops add MODEL",
    "/api/delete": "nemotron-ops remove MODEL, and nemotron-ops models rm MODEL",
    "/api/create": "nemotron-ops recipes new NAME",
    "/api/copy": "nemotron-ops recipes new NAME --from RECIPE",
    "/api/push": "",
}
DETAILS = {
    "parent_model": "", "format": "gguf", "family": "nemotron_h", "families": ["nemotron_h"], "parameter_size": "",
    "quantization_level": "",
}  # fmt: skip
Shown = Callable[[ModelView], bool]


def refused(path: str) -> Refusal:
    """The Refusal of a path that changes what is served."""
    command = COMMANDS[path]
    use = f"use: {command}" if command else "nothing here publishes models"
    return Refusal(status=403, code="use_the_command_line", message=f"{path} is not done over HTTP; {use}")


def tags(snapshot: Snapshot, shown: Shown) -> dict[str, Any]:
    """`/api/tags`: the models that are `shown`."""
    return {"models": [_card(m, snapshot) | {"modified_at": LONG_AGO} for m in snapshot.models if shown(m)]}


def ps(snapshot: Snapshot, shown: Shown) -> dict[str, Any]:
    """`/api/ps`: those with an instance that is ready."""
    ready = {i.model: i.ctx_tokens for i in snapshot.instances if i.state is State.READY}
    models = [m for m in snapshot.models if shown(m) and m.name in ready]
    rows = [_card(m, snapshot) | {"expires_at": LONG_FROM_NOW, "context_length": ready[m.name]} for m in models]
    return {"models": [row | {"size_vram": row["size"]} for row in rows]}


def show(model: ModelView, snapshot: Snapshot) -> dict[str, Any]:
    """`/api/show`: one model."""
    context = max((i.ctx_tokens for i in snapshot.instances if i.model == model.name), default=0)
    info = {"general.architecture": "nemotron_h", "nemotron_h.context_length": context}
    return {
        "modified_at": LONG_AGO, "details": DETAILS, "model_info": info, "capabilities": CAPABILITIES, "template": "",
        "modelfile": "", "parameters": "", "license": "",
    }  # fmt: skip


def _card(model: ModelView, snapshot: Snapshot) -> dict[str, Any]:
    used = [sum(i.used_bytes.values()) for i in snapshot.instances if i.model == model.name]
    name = model.names[0]
    return {
        "name": name, "model": name, "size": sum(used), "digest": hashlib.sha256(name.encode()).hexdigest(),
        "details": DETAILS,
    }  # fmt: skip
