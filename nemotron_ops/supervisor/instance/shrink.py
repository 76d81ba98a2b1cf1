"""Halves a context that was not asked for, after a death for lack of memory. Pure."""

from __future__ import annotations

from collections.abc import Sequence

FLAG = "--ctx-size"
LEAST_TOKENS = 2048


def ctx_tokens(argv: Sequence[str]) -> int | None:
    """The context of a llama-server command line, in tokens over all slots."""
    words = list(argv)
    if FLAG not in words[:-1]:
        return None
    value = words[words.index(FLAG) + 1]
    return int(value) if value.isdigit() else None


def shrunk(argv: Sequence[str], times: int) -> tuple[str, ...]:
    """`argv` with its context halved `times` times, but not below LEAST_TOKENS."""
    tokens = ctx_tokens(argv)
    if tokens is None or times == 0:
        return tuple(argv)
    at = list(argv).index(FLAG) + 1
    return (*argv[:at], str(max(min(tokens, LEAST_TOKENS), tokens >> times)), *argv[at + 1 :])


def can_shrink(argv: Sequence[str], times: int) -> bool:
    """Whether halving once more changes anything."""
    return shrunk(argv, times) != shrunk(argv, times + 1)
