"""The objects of an answer of Ollama's API, from the parts of a chat answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

NS_PER_MS = 1_000_000


@dataclass(kw_only=True)
class Turn:
    """What an answer repeats of its request. `generates`: it is one of `/api/generate`."""

    generates: bool
    started: float  # Unix time in seconds
    asked: str = ""
    most_calls: int = 0  # of the answer; the API has no limit


def part(turn: Turn, now: float, *, text: str = "", thinking: str = "") -> dict[str, Any]:
    """An object with one more piece of the answer."""
    told: dict[str, Any] = {"model": turn.asked, "created_at": when(now)}
    if turn.generates:
        told["response"] = text
        if thinking:
            told["thinking"] = thinking
    else:
        told["message"] = {"role": "assistant", "content": text}
        if thinking:
            told["message"]["thinking"] = thinking
    return told | {"done": False}


def ended(told: dict[str, Any], turn: Turn, chat: Mapping[str, Any], finish: str, now: float) -> dict[str, Any]:
    """`told` as the last object: why it ended, tokens and times. `chat` holds `usage` and `timings`."""
    usage, timings = chat.get("usage") or {}, chat.get("timings") or {}
    return told | {
        "done": True,
        "done_reason": "length" if finish == "length" else "stop",
        "total_duration": max(0, round((now - turn.started) * 1e9)),
        "load_duration": 0,
        "prompt_eval_count": int(usage.get("prompt_tokens") or 0),
        "prompt_eval_duration": round(float(timings.get("prompt_ms") or 0) * NS_PER_MS),
        "eval_count": int(usage.get("completion_tokens") or 0),
        "eval_duration": round(float(timings.get("predicted_ms") or 0) * NS_PER_MS),
    }


def calls_of(calls: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
    """A chat's calls with their arguments as objects, and whether all of them are whole."""
    found: list[dict[str, Any]] = []
    for call in calls:
        function = call.get("function") or {}
        try:
            arguments = msgspec.json.decode(function.get("arguments") or "{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return found, False
        if not isinstance(arguments, dict):
            return found, False
        found.append({"function": {"name": str(function.get("name") or ""), "arguments": arguments}})
    return found, True


def whole_answer(turn: Turn, chat: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The one object for a whole chat answer. A call that was cut is left out; `done_reason` is then `length`."""
    choice = chat["choices"][0]
    message = choice.get("message") or {}
    told = part(turn, now, text=message.get("content") or "", thinking=message.get("reasoning_content") or "")
    calls, whole = calls_of(message.get("tool_calls") or ())
    if calls and not turn.generates:
        told["message"]["tool_calls"] = calls
    return ended(told, turn, chat, str(choice.get("finish_reason") or "") if whole else "length", now)


def embeddings(turn: Turn, body: bytes, now: float, *, one: bool) -> dict[str, Any]:
    """The answer of `/api/embed`, or with `one` that of `/api/embeddings`."""
    value = msgspec.json.decode(body)
    rows = [row["embedding"] for row in value["data"]]
    if one:
        return {"embedding": rows[0] if rows else []}
    count = int((value.get("usage") or {}).get("prompt_tokens") or 0)
    took = max(0, round((now - turn.started) * 1e9))
    return {
        "model": turn.asked, "embeddings": rows, "total_duration": took, "load_duration": 0, "prompt_eval_count": count,
    }  # fmt: skip


def when(now: float) -> str:
    """A time as Ollama writes it."""
    return datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z")
