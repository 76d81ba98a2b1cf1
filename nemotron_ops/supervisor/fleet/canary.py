"""Tests a new process with a few prompts before it gets traffic. HTTP to the engine.

Always: one short answer with at least one token. Compared with the process it replaces (`upgrade`): reasoning is
still split from the answer, a tool is still called, and the speed is at least half of the old one. Speed is measured
up to `SPEED_ROUNDS` times in turn, best against best, because other load slows either process at any moment.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nemotron_ops.errors import EngineError

if TYPE_CHECKING:
    from nemotron_ops.supervisor.instance.keeper import Keeper

SPEED_FLOOR = 0.5
SPEED_ROUNDS = 6
TIMEOUT_S = 300.0
WRONG = (EngineError, OSError, KeyError, IndexError, TypeError)  # no answer, or one of another shape
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
    """The answers of one process to the canary prompts."""

    tokens: int
    reasoning: bool = False
    tool_call: bool = False
    tokens_per_s: float = 0.0


async def judge(new: Keeper, old: Keeper | None) -> str:
    """Why `new` must not take traffic; empty if it may. `old` is the process to compare it with, if any."""
    reference: Observed | None = None
    try:
        seen = await observe(new, thorough=old is not None)
        if old is not None and (reference := await _reference(old)) is not None:
            seen, reference = await _race(new, old, seen, reference)
    except WRONG as exc:
        return f"canary: {exc}"
    return "; ".join(f"canary: {f}" for f in failures(seen, reference))


async def _reference(old: Keeper) -> Observed | None:
    """The answers of the old process; None if it fails, so that there is nothing to compare with."""
    try:
        return await observe(old, thorough=True)
    except WRONG:
        return None


async def _race(new: Keeper, old: Keeper, seen: Observed, reference: Observed) -> tuple[Observed, Observed]:
    """Measures both in turn while the new one is too slow; returns the best speed of each."""
    for _ in range(SPEED_ROUNDS - 1):
        if not _too_slow(seen, reference):
            break
        again, old_again = await observe(new, thorough=True), await _reference(old) or reference
        seen = replace(seen, tokens_per_s=max(seen.tokens_per_s, again.tokens_per_s))
        reference = replace(reference, tokens_per_s=max(reference.tokens_per_s, old_again.tokens_per_s))
    return seen, reference


def _too_slow(new: Observed, old: Observed) -> bool:
    return new.tokens_per_s < SPEED_FLOOR * old.tokens_per_s


def failures(new: Observed, old: Observed | None) -> list[str]:
    """What `new` does not do, or does worse than `old`."""
    found = [] if new.tokens > 0 else ["it made no token"]
    if old is None:
        return found
    if old.reasoning and not new.reasoning:
        found.append("reasoning is no longer split from the answer")
    if old.tool_call and not new.tool_call:
        found.append("it no longer calls tools")
    if _too_slow(new, old):
        found.append(f"{new.tokens_per_s:.1f} tokens/s, and the old process makes {old.tokens_per_s:.1f}")
    return found


async def observe(keeper: Keeper, *, thorough: bool) -> Observed:
    began = time.monotonic()
    answer = await keeper.client.chat(QUESTION, max_tokens=64 if thorough else 8, temperature=0, timeout_s=TIMEOUT_S)
    took_s = max(1e-6, time.monotonic() - began)
    tokens = int(answer["usage"]["completion_tokens"])
    if not thorough:
        return Observed(tokens=tokens)
    asked = await keeper.client.chat(WEATHER, tools=[TOOL], max_tokens=256, temperature=0, timeout_s=TIMEOUT_S)
    speed = float(answer.get("timings", {}).get("predicted_per_second") or tokens / took_s)
    return Observed(
        tokens=tokens,
        reasoning=bool(_message(answer).get("reasoning_content")),
        tool_call=bool(_message(asked).get("tool_calls")),
        tokens_per_s=speed,
    )


def _message(answer: dict[str, Any]) -> dict[str, Any]:
    return dict(answer["choices"][0]["message"])
