"""A new process answers a few prompts before it gets traffic. HTTP to the engine.

Always: one short answer with at least one token. Compared with the process it replaces (`upgrade`): reasoning is
still split from the answer, a tool is still called, and tokens still come at least half as fast. Speed is measured
up to `SPEED_ROUNDS` times in turn, best against best, because a busy machine slows either one down at any moment.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nemotron_ops.errors import EngineError

if TYPE_CHECKING:
    from nemotron_ops.supervisor.keeper import Keeper

SPEED_FLOOR = 0.5
ATTEMPTS = 3
SPEED_ROUNDS = 6
TIMEOUT_S = 300.0
WRONG = (EngineError, OSError, KeyError, IndexError, TypeError)  # no answer, or one that is not shaped like one
QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris? Use the tool."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a process did with the canary prompts."""

    tokens: int
    reasoning: bool = False
    tool_call: bool = False
    tokens_per_s: float = 0.0


async def judge(new: Keeper, old: Keeper | None) -> str:
    """Why `new` must not take traffic; empty if it may. `old` is what it is compared with, if anything.

    Speed is noisy: what is too slow is measured again before it counts.
    """
    reference = await _seen(old, thorough=True) if old is not None else None
    if isinstance(reference, str):
        reference = None  # the old one is worse than no reference
    found = ["it was not asked"]
    for _ in range(ATTEMPTS):
        seen = await _seen(new, thorough=old is not None)
        if isinstance(seen, str):
            return f"canary: {seen}"
        found = failures(seen, reference)
        if not found:
            return ""
    return "; ".join(f"canary: {f}" for f in found)


async def _seen(k: Keeper, *, thorough: bool) -> Observed | str:
    """What `k` does with the prompts, or why that cannot be said."""
    try:
        return await observe(k, thorough=thorough)
    except (EngineError, OSError, KeyError, IndexError, TypeError) as exc:
        return str(exc)


def failures(new: Observed, old: Observed | None) -> list[str]:
    """What `new` does not do, or no longer does."""
    found = [] if new.tokens > 0 else ["it made no token"]
    if old is None:
        return found
    if old.reasoning and not new.reasoning:
        found.append("reasoning is no longer split from the answer")
    if old.tool_call and not new.tool_call:
        found.append("it no longer calls tools")
    if _too_slow(new, old):
        found.append(f"{new.tokens_per_s:.1f} tokens/s, where the old one makes {old.tokens_per_s:.1f}")
    return found


async def observe(k: Keeper, *, thorough: bool) -> Observed:
    began = time.monotonic()
    answer = await k.client.chat(QUESTION, max_tokens=64 if thorough else 8, temperature=0, timeout_s=TIMEOUT_S)
    took_s = max(1e-6, time.monotonic() - began)
    tokens = int(answer["usage"]["completion_tokens"])
    if not thorough:
        return Observed(tokens=tokens)
    asked = await k.client.chat(WEATHER, tools=[TOOL], max_tokens=256, temperature=0, timeout_s=TIMEOUT_S)
    speed = float(answer.get("timings", {}).get("predicted_per_second") or tokens / took_s)
    return Observed(
        tokens=tokens,
        reasoning=bool(_message(answer).get("reasoning_content")),
        tool_call=bool(_message(asked).get("tool_calls")),
        tokens_per_s=speed,
    )


def _message(answer: dict[str, Any]) -> dict[str, Any]:
    return dict(answer["choices"][0]["message"])
