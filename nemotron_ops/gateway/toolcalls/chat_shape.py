"""The ladder on whole answers: chats and messages. Pure."""

from __future__ import annotations

import secrets
import string
from typing import Any

from nemotron_ops.gateway.toolcalls.heal import Answer, Ladder, ToolCall
from nemotron_ops.gateway.toolcalls.read_json import text_of, value_of

LETTERS = string.ascii_letters + string.digits
ID_LETTERS = 32  # as llama-server's


def new_id() -> str:
    """An id for a call that was text."""
    return "".join(secrets.choice(LETTERS) for _ in range(ID_LETTERS))


def heal_chat(body: dict[str, Any], ladder: Ladder) -> Answer | None:
    """Heal a chat answer in place; None if it has not the shape of one."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return None
    answer = Answer(
        content=_text(message.get("content")),
        reasoning=_text(message.get("reasoning_content")),
        calls=[_call(c) for c in message.get("tool_calls") or [] if isinstance(c, dict)],
        length=choice.get("finish_reason") == "length",
    )
    before = (answer.content, answer.reasoning, [(c.name, c.arguments) for c in answer.calls])
    ladder.heal(answer)
    mark_invalid(body, ladder, answer)
    if before == (answer.content, answer.reasoning, [(c.name, c.arguments) for c in answer.calls]):
        return answer
    message["content"] = answer.content
    if answer.reasoning or "reasoning_content" in message:
        message["reasoning_content"] = answer.reasoning
    message.pop("tool_calls", None)
    if answer.calls:
        message["tool_calls"] = [written(call) for call in answer.calls]
        if not answer.length:
            choice["finish_reason"] = "tool_calls"
    if answer.truncated_call:
        body["truncated_tool_call"] = answer.truncated_call
    return answer


def heal_message(body: dict[str, Any], ladder: Ladder) -> Answer | None:
    """Heal an answer of the messages API in place; None if it has not the shape of one."""
    blocks = body.get("content")
    if not isinstance(blocks, list) or not all(isinstance(b, dict) for b in blocks):
        return None
    texts = [b for b in blocks if b.get("type") == "text"]
    uses = [b for b in blocks if b.get("type") == "tool_use"]
    if len(texts) > 1:
        return None
    thoughts = [b for b in blocks if b.get("type") == "thinking"]
    answer = Answer(
        content=_text(texts[0].get("text")) if texts else "",
        reasoning=_text(thoughts[0].get("thinking")) if len(thoughts) == 1 else "",
        calls=[ToolCall(str(b.get("name")), text_of(b.get("input")), str(b.get("id") or "")) for b in uses],
        length=body.get("stop_reason") == "max_tokens",
    )
    if answer.length and uses and uses[-1].get("input") == {}:
        answer.calls[-1].arguments = ""  # llama-server shows a call that it cut as one without arguments
    before = (answer.content, [(c.name, c.arguments) for c in answer.calls])
    ladder.heal(answer)
    mark_invalid(body, ladder, answer)
    if before == (answer.content, [(c.name, c.arguments) for c in answer.calls]):
        return answer
    if len(thoughts) == 1:
        thoughts[0]["thinking"] = answer.reasoning
    others = [b for b in blocks if b.get("type") not in ("text", "tool_use")]
    said = [{"type": "text", "text": answer.content}] if answer.content else []
    called = [
        {"type": "tool_use", "id": c.id or new_id(), "name": c.name, "input": value_of(c.arguments) or {}}
        for c in answer.calls
    ]
    body["content"] = [*others, *said, *called]
    if called and not answer.length:
        body["stop_reason"] = "tool_use"
    if answer.truncated_call:
        body["truncated_tool_call"] = answer.truncated_call
    return answer


def mark_invalid(value: dict[str, Any], ladder: Ladder, answer: Answer) -> None:
    """Name the wrong calls of an answer in `value`, which is the whole of it or its last event."""
    if invalid := ladder.invalid(answer):
        value["invalid_tool_calls"] = invalid


def written(call: ToolCall) -> dict[str, Any]:
    """A call as a chat answer has it."""
    call.id = call.id or new_id()
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _call(value: dict[str, Any]) -> ToolCall:
    function = value.get("function") or {}
    return ToolCall(str(function.get("name") or ""), _text(function.get("arguments")), str(value.get("id") or ""))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
