"""Turns the input items of a response into the messages of a chat. Pure.

Items that belong to one step of the model (reasoning, text, calls) become one assistant message, as the model's
template expects. Calls that a client ran itself (a shell, a patch) are calls like any other; calls that another server
ran bring their results with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.request.documents import file_text, titled
from nemotron_ops.gateway.responses.thoughts import unpacked

Message = dict[str, Any]
Find = Callable[[str], Mapping[str, Any] | None]  # an earlier item, by its id

ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
OUTPUT = "_call_output"
CALL = "_call"
# Items of tools that ran at another server: the item itself holds the result, if it has any.
HOSTED = frozenset(
    {
        "web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "mcp_call",
    }
)  # fmt: skip
WITHOUT_MEANING = frozenset({"mcp_list_tools"})  # a list of tools, which the request gives again
NO_WORDS = ("id", "type", "status", "call_id", "name", "namespace", "result")  # of a call: not its arguments
TEXT_PARTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})


def messages_of(given: Any, find: Find) -> list[Message]:
    """The messages of `input`, a text or a list of items; `find` gives what an item refers to. Raises Refusal."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise refused("input: expected a text or a list of items")
    chat = Chat()
    for place, item in enumerate(given):
        if not isinstance(item, dict):
            raise refused(f"input[{place}]: expected an object")
        chat.add(resolved(item, find), f"input[{place}]")
    return chat.messages


def resolved(item: Mapping[str, Any], find: Find) -> Mapping[str, Any]:
    """`item`, or what it refers to. Raises Refusal if that is not known here."""
    if item.get("type") != "item_reference":
        return item
    found = find(str(item.get("id", "")))
    if found is None:
        message = f"item_reference: no stored response of this key has an item {str(item.get('id', ''))[:80]!r}"
        raise refused(f"{message}; send the item itself, or keep responses (store)")
    return found


class Chat:
    """Messages of a chat, made item by item."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._open: Message | None = None  # the assistant's message that further items belong to

    def add(self, item: Mapping[str, Any], place: str) -> None:
        """Add one item. Raises Refusal if it has no meaning in a chat."""
        kind = item.get("type") or ("message" if "role" in item else "")
        if not isinstance(kind, str):
            raise refused(f"{place}.type: expected a text")
        if kind == "message":
            self._message(item, place)
        elif kind == "reasoning":
            self._reasoning(reasoning_in(item))
        elif kind.endswith(OUTPUT):
            self._result(str(item.get("call_id", "")), content_of(item.get("output"), place))
        elif kind in HOSTED:
            self._call(item, kind, str(item.get("id", "")))
            self._result(str(item.get("id", "")), result_in(item))
        elif kind.endswith(CALL):
            self._call(item, kind, str(item.get("call_id") or item.get("id") or ""))
        elif kind not in WITHOUT_MEANING:
            raise refused(f"{place}: items of type {kind[:80]!r} are not known here")

    def _message(self, item: Mapping[str, Any], place: str) -> None:
        role = ROLES.get(str(item.get("role")))
        if role is None:
            raise refused(f"{place}.role: expected one of {', '.join(ROLES)}")
        content = content_of(item.get("content"), place)
        if role != "assistant":
            self._open = None
            self.messages.append({"role": role, "content": content})
        elif self._open is not None and not self._open["content"] and "tool_calls" not in self._open:
            self._open["content"] = content
        else:
            self._assistant()["content"] = content

    def _reasoning(self, text: str) -> None:
        if text:
            self._assistant()["reasoning_content"] = text

    def _assistant(self) -> Message:
        """A new message of the assistant, which following items belong to."""
        self._open = {"role": "assistant", "content": ""}
        self.messages.append(self._open)
        return self._open

    def _call(self, item: Mapping[str, Any], kind: str, call_id: str) -> None:
        name = str(item.get("name") or kind.removesuffix(CALL))
        call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments_of(item, kind)}}
        message = self._open if self._open is not None else self._assistant()
        message.setdefault("tool_calls", []).append(call)

    def _result(self, call_id: str, content: Any) -> None:
        self._open = None
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": content})


def arguments_of(item: Mapping[str, Any], kind: str) -> str:
    """The arguments of a call as JSON text; those of a custom tool are its free text under `input`."""
    if kind == "function_call" or isinstance(item.get("arguments"), str):
        return str(item.get("arguments") or "")
    given = item.get("action", {k: v for k, v in item.items() if k not in NO_WORDS})
    return msgspec.json.encode(given if isinstance(given, dict) else {"input": given}).decode()


def result_in(item: Mapping[str, Any]) -> str:
    """What a tool at another server answered, as far as its item says."""
    for name in ("output", "results", "outputs", "error"):
        if (value := item.get(name)) is not None:
            return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return str(item.get("status", "completed"))


def reasoning_in(item: Mapping[str, Any]) -> str:
    """The words of a reasoning item: its content, what the client kept of it, or its summary."""
    text = texts_in(item.get("content"))
    if not text and isinstance(kept := item.get("encrypted_content"), str):
        text = unpacked(kept)
    return text or texts_in(item.get("summary"))


def texts_in(parts: Any) -> str:
    """The texts of a list of parts, together."""
    if isinstance(parts, str):
        return parts
    return "".join(p["text"] for p in each(parts) if isinstance(p.get("text"), str))


def each(value: Any) -> Iterable[Mapping[str, Any]]:
    """The objects in a list; nothing if it is none."""
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def content_of(value: Any, place: str) -> Any:
    """The content of a message or result: one text, or parts if there are media. Raises Refusal."""
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        return msgspec.json.encode(value).decode()
    parts = [part_of(part, place) for part in value]
    if any(part["type"] != "text" for part in parts):
        return parts
    return "".join(part["text"] for part in parts) if len(parts) < 2 else "\n".join(part["text"] for part in parts)


def part_of(part: Any, place: str) -> dict[str, Any]:
    """A part of a message, as chats have it. Raises Refusal for one that no chat has."""
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(kind, str):
        raise refused(f"{place}: expected a text or an object with a type")
    if kind in TEXT_PARTS and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "refusal":
        return {"type": "text", "text": str(part.get("refusal", ""))}
    if kind == "input_image":
        url = part.get("image_url")
        if not url:
            raise refused(f"{place}: input_image needs an image_url with inline data; files are not kept here")
        return {"type": "image_url", "image_url": url if isinstance(url, dict) else {"url": url}}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part.get("input_audio")}
    if kind == "input_file":
        return {"type": "text", "text": file_in(part, place)}
    raise refused(f"{place}: content of type {kind[:80]!r} is not known here")


def file_in(part: Mapping[str, Any], place: str) -> str:
    """The name and text of a file in a message. Raises Refusal if it holds no text."""
    data = part.get("file_data")
    if not isinstance(data, str):
        raise refused(f"{place}: input_file needs file_data with inline data; files are not kept or fetched here")
    text = file_text(data)
    if text is None:
        raise refused(f"{place}: input_file: only text files are read, as data:text/...;base64,...")
    return titled((part.get("filename"),), text)


def refused(message: str) -> Refusal:
    """The Refusal of an input that cannot be understood."""
    return Refusal(status=400, code="invalid_input", message=message)
