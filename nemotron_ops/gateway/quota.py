"""How much each key has used, and whether it may use more. Pure.

Rates are buckets that fill at the allowed rate and hold one minute's worth. Tokens are known only when an answer is
over, so that a token bucket may go below zero; the next request then waits until it is full enough again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nemotron_ops.gateway.keys import Key
from nemotron_ops.gateway.replies import Refusal

MINUTE_S = 60.0
DAY_S = 86400


@dataclass(slots=True)
class Usage:
    """What one key has used. `day` is the number of days since 1970 (UTC)."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    day: int = 0
    day_requests: int = 0
    day_tokens: int = 0


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float

    def fill(self, per_minute: int, now: float) -> None:
        self.level = min(float(per_minute), self.level + (now - self.at) * per_minute / MINUTE_S)
        self.at = now


@dataclass
class Quotas:
    """The use of all keys since `usage` was begun."""

    usage: dict[str, Usage] = field(default_factory=dict)
    changed: bool = False
    _running: dict[str, int] = field(default_factory=dict)
    _requests: dict[str, _Bucket] = field(default_factory=dict)
    _tokens: dict[str, _Bucket] = field(default_factory=dict)

    def enter(self, key: Key, *, now: float, wall: float) -> None:
        """Count a request of `key` as running. Raises Refusal (429) if one of its limits is reached."""
        used = self._today(key.id, wall)
        if key.concurrent and self._running.get(key.id, 0) >= key.concurrent:
            raise _limit("concurrent_requests", f"{key.concurrent} requests at once", 1.0)
        if key.tokens_per_day and used.day_tokens >= key.tokens_per_day:
            raise _limit("tokens_per_day", f"{key.tokens_per_day} tokens a day", DAY_S - wall % DAY_S)
        if key.tokens_per_minute:
            bucket = self._bucket(self._tokens, key.id, key.tokens_per_minute, now)
            if bucket.level <= 0:
                wait = (1 - bucket.level) * MINUTE_S / key.tokens_per_minute
                raise _limit("tokens_per_minute", f"{key.tokens_per_minute} tokens a minute", wait)
        if key.requests_per_minute:
            bucket = self._bucket(self._requests, key.id, key.requests_per_minute, now)
            if bucket.level < 1:
                wait = (1 - bucket.level) * MINUTE_S / key.requests_per_minute
                raise _limit("requests_per_minute", f"{key.requests_per_minute} requests a minute", wait)
            bucket.level -= 1
        self._running[key.id] = self._running.get(key.id, 0) + 1
        used.requests += 1
        used.day_requests += 1
        self.changed = True

    def leave(self, key: Key, *, prompt_tokens: int, completion_tokens: int, now: float, wall: float) -> None:
        """A request that had entered is over, having used so many tokens."""
        left = self._running.get(key.id, 0) - 1
        if left > 0:
            self._running[key.id] = left
        else:
            self._running.pop(key.id, None)
        total = prompt_tokens + completion_tokens
        if not total:
            return
        used = self._today(key.id, wall)
        used.prompt_tokens += prompt_tokens
        used.completion_tokens += completion_tokens
        used.day_tokens += total
        self.changed = True
        if key.tokens_per_minute:
            self._bucket(self._tokens, key.id, key.tokens_per_minute, now).level -= total

    def _today(self, key_id: str, wall: float) -> Usage:
        used = self.usage.setdefault(key_id, Usage())
        day = int(wall // DAY_S)
        if used.day != day:
            used.day, used.day_requests, used.day_tokens = day, 0, 0
        return used

    def _bucket(self, buckets: dict[str, _Bucket], key_id: str, per_minute: int, now: float) -> _Bucket:
        bucket = buckets.setdefault(key_id, _Bucket(float(per_minute), now))
        bucket.fill(per_minute, now)
        return bucket


def _limit(code: str, what: str, wait_s: float) -> Refusal:
    message = f"this API key is limited to {what}"
    return Refusal(status=429, code=code, message=message, retry_after_s=max(1.0, wait_s))


def to_json(quotas: Quotas) -> dict[str, Any]:
    """The use of all keys as JSON values."""
    return {"usage": {key: asdict(used) for key, used in quotas.usage.items()}}


def from_json(value: Any) -> Quotas:
    """Quotas that go on from what `to_json` made; what cannot be read counts as unused."""
    if not isinstance(value, Mapping) or not isinstance(value.get("usage"), Mapping):
        return Quotas()
    names = set(Usage.__dataclass_fields__)
    usage = {
        str(key): Usage(**{k: int(v) for k, v in used.items() if k in names and isinstance(v, int)})
        for key, used in value["usage"].items()
        if isinstance(used, Mapping)
    }
    return Quotas(usage=usage)
