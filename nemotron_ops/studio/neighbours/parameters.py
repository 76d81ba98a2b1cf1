"""The parameters that hold where nobody sets any: each value with its source. Pure.

`nemotron-ops recipes show --resolved` knows the recipe's layers, the wish the options of the command line, and the
gateway fills in the longest answer. What none of them sets is llama-server's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FIELDS = {  # of a request -> of a recipe
    "temperature": "temp",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "thinking_budget": "reasoning_budget",
    "seed": "seed",
}
NOT_THINKING = "tools"  # the profile for answers without thinking: the guide's 0.6 and 0.95


@dataclass(frozen=True, kw_only=True)
class Wished:
    """What a model was started as: the recipe or repository, the profile, the options of the command line.

    `defaults` are the request fields that the gateway fills in.
    """

    target: str = ""
    profile: str = ""
    flags: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


def asked_model(model: str, thinking: bool | None, cards: Sequence[Mapping[str, Any]]) -> str:
    """The model's name to ask for: without thinking, its profile for that, unless a profile or adapter was chosen.

    `cards` are the entries of `/v1/models`.
    """
    if thinking is not False:
        return model
    named = [c for c in cards if model in (c.get("id"), *c.get("aliases", ()))] if model else _only(cards)
    profiles = named[0].get("profiles", ()) if named else ()
    return next((p for p in profiles if str(p).endswith(f":{NOT_THINKING}")), model)


def _only(cards: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The card of the only model; none where there are several."""
    found = {tuple(c.get("profiles", ())): c for c in cards if "parent" not in c}
    return list(found.values()) if len(found) == 1 else []


def wished(model: str, status: Mapping[str, Any]) -> Wished:
    """What `model` was started as."""
    base, _, word = model.partition(":")
    models = status.get("models", ())
    known = next((m for m in models if not model or base in (m["name"], *m["names"]) or model in m["names"]), None)
    if known is None:
        return Wished(target=base)
    profile = word if word and model not in known["names"] and word not in known.get("adapters", ()) else ""
    wishes = (w for w in status.get("wish") or () if known["name"] in (w.get("name"), w.get("target")))
    found: Mapping[str, Any] = next(wishes, {})
    return Wished(
        target=found.get("target") or known["name"], profile=profile or found.get("profile") or "",
        flags=found.get("flags") or {}, defaults=known.get("defaults") or {},
    )  # fmt: skip


def parameters(resolved: Mapping[str, Any], started: Wished) -> dict[str, Any]:
    """Request field -> {"value", "source"}, for the fields that something sets.

    `resolved` are the settings of `recipes show --resolved --json`.
    """
    found: dict[str, Any] = {}
    for name, key in FIELDS.items():
        if started.flags.get(key) is not None:
            found[name] = {"value": started.flags[key], "source": f"--{key.replace('_', '-')}"}
        elif (setting := resolved.get(key)) and setting.get("value") is not None:
            found[name] = {"value": setting["value"], "source": setting.get("source", "")}
    if started.defaults.get("max_tokens"):
        found["max_tokens"] = {"value": started.defaults["max_tokens"], "source": "[requests]"}
    return found
