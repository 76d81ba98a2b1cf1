"""Finds the instance whose cache already holds a conversation. Pure.

On hybrid models (Mamba and attention) a prompt is cheap only if it continues all of what a slot holds; a prefix that
diverges later is computed again (measured: a prompt that diverges at 300 of 1,000 tokens reuses nothing). So the table
has one entry per answered request, for its whole prompt, and a new request looks for the longest of its own prefixes
that is such a prompt. The table is bounded; the oldest entries are evicted first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import msgspec

from nemotron_ops.gateway.api.routes import Api

CAPACITY = 65536
DEPTH = 64  # prefixes that are looked up per request, the longest ones
BLOCK_CHARS = 1024  # granularity if a prompt is one text
SESSION_FIELD = "prompt_cache_key"  # OpenAI's name for it
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Affinity:
    """Whole prompts and the instance that answered them last."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self._table: OrderedDict[int, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._table)

    def find(self, prefixes: tuple[int, ...]) -> str:
        """The instance that holds the longest of `prefixes` (longest first), or an empty string."""
        for prefix in prefixes:
            if name := self._table.get(prefix):
                self._table.move_to_end(prefix)
                return name
        return ""

    def remember(self, prefixes: tuple[int, ...], instance: str) -> None:
        """`instance` is about to hold the prompt that has these `prefixes`."""
        if not prefixes:
            return
        self._table[prefixes[0]] = instance
        self._table.move_to_end(prefixes[0])
        if prefixes[-1] < 0:  # a session
            self._table[prefixes[-1]] = instance
            self._table.move_to_end(prefixes[-1])
        while len(self._table) > self.capacity:
            self._table.popitem(last=False)

    def forget(self, instance: str) -> None:
        """`instance` has lost its cache (a new process)."""
        self._table = OrderedDict((k, v) for k, v in self._table.items() if v != instance)


def prefixes(api: Api, model: str, fields: Mapping[str, msgspec.Raw], session: str) -> tuple[int, ...]:
    """Hashes of a request's prefixes, longest first; the hash of its session, which is negative, comes last."""
    seed = hash((model, api, bytes(fields.get("tools", b"")), bytes(fields.get("system", b""))))
    found = _ever_longer(seed, fields)
    found.reverse()
    name = session or bytes(fields.get(SESSION_FIELD, b"")).decode(errors="replace")
    if name:
        found = [*found[:DEPTH], -1 - abs(hash((model, name)))]
    return tuple(found[: DEPTH + 1])


def _ever_longer(seed: int, fields: Mapping[str, msgspec.Raw]) -> list[int]:
    """Hashes of ever longer prefixes; all are positive."""
    raw = bytes(fields.get("messages") or fields.get("input") or fields.get("prompt") or b"")
    if raw[:1] == b"[":
        try:
            parts = [bytes(part) for part in _list(raw)]
        except msgspec.DecodeError:
            return []
    else:
        parts = [raw[i : i + BLOCK_CHARS] for i in range(0, len(raw) - len(raw) % BLOCK_CHARS, BLOCK_CHARS)] or [raw]
    found = []
    for part in parts:
        seed = hash((seed, part))
        found.append(abs(seed))
    return found
