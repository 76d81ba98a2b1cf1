"""Usage per key, as numbers that can be added and subtracted. Pure.

Two gateways may count at the same time (an old one drains while its successor serves). So each adds to the file what it
has counted since it last did, and takes over what the other has added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class Usage:
    """The usage of one key. `day` is the number of days since 1970 (UTC)."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    day: int = 0
    day_requests: int = 0
    day_tokens: int = 0


Table = Mapping[str, Usage]
NOTHING = Usage()


def minus(now: Usage, before: Usage) -> Usage:
    """The usage since `before`; if a new day has begun since, all of that day's."""
    same = now.day == before.day
    return Usage(
        requests=now.requests - before.requests,
        prompt_tokens=now.prompt_tokens - before.prompt_tokens,
        completion_tokens=now.completion_tokens - before.completion_tokens,
        day=now.day,
        day_requests=now.day_requests - (before.day_requests if same else 0),
        day_tokens=now.day_tokens - (before.day_tokens if same else 0),
    )


def plus(one: Usage, other: Usage) -> Usage:
    """The sum; the daily numbers are those of the later day."""
    day = max(one.day, other.day)
    today = [used for used in (one, other) if used.day == day]
    return Usage(
        requests=one.requests + other.requests,
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
        day=day,
        day_requests=sum(used.day_requests for used in today),
        day_tokens=sum(used.day_tokens for used in today),
    )


def between(now: Table, before: Table) -> dict[str, Usage]:
    """The usage of each key since `before`, without keys that were not used."""
    found = {key: minus(used, before.get(key, NOTHING)) for key, used in now.items()}
    return {k: used for k, used in found.items() if used.requests or used.prompt_tokens or used.completion_tokens}


def together(one: Table, other: Table) -> dict[str, Usage]:
    """The sum of two tables, as new objects that may be changed."""
    return {key: plus(one.get(key, NOTHING), other.get(key, NOTHING)) for key in (*one, *(other.keys() - one.keys()))}


def to_json(table: Table) -> dict[str, Any]:
    """A table as JSON values."""
    return {"usage": {key: asdict(used) for key, used in table.items()}}


def from_json(value: Any) -> dict[str, Usage]:
    """The table that `to_json` made; keys that cannot be read count as unused."""
    if not isinstance(value, Mapping) or not isinstance(value.get("usage"), Mapping):
        return {}
    names = set(Usage.__dataclass_fields__)
    return {
        str(key): Usage(**{k: int(v) for k, v in used.items() if k in names and isinstance(v, int)})
        for key, used in value["usage"].items()
        if isinstance(used, Mapping)
    }
