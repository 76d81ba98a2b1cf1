"""Turns a request to the responses API into a chat request. Pure.

Every field is translated, passed on under the same name, repeated in the answer because it only labels it, or refused:
none is dropped that would change the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.request.fields import ALLOWED, RESPONSES
from nemotron_ops.gateway.request.json_fields import TRUE, Fields, value_of
from nemotron_ops.gateway.request.reasoning import CLIENT_REASONING
from nemotron_ops.gateway.responses.items import Find, Message, messages_of
from nemotron_ops.gateway.responses.tools import Tools, chat_choice, chat_tools
from nemotron_ops.gateway.responses.turn import Turn

# Fields that change nothing in the answer here, and are repeated in the response.
LABELS = frozenset(
    {
        "metadata", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier",
        "max_tool_calls", "truncation", "background", "store",
    }
)  # fmt: skip
ECHOED = LABELS | {
    "instructions", "max_output_tokens", "parallel_tool_calls", "reasoning", "temperature", "text", "tool_choice",
    "tools", "top_logprobs", "top_p",
}  # fmt: skip
PASSED = (ALLOWED[Api.CHAT] | CLIENT_REASONING) - RESPONSES - {"messages", "stream_options", "n", "metadata"}
REFUSED = {
    "conversation": "conversations are not kept here; continue with previous_response_id",
    "functions": "use `tools`, each with type `function`",
    "function_call": "use `tool_choice`",
    "prompt": "prompts are not kept here; send instructions and input",
}
ENCRYPTED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"
Earlier = Callable[[str], list[Any]]  # the items of all turns up to a response, by its id


def chat_request(fields: Fields, turn: Turn, earlier: Earlier, find: Find) -> dict[str, Any]:
    """The chat request for `fields`, those of a response; sets in `turn` what the response repeats.

    `earlier` gives the items of the turns that `previous_response_id` names, `find` an item by its id. Raises Refusal.
    """
    values = {name: value_of(fields, name) for name in fields.keys() - PASSED}
    _check(values)
    turn.echo = {name: value_of(fields, name) for name in ECHOED & fields.keys()}
    turn.stored = values.get("store") is not False
    turn.previous = values.get("previous_response_id") or ""
    given = values.get("input")
    turn.input = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given or []
    chat: dict[str, Any] = {name: raw for name, raw in fields.items() if name in PASSED}
    before = earlier(turn.previous) if turn.previous else []
    chat["messages"] = with_instructions(values.get("instructions"), messages_of([*before, *items(given)], find))
    _add_tools(chat, values, turn)
    _add_format(chat, values.get("text"))
    _add_limits(chat, values, turn)
    if bytes(fields.get("stream", b"")) == TRUE:
        chat["stream_options"] = {"include_usage": True}
    if isinstance(wish := values.get("reasoning"), dict):
        chat["reasoning"] = wish
    return chat


def items(given: Any) -> list[Any]:
    """`input` as a list of items. Raises Refusal."""
    if isinstance(given, list):
        return given
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    raise Refusal(status=400, code="invalid_input", message="input: expected a text or a list of items")


def _check(values: dict[str, Any]) -> None:
    """Raises Refusal for fields that ask for something that this gateway does not do."""
    for name, why in REFUSED.items():
        if values.get(name) is not None:
            raise Refusal(status=400, code="unsupported_field", message=f"{name}: {why}")
    if values.get("background"):
        message = "background: responses are answered at once here; leave it out, or stream"
        raise Refusal(status=400, code="unsupported_field", message=message)
    if values.get("n") not in (None, 1):
        raise Refusal(status=400, code="invalid_field", message="n: a response has one answer")
    if values.get("truncation") not in (None, "disabled"):
        message = 'truncation: only "disabled": a conversation that is too long is refused, not cut'
        raise Refusal(status=400, code="unsupported_field", message=message)
    most = values.get("max_tool_calls")
    if most is not None and (type(most) not in (int, float) or most < 1 or most % 1):
        raise Refusal(status=400, code="invalid_field", message="max_tool_calls: expected a number from 1 on")
    if not isinstance(values.get("previous_response_id"), str | None):
        raise Refusal(status=400, code="invalid_field", message="previous_response_id: expected text")


def with_instructions(instructions: Any, messages: list[Message]) -> list[Message]:
    """`messages` with the instructions, and the system messages that begin them, as one: templates take only one."""
    begin = 0
    while begin < len(messages) and messages[begin]["role"] == "system":
        begin += 1
    texts = [instructions, *(m["content"] for m in messages[:begin])]
    system = "\n\n".join(text for text in texts if isinstance(text, str) and text)
    return [{"role": "system", "content": system}, *messages[begin:]] if system else messages[begin:]


def _add_tools(chat: dict[str, Any], values: dict[str, Any], turn: Turn) -> None:
    tools = chat_tools(values["tools"]) if values.get("tools") else Tools([], frozenset())
    choice = values.get("tool_choice")
    if choice is not None:
        chat["tool_choice"], tools = chat_choice(choice, tools)
    if tools.tools:
        chat["tools"] = tools.tools
        turn.custom = tools.custom
        if values.get("parallel_tool_calls") is not None:
            chat["parallel_tool_calls"] = values["parallel_tool_calls"]


def _add_format(chat: dict[str, Any], text: Any) -> None:
    """The form that `text.format` asks for, as chats ask for it."""
    wanted = text.get("format") if isinstance(text, dict) else None
    if "tools" in chat and (chat.get("tool_choice") == "required" or isinstance(chat.get("tool_choice"), dict)):
        return  # the answer is a call, and has no text
    if not isinstance(wanted, dict) or wanted.get("type") == "text":
        return
    if wanted.get("type") == "json_schema" and "json_schema" not in wanted:
        inner = {name: wanted[name] for name in ("name", "description", "schema", "strict") if name in wanted}
        wanted = {"type": "json_schema", "json_schema": inner}
    chat["response_format"] = wanted


def _add_limits(chat: dict[str, Any], values: dict[str, Any], turn: Turn) -> None:
    """The length of the answer, and what `include` asks for."""
    if values.get("max_output_tokens") is not None:
        chat["max_tokens"] = values["max_output_tokens"]
        chat.pop("n_predict", None)
    include = values.get("include")
    turn.most_calls = int(values.get("max_tool_calls") or 0)
    turn.packs_reasoning = isinstance(include, list) and ENCRYPTED in include
    top = values.get("top_logprobs")
    if isinstance(include, list) and LOGPROBS in include:
        chat["logprobs"] = True
        if top:
            chat["top_logprobs"] = top


def chat_body(chat: dict[str, Any]) -> bytes:
    """`chat` as JSON; values that were not read keep their bytes."""
    return msgspec.json.encode(chat)
