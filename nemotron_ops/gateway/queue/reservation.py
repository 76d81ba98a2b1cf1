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

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api, Kind
from nemotron_ops.gateway.request import fields as field_rules

PRIOR_TOKENS_PER_BYTE = 0.3  # on the safe side for text: English has about 0.22
PRIOR_BYTES = 4096.0  # how much of it is believed
WINDOW_BYTES = float(1 << 20)  # older prompts fade beyond this
MARGIN = 1.15
TEMPLATE_TOKENS = 32  # what a chat template adds to any prompt
MEDIA_MARK = b";base64,"
MEDIA_TOKENS = 1024  # per inline image or sound: its bytes say nothing about its tokens
MEDIA_FROM_BYTES = 4096  # smaller bodies are not searched for media
MAX_CHOICES = 64
OF_TOKENS = re.compile(rb"\[\s*[-0-9]")
DIGITS = tuple(b"%c" % digit for digit in b"-0123456789")
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


def own_limit(limits: Sequence[bytes], filled_in: Any) -> int | None:
    """The most tokens that a client wants for an answer, of all `limits` in its request; None where it does not say.

    A limit of the size that the recipe fills in is taken for the recipe's.
    """
    found = None
    for text in limits:
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


def prompts(raw: msgspec.Raw | None, most: int) -> int:
    """How many prompts or texts a field has; more than `most` count as one more.

    A list with a number in it is one prompt, of tokens (tools/server/server-common.cpp, v0.5.0).
    """
    if raw is None or memoryview(raw)[0] != ord("["):
        return 1
    text = bytes(raw)
    if OF_TOKENS.match(text):
        return 1
    if text.count(b",") > most:  # perhaps in texts: lists longer than that are not made
        first = msgspec.structs.astuple(msgspec.json.decode(text, type=_beginning_of(most + 1)))
        found: Sequence[msgspec.Raw] = [item for item in first if item is not msgspec.UNSET]
    else:
        found = msgspec.json.decode(text, type=list[msgspec.Raw])
    return 1 if any(bytes(item)[:1] in DIGITS for item in found) else max(1, len(found))


@cache
def _beginning_of(count: int) -> type[msgspec.Struct]:
    """The type of a list of which only the beginning is read."""
    items = [(f"i{n}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for n in range(count)]
    return msgspec.defstruct("Beginning", items, array_like=True)


def answers(kind: Kind, api: Api, fields: Mapping[str, msgspec.Raw]) -> int:
    """How many answers a request asks for at once. Raises Refusal for more than anybody may."""
    count, most, name = 1, field_rules.PROMPTS, "prompt"
    if kind is Kind.GENERATE:
        if api in (Api.COMPLETION, Api.NATIVE):
            count = prompts(fields.get(name), most)
        if "n" in fields:
            count *= choices(fields)
    elif kind is Kind.POOL:
        most = field_rules.INPUTS
        name = next((name for name in ("input", "content", "documents", "texts") if name in fields), "input")
        count = prompts(fields.get(name), most)
    if count > most:
        raise Refusal(status=400, code="invalid_field", message=f"{name}: at most {most} at once")
    return count


def room(limit: int | None, filled_in: int | None, *, prompt_tokens: int, share_tokens: int) -> int:
    """Tokens to keep free for an answer to a prompt of so many.

    `limit` is the client's own, `filled_in` the recipe's, None for no limit. `share_tokens` is what each slot would
    have if the cache were divided.
    """
    if limit is None:
        limit = max(share_tokens - prompt_tokens, share_tokens // 4)
        if filled_in is not None:
            limit = min(limit, filled_in)
    return limit
