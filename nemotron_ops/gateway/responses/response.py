"""The response object and its output items, with every field that strict clients require. Pure.

An answer that its limit cut is `incomplete`. A call that was cut in its arguments is no item of the response: clients
run the calls that they find there. It is named in `truncated_tool_call`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from nemotron_ops.gateway.responses.thoughts import packed
from nemotron_ops.gateway.responses.tools import free_text
from nemotron_ops.gateway.responses.turn import Turn

Item = dict[str, Any]
COMPLETED, INCOMPLETE, IN_PROGRESS = "completed", "incomplete", "in_progress"
CUT = frozenset({"length"})  # finish reasons of an answer that its limit ended
# Fields of a response that a request sets, and their values where it does not.
DEFAULTS: dict[str, Any] = {
    "background": False, "instructions": None, "max_output_tokens": None, "max_tool_calls": None, "metadata": {},
    "parallel_tool_calls": True, "reasoning": {"effort": None, "summary": None}, "service_tier": "default",
    "store": True, "temperature": None, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
    "top_logprobs": 0, "top_p": None, "truncation": "disabled",
}  # fmt: skip
# Fields that the gateway adds to a chat's end, which responses have too.
MARKS = ("lost_in_thought", "tool_calls_healed", "truncated_tool_call", "invalid_tool_calls", "timings")


def response_object(
    turn: Turn, status: str, output: list[Item], *, usage: dict[str, Any] | None = None, ended_at: int | None = None,
    marks: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The response of `turn`; `marks` are further fields."""
    echo = {name: value for name, value in turn.echo.items() if value is not None}
    return {
        "id": turn.id,
        "object": "response",
        "created_at": turn.created_at,
        "completed_at": ended_at if status == COMPLETED else None,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == INCOMPLETE else None,
        "model": turn.asked,
        "output": output,
        "previous_response_id": turn.previous or None,
        **DEFAULTS,
        **echo,
        "usage": usage,
        **(marks or {}),
    }


def usage_of(chat: Mapping[str, Any], reasoning_tokens: int) -> dict[str, Any]:
    """The usage of a response, from that of a chat. llama-server does not count reasoning; events are counted."""
    prompt, answer = int(chat.get("prompt_tokens") or 0), int(chat.get("completion_tokens") or 0)
    cached = (chat.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": answer,
        "output_tokens_details": {"reasoning_tokens": min(answer, reasoning_tokens)},
        "total_tokens": prompt + answer,
    }


def reasoning_item(turn: Turn, index: int, text: str, status: str = COMPLETED) -> Item:
    """The item with the model's reasoning."""
    content = [{"type": "reasoning_text", "text": text}] if text else []
    item: Item = {"id": f"rs_{turn.serial}_{index}", "type": "reasoning", "summary": [], "content": content}
    kept = packed(text) if turn.packs_reasoning and text else None
    return {**item, "encrypted_content": kept, "status": status}


def message_item(
    turn: Turn, index: int, text: str | None, status: str = COMPLETED, logprobs: list[Any] | None = None
) -> Item:  # fmt: skip
    """The item with the model's words; without content if `text` is None."""
    content = [] if text is None else [text_part(text, logprobs)]
    return {
        "id": f"msg_{turn.serial}_{index}", "type": "message", "role": "assistant", "status": status,
        "content": content,
    }  # fmt: skip


def text_part(text: str, logprobs: list[Any] | None = None) -> dict[str, Any]:
    """The one part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}


def call_item(turn: Turn, index: int, call: Mapping[str, Any], status: str = COMPLETED) -> Item:
    """The item of a call: of a function, or of a tool that takes free text. `call` is that of a chat."""
    function = call.get("function") or {}
    name, arguments = str(function.get("name") or ""), str(function.get("arguments") or "")
    call_id = str(call.get("id") or f"call_{turn.serial}_{index}")
    if name in turn.custom:
        text = free_text(arguments) if arguments else ""
        return {
            "id": f"ctc_{turn.serial}_{index}", "type": "custom_tool_call", "status": status, "call_id": call_id,
            "name": name, "input": text,
        }  # fmt: skip
    return {
        "id": f"fc_{turn.serial}_{index}", "type": "function_call", "status": status, "call_id": call_id, "name": name,
        "arguments": arguments,
    }  # fmt: skip


def is_whole(arguments: str) -> bool:
    """Whether a call's arguments are a whole JSON object."""
    try:
        return isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def whole_response(turn: Turn, chat: Mapping[str, Any], *, ended_at: int, reasoning_tokens: int = 0) -> dict[str, Any]:
    """The response for a whole chat answer."""
    choice = chat["choices"][0]
    message, cut = choice.get("message") or {}, choice.get("finish_reason") in CUT
    marks = {name: chat[name] for name in MARKS if name in chat}
    calls = list(message.get("tool_calls") or ())
    if cut and calls and not is_whole(str((calls[-1].get("function") or {}).get("arguments") or "")):
        marks.setdefault("truncated_tool_call", str((calls.pop().get("function") or {}).get("name") or ""))
    reasoning, text = message.get("reasoning_content") or "", message.get("content") or ""
    output: list[Item] = [reasoning_item(turn, 0, reasoning)] if reasoning else []
    if text or not (reasoning or calls or marks.get("truncated_tool_call")):
        state = INCOMPLETE if cut and not calls else COMPLETED
        found = logprobs_of(((choice.get("logprobs") or {}).get("content")) or ())
        output.append(message_item(turn, len(output), text, state, found))
    elif cut and output and not (calls or "truncated_tool_call" in marks):
        output[-1]["status"] = INCOMPLETE
    output += [call_item(turn, len(output) + n, call) for n, call in enumerate(calls)]
    usage = usage_of(chat.get("usage") or {}, reasoning_tokens)
    return response_object(
        turn, INCOMPLETE if cut else COMPLETED, output, usage=usage, ended_at=ended_at, marks=marks
    )  # fmt: skip


def logprobs_of(found: Iterable[Any]) -> list[dict[str, Any]]:
    """Log probabilities of a text part, from those of a chat."""
    kept = ("token", "bytes", "logprob")
    return [
        {
            **{name: one.get(name) for name in kept},
            "top_logprobs": [{name: top.get(name) for name in kept} for top in one.get("top_logprobs") or ()],
        }
        for one in found
    ]
