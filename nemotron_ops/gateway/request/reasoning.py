"""Translates reasoning switches and budgets of other servers' APIs into llama-server's fields. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.request import fields as field_rules
from nemotron_ops.gateway.request.json_fields import Fields, given, put, value_of

# Other servers' fields that switch reasoning or set its budget; unknown to llama-server.
CLIENT_REASONING = frozenset({"reasoning", "thinking", "enable_thinking", "thinking_budget", "reasoning_budget"})
_DECIDING = frozenset({"reasoning_effort", "reasoning_budget_tokens", "thinking_budget_tokens", "thinking"})


def decides_reasoning(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether the client itself switches thinking or sets its budget."""
    return any(given(fields, name) for name in _DECIDING) or "enable_thinking" in template_kwargs(fields)


def map_reasoning(api: Api, fields: Fields) -> None:
    """Replace other servers' reasoning fields by llama-server's."""
    if not (CLIENT_REASONING & fields.keys()):
        return
    on, budget = _requested(fields)
    known = field_rules.allowed(api)
    if "reasoning" not in known and "reasoning_effort" in known and not given(fields, "reasoning_effort"):
        wish = value_of(fields, "reasoning")
        if isinstance(wish, dict) and isinstance(effort := wish.get("effort"), str) and effort != "none":
            put(fields, "reasoning_effort", effort)
    for name in CLIENT_REASONING & fields.keys():
        if name not in known:
            del fields[name]
    if on is not None:
        set_thinking(api, fields, on=on)
    if budget is not None and on is not False:
        set_budget(api, fields, budget)


def _requested(fields: Mapping[str, msgspec.Raw]) -> tuple[bool | None, int | None]:
    """Thinking on or off, and its budget in tokens, from the client's fields; None if they don't set it."""
    on: bool | None = None
    budget: int | None = None
    if isinstance(flag := value_of(fields, "enable_thinking"), bool):
        on = flag
    for name in ("thinking_budget", "reasoning_budget"):
        if isinstance(number := value_of(fields, name), int):
            budget = number
    wish = value_of(fields, "reasoning")
    if isinstance(wish, dict):
        if wish.get("effort") == "none" or wish.get("enabled") is False:
            on = False
        elif wish.get("enabled") is True:
            on = True
        if isinstance(number := wish.get("max_tokens"), int):
            budget = number
    wish = value_of(fields, "thinking")
    if isinstance(wish, dict):
        kind = wish.get("type")
        on = False if kind == "disabled" else True if kind in ("enabled", "adaptive") else on
        if isinstance(number := wish.get("budget_tokens"), int):
            budget = number
    return on, budget


def set_thinking(api: Api, fields: Fields, *, on: bool) -> None:
    """Switch the model's thinking on or off."""
    fields.pop("reasoning_effort", None) if not on else None
    add_template_kwargs(api, fields, {**template_kwargs(fields), "enable_thinking": on})


def set_budget(api: Api, fields: Fields, tokens: int) -> None:
    """Set the budget of the model's thinking."""
    if api is Api.MESSAGES:
        put(fields, "thinking", {"type": "enabled", "budget_tokens": tokens})
    elif "reasoning_budget_tokens" in field_rules.allowed(api):
        fields.pop("thinking_budget_tokens", None)
        put(fields, "reasoning_budget_tokens", tokens)


def add_template_kwargs(api: Api, fields: Fields, kwargs: Mapping[str, Any]) -> None:
    """Set `chat_template_kwargs` where the API has it."""
    if "chat_template_kwargs" in field_rules.allowed(api):
        put(fields, "chat_template_kwargs", dict(kwargs))


def template_kwargs(fields: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    """The client's `chat_template_kwargs`, empty if there are none."""
    value = value_of(fields, "chat_template_kwargs")
    return value if isinstance(value, dict) else {}
