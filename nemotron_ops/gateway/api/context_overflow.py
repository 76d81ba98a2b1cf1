"""A prompt that is larger than the context, in the words of each API on which clients act. Pure.

Coding agents compact the conversation when they read these words, and are stuck when they read others: Anthropic's
begin with "prompt is too long: N tokens > M maximum", OpenAI's error has the code `context_length_exceeded`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

CODE = "context_length_exceeded"
KIND = b"exceed_context_size_error"  # llama-server's type of it


def words(prompt_tokens: int, ctx_tokens: int) -> str:
    """OpenAI's words."""
    return (
        f"This model's maximum context length is {ctx_tokens} tokens. However, your messages resulted in "
        f"{prompt_tokens} tokens. Please reduce the length of the messages."
    )


def anthropic_words(detail: Mapping[str, Any]) -> str:
    """Anthropic's words."""
    return f"prompt is too long: {detail['n_prompt_tokens']} tokens > {detail['n_ctx']} maximum"


def detail(prompt_tokens: int, ctx_tokens: int) -> dict[str, int]:
    """The two numbers, under llama-server's names."""
    return {"n_prompt_tokens": prompt_tokens, "n_ctx": ctx_tokens}


def overflow_in(body: bytes) -> tuple[int, int] | None:
    """The prompt's tokens and the context's, from llama-server's error; None if it is another error."""
    if body.find(KIND) < 0:
        return None
    try:
        error = msgspec.json.decode(body)["error"]
        return int(error["n_prompt_tokens"]), int(error["n_ctx"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return None
