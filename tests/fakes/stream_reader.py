"""Joins a stream the way a client does, so that interrupted and uninterrupted streams can be compared. Pure."""

from __future__ import annotations

import json
from typing import Any

IDS = ("id", "item_id", "call_id")
COUNTS = (
    "id_slot",
    "usage",
    "timings",
    "tokens_predicted",
    "tokens_evaluated",
    "tokens",
    "created",
    "created_at",
    "completed_at",
    "sequence_number",
)
OF_RESPONSE = ("id", "status", "incomplete_details", "output", "lost_in_thought")  # the rest repeats the request
TEXTS = ("content", "reasoning_content", "text", "thinking", "partial_json", "delta", "arguments")


def put_together(raw: bytes) -> list[Any]:
    """The events of a stream: adjacent pieces of text joined, ids numbered in order, counts removed."""
    names: dict[str, str] = {}
    out: list[Any] = []
    for line in raw.split(b"\n"):
        if not line.startswith(b"data: "):
            continue
        event = line[6:].decode()
        value = event if event == "[DONE]" else plain(json.loads(event), names)
        if not (out and join(out[-1], value)):
            out.append(value)
    return out


def plain(value: Any, names: dict[str, str]) -> Any:
    """The value with ids numbered and counts removed."""
    if isinstance(value, list):
        return [plain(v, names) for v in value]
    if not isinstance(value, dict):
        return value
    if value.get("object") == "response":
        value = {k: value[k] for k in OF_RESPONSE if k in value}
    numbered = {k: names.setdefault(v, str(len(names))) if k in IDS and v else v for k, v in value.items()}
    return {k: plain(v, names) for k, v in numbered.items() if k not in COUNTS}


def join(before: Any, value: Any) -> bool:
    """Append the texts of `value` to those of `before` if both are pieces of the same text; true if they are."""
    one, other = texts(before), texts(value)
    if not one or [path for path, _ in one] != [path for path, _ in other] or bare(before) != bare(value):
        return False
    for (holder, key), (_, more) in zip(places(before), other, strict=True):
        holder[key] += more
    return True


def places(value: Any) -> list[tuple[dict[str, Any], str]]:
    """The places in an event that hold pieces of text: (object, key)."""
    if isinstance(value, list):
        return [p for v in value for p in places(v)]
    if not isinstance(value, dict) or str(value.get("type", "")).endswith((".done", ".completed", ".added", "_start")):
        return []
    here = [(value, k) for k in TEXTS if isinstance(value.get(k), str)]
    return here + [p for v in value.values() for p in places(v)]


def texts(value: Any) -> list[tuple[str, str]]:
    return [(key, holder[key]) for holder, key in places(value)]


def bare(value: Any) -> Any:
    """The event with its texts emptied."""
    if isinstance(value, list):
        return [bare(v) for v in value]
    if isinstance(value, dict):
        return {k: "" if k in TEXTS and isinstance(v, str) else bare(v) for k, v in value.items()}
    return value
