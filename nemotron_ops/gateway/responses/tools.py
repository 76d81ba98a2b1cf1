"""Turns a response's tools, and the choice among them, into those of a chat. Pure.

A custom tool takes free text: for the model it is a function with one argument, `input`. Its format (a grammar) is
told to the model as part of the description, and is not enforced.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.request.tool_choice import not_enabled

INPUT = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "the tool's whole input, as free text"}},
    "required": ["input"],
    "additionalProperties": False,
}
# Tools that the client runs itself, under names that models know them by; parameters as in OpenAI's documentation.
LOCAL = {
    "local_shell": {
        "type": "object",
        "properties": {
            "command": {"type": "array", "items": {"type": "string"}},
            "working_directory": {"type": "string"},
            "timeout_ms": {"type": "integer"},
        },
        "required": ["command"],
    }
}


class Tools(NamedTuple):
    """Tools of a chat, and which of them have free text as their input."""

    tools: list[dict[str, Any]]
    custom: frozenset[str]


def chat_tools(given: Any) -> Tools:
    """The tools of a chat for those of a response. Raises Refusal for one that runs at the server."""
    if not isinstance(given, list):
        raise Refusal(status=400, code="invalid_field", message="tools: expected a list")
    found = list(_flat(given))
    custom = frozenset(str(tool.get("name")) for tool in found if tool.get("type") == "custom")
    return Tools([_tool(tool, place) for place, tool in enumerate(found)], custom)


def _flat(given: list[Any]) -> Iterator[dict[str, Any]]:
    """All tools; those of a namespace one by one."""
    for tool in given:
        if not isinstance(tool, dict):
            raise Refusal(status=400, code="invalid_field", message="tools: expected objects")
        if tool.get("type") == "namespace" and isinstance(tool.get("tools"), list):
            yield from _flat(tool["tools"])
        else:
            yield tool


def _tool(tool: dict[str, Any], place: int) -> dict[str, Any]:
    kind = tool.get("type")
    if kind == "function" and isinstance(tool.get("function"), dict):
        return tool  # as chats have it
    if kind == "function":
        function = {name: tool[name] for name in ("name", "description", "strict") if tool.get(name) is not None}
        parameters = tool.get("parameters")
        return {
            "type": "function", "function": {**function, "parameters": {} if parameters is None else parameters},
        }  # fmt: skip
    if kind == "custom":
        return _function(str(tool.get("name")), _description(tool), INPUT)
    if isinstance(kind, str) and kind in LOCAL:
        return _function(kind, f"the client's {kind}", LOCAL[kind])
    raise not_enabled(str(kind), place)


def _function(name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _description(tool: dict[str, Any]) -> str:
    """A custom tool's description, with the grammar of its input."""
    text, how = str(tool.get("description") or ""), tool.get("format")
    if isinstance(how, dict) and isinstance(grammar := how.get("definition"), str):
        text += f"\n\nThe input follows this {how.get('syntax', '')} grammar:\n{grammar}"
    return text.strip()


def chat_choice(choice: Any, tools: Tools) -> tuple[Any, Tools]:
    """The `tool_choice` of a chat, and the tools that it leaves. Raises Refusal for a choice that no chat has."""
    if not isinstance(choice, dict):
        return choice, tools
    kind, name = choice.get("type"), choice.get("name")
    if kind in ("function", "custom") and isinstance(name, str):
        return {"type": "function", "function": {"name": name}}, tools
    if kind == "function":
        return choice, tools  # as chats have it
    if kind == "allowed_tools" and isinstance(choice.get("tools"), list):
        names = {str(t.get("name")) for t in choice["tools"] if isinstance(t, dict)}
        left = [tool for tool in tools.tools if tool["function"]["name"] in names]
        return choice.get("mode", "auto"), Tools(left, tools.custom)
    if isinstance(kind, str) and kind in LOCAL:
        return {"type": "function", "function": {"name": kind}}, tools
    message = f"tool_choice: {msgspec.json.encode(choice)[:120].decode(errors='replace')} is not known here"
    raise Refusal(status=400, code="invalid_field", message=message)


def free_text(arguments: str) -> str:
    """A custom tool's input, from the arguments of the call; those as they are if they have another form."""
    try:
        value = msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return arguments
    text = value.get("input") if isinstance(value, dict) else None
    return text if isinstance(text, str) else arguments
