"""Sampling of a model that no recipe knows: from its header, then its base model's generation_config.json. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nemotron_ops.recipes.resolve import SAMPLING, Plan, Setting

GGUF = "general.sampling."  # llama.cpp's gguf-py writes these keys; llama-server takes them as defaults
FILE = "generation_config.json"
NAMES = {"temp": "temperature"}  # as the file spells them, where that differs
LARGEST = {"temp": 10.0, "top_p": 1.0, "top_k": 1_000_000, "min_p": 1.0}


def is_open(plan: Plan) -> bool:
    """Whether the recipe leaves sampling to the model: it has no profile, and not all values were given."""
    return not plan.recipe.profiles and any(plan.value(key) is None for key in SAMPLING)


def of_header(values: Mapping[str, Any]) -> dict[str, float]:
    """Sampling that a GGUF header states, by field of `schema.Server`."""
    return {key: n for key in SAMPLING if (n := _number(key, values.get(GGUF + key))) is not None}


def of_generation_config(text: str) -> dict[str, float]:
    """Sampling that a generation_config.json states; none where it is no such file, or switches sampling off."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(config, dict) or config.get("do_sample") is False:
        return {}
    found = {key: _number(key, config.get(NAMES.get(key, key))) for key in SAMPLING}
    return {key: n for key, n in found.items() if n is not None}


def with_sampling(plan: Plan, values: Mapping[str, float], source: str) -> Plan:
    """`plan` with the `values` that it does not have yet."""
    return plan.with_settings({k: Setting(value=v, source=source) for k, v in values.items() if plan.value(k) is None})


def _number(key: str, value: Any) -> float | None:
    """A value that llama-server takes for `key`; a float of the header is a short one, 0.95 and not 0.9499999."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST[key]:
        return None
    return int(value) if key == "top_k" else round(float(value), 6)
