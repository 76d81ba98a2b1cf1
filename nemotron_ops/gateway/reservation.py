"""How many tokens of a shared KV cache a request will take. Pure.

With a unified cache the slots of a llama-server share its context. Where that runs full, llama-server first forgets
idle slots and then fails every request in progress with "Context size has been exceeded." (tools/server/
server-context.cpp, v0.5.0), so a request waits until its prompt and its answer fit beside the running ones.

A prompt's tokens are estimated from its bytes, by what the model's own answers said about earlier prompts; asking
the engine to count would cost a request more than it is worth. A client that names a limit gets room for all of it.
One that names none gets what a slot of a divided cache would have: with room for the longest possible answer, one
request at a time could run. An answer that outgrows this is counted as it grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from nemotron_ops.gateway import fields as field_rules
from nemotron_ops.gateway.routes import Api

PRIOR_TOKENS_PER_BYTE = 0.3  # on the safe side for text: English has about 0.22
PRIOR_BYTES = 4096.0  # how much of it is believed
WINDOW_BYTES = float(1 << 20)  # older prompts fade beyond this
MARGIN = 1.15
TEMPLATE_TOKENS = 32  # what a chat template adds to any prompt
MEDIA_MARK = b";base64,"
MEDIA_TOKENS = 1024  # per inline image or sound: its bytes say nothing about its tokens
MEDIA_FROM_BYTES = 4096  # smaller bodies are not searched for media
MAX_CHOICES = 64
MAX_DIGITS = 15  # of a number; Python refuses to read very long ones


@dataclass(slots=True)
class Measure:
    """Tokens per byte of a model's prompts, weighted by length."""

    tokens: float = PRIOR_TOKENS_PER_BYTE * PRIOR_BYTES
    bytes: float = PRIOR_BYTES

    def learn(self, size_bytes: int, tokens: int) -> None:
        """A prompt of `size_bytes` had `tokens`. What no text can be (an answer about something else) is ignored."""
        if size_bytes <= 0 or not 0 < tokens <= size_bytes:
            return
        fade = min(1.0, WINDOW_BYTES / (self.bytes + size_bytes))
        self.tokens = (self.tokens + tokens) * fade
        self.bytes = (self.bytes + size_bytes) * fade

    def estimate(self, size_bytes: int) -> int:
        """About how many tokens a prompt of `size_bytes` has, rather more than fewer."""
        return TEMPLATE_TOKENS + int(size_bytes * MARGIN * self.tokens / self.bytes)


def prompt_bytes(body: bytes) -> tuple[int, int]:
    """The bytes of a request that become text tokens, and how many pieces of inline media it has."""
    size, pieces = len(body), 0
    at = body.find(MEDIA_MARK) if size >= MEDIA_FROM_BYTES else -1
    while at >= 0:
        end = body.find(b'"', at)
        end = len(body) if end < 0 else end
        size -= end - at
        pieces += 1
        at = body.find(MEDIA_MARK, end)
    return size, pieces


def own_limit(api: Api, fields: Mapping[str, msgspec.Raw], filled_in: Any) -> int | None:
    """The most tokens that a client wants for an answer; None where it does not say.

    A limit of the size that the recipe fills in is taken for the recipe's.
    """
    found = None
    for name in field_rules.SPELLINGS.get(api, ()):
        raw = fields.get(name)
        if raw is None:
            continue
        text = bytes(raw)
        if text.isdigit() and (limit := int(text[:MAX_DIGITS])) != filled_in:
            found = max(found or 0, limit)
    return found


def choices(fields: Mapping[str, msgspec.Raw]) -> int:
    """How many answers are asked for at once; each has a slot and a copy of the prompt."""
    raw = fields.get("n")
    if raw is None:
        return 1
    text = bytes(raw)
    return min(MAX_CHOICES, max(1, int(text[:MAX_DIGITS]))) if text.isdigit() else 1


def needed(*, prompt_tokens: int, limit: int | None, filled_in: int | None, count: int, share_tokens: int) -> int:
    """Tokens to keep free for a request. `limit` is the client's own, `filled_in` the recipe's, None for no limit.

    `share_tokens` is what each slot would have if the cache were divided.
    """
    if limit is None:
        limit = max(share_tokens - prompt_tokens, share_tokens // 4)
        if filled_in is not None:
            limit = min(limit, filled_in)
    return count * (prompt_tokens + limit)
