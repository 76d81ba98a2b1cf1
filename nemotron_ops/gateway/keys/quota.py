"""Enforces the limits of each key: concurrency, tokens per day, and token buckets for rates. Pure.

A bucket fills at the allowed rate and holds one minute's worth. An answer's tokens are known only at its end, so a
bucket of tokens may go below zero; further requests are then refused until it is positive again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.keys.key_usage import Table, Usage, between, together
from nemotron_ops.gateway.keys.ring import Key

MINUTE_S = 60.0
DAY_S = 86400


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float

    def fill(self, per_minute: int, now: float) -> None:
        self.level = min(float(per_minute), self.level + (now - self.at) * per_minute / MINUTE_S)
        self.at = now


@dataclass
class Quotas:
    """The usage and the limits of all keys."""

    usage: dict[str, Usage] = field(default_factory=dict)
    _saved: dict[str, Usage] = field(default_factory=dict)  # the part that the file had
    _running: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    _requests: dict[str, _Bucket] = field(default_factory=dict)
    _tokens: dict[str, _Bucket] = field(default_factory=dict)

    def enter(self, key: Key, *, now: float, wall: float) -> None:
        """Count a request of `key` as running. Raises Refusal (429) if a limit is reached."""
        if key.concurrent or key.tokens_per_day or key.tokens_per_minute or key.requests_per_minute:
            self.check(key, now=now, wall=wall)
            if key.requests_per_minute:
                self._bucket(self._requests, key.id, key.requests_per_minute, now).level -= 1
        self._running[key.id] += 1

    def check(self, key: Key, *, now: float, wall: float) -> None:
        """Raises Refusal (429) if a limit of `key` is reached; nothing is counted."""
        if key.concurrent and self._running[key.id] >= key.concurrent:
            raise _limit("concurrent_requests", f"{key.concurrent} requests at once", 1.0)
        if key.tokens_per_day and self._today(key.id, wall).day_tokens >= key.tokens_per_day:
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

    def leave(self, key: Key) -> None:
        """A running request of `key` is over."""
        self._running[key.id] -= 1

    def used(self, key: Key, prompt_tokens: int, completion_tokens: int, *, now: float, wall: float) -> None:
        """Charge the tokens of a finished request to `key`."""
        total = prompt_tokens + completion_tokens
        used = self._today(key.id, wall)
        used.requests += 1
        used.day_requests += 1
        used.prompt_tokens += prompt_tokens
        used.completion_tokens += completion_tokens
        used.day_tokens += total
        if key.tokens_per_minute:
            self._bucket(self._tokens, key.id, key.tokens_per_minute, now).level -= total

    @classmethod
    def go_on(cls, usage: dict[str, Usage]) -> Quotas:
        """Quotas that begin with the usage in a file."""
        return cls(usage=usage, _saved=together(usage, {}))

    @property
    def known(self) -> Table:
        """The content of the file when it was last written."""
        return self._saved

    def unsaved(self) -> dict[str, Usage]:
        """The usage counted here since then."""
        return between(self.usage, self._saved)

    def saved(self, part: Table, now: Table) -> None:
        """`part` of the usage counted here was added to the file, whose content is `now`."""
        since = between(self.unsaved(), part)
        self._saved = together(now, {})
        self.usage = together(now, since)

    def _today(self, key_id: str, wall: float) -> Usage:
        used = self.usage.get(key_id)
        if used is None:
            used = self.usage[key_id] = Usage()
        day = int(wall // DAY_S)
        if used.day != day:
            used.day, used.day_requests, used.day_tokens = day, 0, 0
        return used

    def _bucket(self, buckets: dict[str, _Bucket], key_id: str, per_minute: int, now: float) -> _Bucket:
        bucket = buckets.get(key_id)
        if bucket is None:
            bucket = buckets[key_id] = _Bucket(float(per_minute), now)
        bucket.fill(per_minute, now)
        return bucket


def _limit(code: str, what: str, wait_s: float) -> Refusal:
    message = f"this API key is limited to {what}"
    return Refusal(status=429, code=code, message=message, retry_after_s=max(1.0, wait_s))
