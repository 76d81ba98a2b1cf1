"""Finds the instance whose cache already holds a conversation. Pure.

On hybrid models (Mamba and attention) a prompt is cheap only if it continues all of what a slot holds; a prefix that
diverges later is computed again (measured: a prompt that diverges at 300 of 1,000 tokens reuses nothing). So the table
has one entry per answered request, for its whole prompt, and a new request looks for the longest of its own prefixes
that is such a prompt. The table is bounded; the oldest entries are evicted first.
"""

from __future__ import annotations

import contextlib
import re
from collections import OrderedDict
from collections.abc import Mapping

import msgspec

from nemotron_ops.gateway.api.routes import Api

CAPACITY = 65536
DEPTH = 64  # prefixes that are looked up per request, the longest ones
BLOCK_CHARS = 1024  # granularity if a prompt is one text
SESSION_FIELD = "prompt_cache_key"  # OpenAI's name for it
SESSION_HEADERS = (b"x-session-id", b"x-claude-code-session-id", b"session-id", b"session_id", b"x-session-affinity")
# Parts of a body that change from turn to turn, and that the model does not read.
CACHE_MARK = re.compile(
    rb',\s*"cache_control"\s*:\s*(?:\{[^{}]*\}|null)|"cache_control"\s*:\s*(?:\{[^{}]*\}|null)\s*,?\s*'
)
BILLING_LINE = re.compile(rb'x-anthropic-billing-header:[^"\\]*')
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Metadata(msgspec.Struct):
    user_id: msgspec.Raw = msgspec.Raw(b"")


_metadata = msgspec.json.Decoder(_Metadata).decode


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
    seed = hash((model, api, _read(fields.get("tools", b"")), _read(fields.get("system", b""))))
    found = _ever_longer(seed, fields)
    found.reverse()
    name = session or _session_in(fields)
    if name:
        found = [*found[:DEPTH], -1 - abs(hash((model, name)))]
    return tuple(found[: DEPTH + 1])


def session_of(headers: Mapping[bytes, bytes]) -> str:
    """The conversation's id in the headers of a client that sends one, or an empty string."""
    return next((headers[name].decode("latin-1") for name in SESSION_HEADERS if name in headers), "")


def _session_in(fields: Mapping[str, msgspec.Raw]) -> str:
    """The conversation's id in a body: OpenAI's `prompt_cache_key`, Anthropic's `metadata.user_id`."""
    name = bytes(fields.get(SESSION_FIELD, b""))
    if not name and "metadata" in fields:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            name = bytes(_metadata(fields["metadata"]).user_id)
    return name.decode(errors="replace") if name[:1] == b'"' else ""


def _read(raw: msgspec.Raw | bytes) -> bytes:
    """A part of a body without what the model does not read of it."""
    text = bytes(raw)
    if b'"cache_control"' in text:
        text = CACHE_MARK.sub(b"", text)
    return BILLING_LINE.sub(b"", text) if b"x-anthropic-billing-header:" in text else text


def _ever_longer(seed: int, fields: Mapping[str, msgspec.Raw]) -> list[int]:
    """Hashes of ever longer prefixes; all are positive."""
    raw = _read(fields.get("messages") or fields.get("input") or fields.get("prompt") or b"")
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
