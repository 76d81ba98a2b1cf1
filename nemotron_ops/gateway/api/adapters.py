"""LoRA adapters as models of their own: `30b:support` is the model 30b with its adapter `support`. Pure.

Several adapters share the loaded base. Each is loaded at scale 0, and a request turns one on with the engine's field
`lora`, which is taken from no client. A key that is bound to `30b` may use the base; for an adapter it needs
`30b:support`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nemotron_ops.gateway.api.aliases import exact
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.supervisor.snapshot import ModelView

FIELD = "lora"  # of llama-server: [{"id": 0, "scale": 1.0}]; adapters that it does not name have the scale 0
HONOURED = frozenset({Api.CHAT, Api.COMPLETION, Api.NATIVE, Api.RESPONSES})


def with_adapter(model: ModelView, name: str) -> ModelView:
    """`model` with its adapter `name`: other public names, and a fixed field that turns the adapter on."""
    number = list(model.adapters).index(name)
    names = dict.fromkeys(f"{n}:{name}" for n in (model.name, *model.names, *exact(model.aliases)))
    fixed = {**model.fixed, FIELD: [{"id": number, "scale": model.adapters[name]}]}
    return replace(model, names=tuple(names), aliases=(), profiles={}, adapters={}, adapter=name, fixed=fixed)


def adapted(model: ModelView) -> Iterator[ModelView]:
    """`model` with each of its adapters."""
    return (with_adapter(model, name) for name in model.adapters)


def check_honoured(api: Api) -> None:
    """Raises Refusal where llama-server would answer a request of `api` as the base (seen at v0.5.0)."""
    if api in HONOURED:
        return
    where = "/v1/messages" if api is Api.MESSAGES else "this route"
    message = f"llama-server does not apply adapters on {where}; use /v1/chat/completions or /v1/responses"
    raise Refusal(status=400, code="adapter_not_honoured", message=message)
