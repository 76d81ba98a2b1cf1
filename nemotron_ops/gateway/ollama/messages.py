"""Turns Ollama's messages into those of a chat. Pure.

Ollama's calls need no ids: a result belongs to the first open call of its name, else to the first open call.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nemotron_ops.gateway.ollama.options import invalid

ROLES = frozenset({"system", "user", "assistant", "tool"})
IMAGES = (("iVBOR", "png"), ("/9j/", "jpeg"), ("R0lG", "gif"), ("UklG", "webp"))  # base64 of their first bytes


def chat_messages(value: Any) -> list[dict[str, Any]]:
    """The chat's messages. Raises Refusal."""
    if not isinstance(value, list) or not value:
        way = "models are loaded and unloaded with `nemotron-ops start` and `stop`"
        raise invalid(f"messages: expected a list with a message; {way}")
    open_calls: list[tuple[str, str]] = []  # id and name of calls without a result
    return [_message(i, message, open_calls) for i, message in enumerate(value)]


def content(text: Any, images: Any, where: str) -> Any:
    """Text, or a list of parts if there are images. Raises Refusal."""
    if not isinstance(text, str | None):
        raise invalid(f"{where}: expected text")
    if not images:
        return text or ""
    if not isinstance(images, list) or not all(isinstance(i, str) for i in images):
        raise invalid("images: expected a list of base64 texts")
    parts = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images]
    return [{"type": "text", "text": text or ""}, *parts]


def _message(i: int, message: Any, open_calls: list[tuple[str, str]]) -> dict[str, Any]:
    if not isinstance(message, dict) or str(message.get("role")) not in ROLES:
        raise invalid(f"messages[{i}]: expected an object with a role: system, user, assistant or tool")
    text = content(message.get("content"), message.get("images"), f"messages[{i}].content")
    found: dict[str, Any] = {"role": message["role"], "content": text}
    if message["role"] == "tool":
        found["tool_call_id"] = _answered(message, open_calls)
    if isinstance(thinking := message.get("thinking"), str) and thinking:
        found["reasoning_content"] = thinking
    if calls := message.get("tool_calls"):
        if not isinstance(calls, list):
            raise invalid(f"messages[{i}].tool_calls: expected a list")
        found["tool_calls"] = [_call(f"call_{i}_{n}", f"messages[{i}]", call) for n, call in enumerate(calls)]
        open_calls += [(call["id"], call["function"]["name"]) for call in found["tool_calls"]]
    return found


def _call(own_id: str, where: str, call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise invalid(f"{where}.tool_calls: expected objects with a function and its name")
    arguments = function.get("arguments") or {}
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    given = call.get("id")
    known = given if isinstance(given, str) and given else own_id
    return {"id": known, "type": "function", "function": {"name": function["name"], "arguments": text}}


def _answered(message: dict[str, Any], open_calls: list[tuple[str, str]]) -> str:
    """The id of the call that a result belongs to."""
    given, name = message.get("tool_call_id"), message.get("tool_name") or message.get("name")
    for match in ([c for c in open_calls if c[0] == given], [c for c in open_calls if c[1] == name], open_calls):
        if match:
            open_calls.remove(found := match[0])
            return found[0]
    return given if isinstance(given, str) and given else "call_0"


def _data_url(image: str) -> str:
    kind = next((name for start, name in IMAGES if image.startswith(start)), "png")
    return image if image.startswith("data:") else f"data:image/{kind};base64,{image}"
