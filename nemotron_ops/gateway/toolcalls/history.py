"""Mends arguments that a client sends back: llama-server fails for ever on those that are no JSON object. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from nemotron_ops.gateway.toolcalls.read_json import NOT_JSON, read_object, read_strict, text_of, value_of

KEPT = "arguments"  # the name under which anything else is kept


def arguments_of(text: Any) -> tuple[dict[str, Any], bool]:
    """The object that `text` means, and whether it had to be mended: nothing is lost."""
    if isinstance(text, dict):
        return text, False
    if not isinstance(text, str):
        return ({} if text is None else {KEPT: text}), True
    if read := read_strict(text):
        return read.value, False
    if read := read_object(text):
        return read.value, True
    value = value_of(text)
    return {KEPT: text if value is None else value}, True


def mended_messages(raw: bytes) -> bytes | None:
    """The messages of a chat with arguments that are objects; None if all were, or if the messages cannot be read."""
    if raw.find(b'"tool_calls"') < 0:
        return None
    try:
        messages = msgspec.json.decode(raw)
    except NOT_JSON:
        return None
    changed = False
    for message in messages if isinstance(messages, list) else ():
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                value, mended = arguments_of(function.get("arguments"))
                if mended:
                    function["arguments"] = text_of(value)
                    changed = True
    return msgspec.json.encode(messages) if changed else None
