"""Predicts how many tokens of a shared KV cache a request takes. Pure.

With a unified cache the slots of a llama-server share its context. When that is full, llama-server first drops idle
slots and then fails every running request with "Context size has been exceeded." (tools/server/server-context.cpp,
v0.5.0), so a request waits until its prompt and its answer fit beside the running ones.

A prompt's tokens are estimated from its bytes, by the token counts of the model's earlier answers; asking the engine
to count would cost more than it saves. A request with a limit of its own gets room for all of it. One without gets what
a slot of a divided cache would have: with room for the longest possible answer, requests would run one at a time. An
answer that outgrows its reservation is counted as it grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemotron_ops.gateway.request.counts import MAX_DIGITS

PRIOR_TOKENS_PER_BYTE = 0.3  # on the safe side for text: English has about 0.22
PRIOR_BYTES = 4096.0  # the prior weighs as much as a prompt of this size
WINDOW_BYTES = float(1 << 20)  # older prompts fade beyond this
MARGIN = 1.15
TEMPLATE_TOKENS = 32  # what a chat template adds to any prompt
MEDIA_MARK = b";base64,"
MEDIA_TOKENS = 1024  # per inline image or sound: its bytes say nothing about its tokens
MEDIA_FROM_BYTES = 4096  # shorter bodies are not searched for media


@dataclass(slots=True)
class Measure:
    """Tokens per byte of a model's prompts, weighted by length."""

    tokens: float = PRIOR_TOKENS_PER_BYTE * PRIOR_BYTES
    bytes: float = PRIOR_BYTES

    def learn(self, size_bytes: int, tokens: int) -> None:
        """A prompt of `size_bytes` had `tokens`. A count that is impossible for text is ignored."""
        if size_bytes <= 0 or not 0 < tokens <= size_bytes:
            return
        fade = min(1.0, WINDOW_BYTES / (self.bytes + size_bytes))
        self.tokens = (self.tokens + tokens) * fade
        self.bytes = (self.bytes + size_bytes) * fade

    def estimate(self, size_bytes: int) -> int:
        """About how many tokens a prompt of `size_bytes` has, on the high side."""
        return TEMPLATE_TOKENS + int(size_bytes * MARGIN * self.tokens / self.bytes)


def prompt_bytes(body: bytes) -> tuple[int, int]:
    """The bytes of a request that become text tokens, and its number of inline media."""
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
    """The largest of the client's own `limits` of its answer, None if it set none.

    A limit equal to the value that the recipe fills in counts as the recipe's.
    """
    found = None
    for text in limits:
        if text.isdigit() and (limit := int(text[:MAX_DIGITS])) != filled_in:
            found = max(found or 0, limit)
    return found


def answer_tokens(limit: int | None, filled_in: int | None, *, prompt_tokens: int, share_tokens: int) -> int:
    """Tokens to reserve for the answer to a prompt of `prompt_tokens`.

    `limit` is the client's own, `filled_in` the recipe's, None for no limit. `share_tokens` is what each slot would
    have if the cache were divided.
    """
    if limit is None:
        limit = max(share_tokens - prompt_tokens, share_tokens // 4)
        if filled_in is not None:
            limit = min(limit, filled_in)
    return limit
