"""What the ladder makes of cases in a file, one JSON object a line: for bug reports, and for judging. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemotron_ops.gateway.toolcalls.heal import Answer, Ladder, Level, ToolCall
from nemotron_ops.gateway.toolcalls.history import arguments_of
from nemotron_ops.gateway.toolcalls.offered import offered
from nemotron_ops.gateway.toolcalls.read_json import value_of


class CaseError(ValueError):
    """A line is no case; the text says why."""


def healed(case: Mapping[str, Any], level: Level) -> dict[str, Any]:
    """`{"id", "calls", "content", "finish_reason", "steps"}` of one case. Raises CaseError."""
    name = case.get("id", "")
    if "raw_history_arguments" in case:
        value, mended = arguments_of(case["raw_history_arguments"])
        return {"id": name, "arguments": value, "steps": ["repair_json"] if mended else []}
    stream = case.get("raw_stream")
    if stream is None and "raw_content" not in case and "raw_calls" not in case:
        raise CaseError("it has neither raw_content, raw_calls, raw_stream nor raw_history_arguments")
    ladder = Ladder(offered({"tools": case.get("tools"), "tool_choice": case.get("tool_choice")}), level)
    answer, reason = _of_stream(stream) if isinstance(stream, list) else _of_whole(case)
    answer.length = reason == "length"
    split = _split(answer)
    ladder.heal(answer)
    if split:
        answer.note({"index"})
    called = answer.calls and reason != "length"
    return {
        "id": name,
        "calls": [{"name": call.name, "arguments": _arguments(call.arguments)} for call in answer.calls],
        "content": answer.content,
        "finish_reason": "tool_calls" if called else reason,
        "steps": answer.steps,
        **({"reasoning": answer.reasoning} if case.get("raw_reasoning") else {}),
        **({"truncated_call": answer.truncated_call} if answer.truncated_call else {}),
    }


def _of_whole(case: Mapping[str, Any]) -> tuple[Answer, str]:
    calls = [c for c in case.get("raw_calls") or [] if isinstance(c, dict)]
    answer = Answer(
        content=str(case.get("raw_content") or ""),
        reasoning=str(case.get("raw_reasoning") or ""),
        calls=[_call(c) for c in calls],
    )
    return answer, str(case.get("engine_finish_reason") or "stop")


def _of_stream(deltas: list[Any]) -> tuple[Answer, str]:
    answer, reason = Answer(), "stop"
    for delta in (d for d in deltas if isinstance(d, dict)):
        answer.content += str(delta.get("content") or "")
        answer.reasoning += str(delta.get("reasoning_content") or "")
        reason = str(delta.get("finish_reason") or reason)
        for part in delta.get("tool_calls") or []:
            _take(answer.calls, part)
    return answer, reason


def _take(calls: list[ToolCall], part: Mapping[str, Any]) -> None:
    """A piece of a call in a stream: a new id under an index that is taken begins another call."""
    index, id = part.get("index", 0), str(part.get("id") or "")
    known = next((c for c in reversed(calls) if c.index == index), None)
    if known is None or (id and known.id and id != known.id):
        known = ToolCall("", "", id, index)
        calls.append(known)
    piece = _call(part)
    known.name += piece.name
    known.arguments += piece.arguments


def _call(value: Mapping[str, Any]) -> ToolCall:
    inner = value.get("function")
    function = inner if isinstance(inner, dict) else value
    arguments = function.get("arguments")
    return ToolCall(
        str(function.get("name") or ""),
        arguments if isinstance(arguments, str) else "",
        str(value.get("id") or ""),
        value.get("index") if isinstance(value.get("index"), int) else None,
    )


def _split(answer: Answer) -> bool:
    """Whether two calls came under one index; each gets its own."""
    seen = [call.index for call in answer.calls if call.index is not None]
    for place, call in enumerate(answer.calls):
        call.index = place
    return len(set(seen)) < len(seen)


def _arguments(text: str) -> Any:
    value = value_of(text)
    return text if value is None else value
