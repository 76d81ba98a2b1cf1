"""Which tools a request offers, and what it says about their use; what cannot be honoured is refused. Pure.

llama-server ignores a choice by name, allows words before a call that is required, drops tools that would run at the
server, and in its messages API knows no choice at all. So a choice is made true here:

    none      the tools are left out: without them there is no call
    required  the answer begins with the opening of a call, as the model writes it (`Forced`)
    by name   the same, with the name
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.request.json_fields import Fields, given, put, value_of

ENABLE = "nemotron-ops tools enable {}"
# Types of tools that would run at the server, by how they begin -> what enables them here
HOSTED = {
    "web_search": "web",
    "code_interpreter": "python",
    "code_execution": "python",
    "mcp": "mcp",
    "web_fetch": "web",
    "file_search": "",
    "image_generation": "",
    "computer": "",
}
# Fields that change what an answer is, and that no llama-server has in this API -> what to do instead
REFUSED: dict[Api, dict[str, str]] = {
    Api.CHAT: {
        "functions": "use `tools`, each with type `function`",
        "function_call": "use `tool_choice`",
        "web_search_options": f"the endpoint does not search by itself: `{ENABLE.format('web')}`",
        "modalities": "answers are text",
        "audio": "answers are text",
    },
    Api.MESSAGES: {
        "output_config": "ask /v1/chat/completions with `response_format`, or describe the format in the prompt",
        "output_format": "ask /v1/chat/completions with `response_format`, or describe the format in the prompt",
        "mcp_servers": f"the endpoint does not call tools by itself: {ENABLE.format('mcp')}",
        "container": f"the endpoint does not run code by itself: {ENABLE.format('python')}",
    },
}
# Fields that ask for hosted tools, also when they are empty -> what enables those
ENABLED_BY = {"web_search_options": "web", "mcp_servers": "mcp", "container": "python"}
NOTHING = frozenset({b"null", b"[]", b'""'})
EMPTY = frozenset({b"null", b"[]", b"{}", b'""'})
HARMLESS = {"modalities": frozenset({b'["text"]'}), "function_call": frozenset({b'"none"'})}
FORMATS = ("response_format", "json_schema", "grammar")


class Forced(NamedTuple):
    """A call that has to come: `name` of its tool, or empty for any of `names`."""

    name: str
    names: tuple[str, ...]


def check_refused(api: Api, fields: Fields) -> None:
    """Raises Refusal for a field that would be dropped although it changes the answer."""
    for name, remedy in REFUSED.get(api, {}).items():
        raw = bytes(fields.get(name, b"null"))
        if name in ENABLED_BY and raw not in NOTHING:
            message = f"{name}: runs at the server and is not enabled: {ENABLE.format(ENABLED_BY[name])}"
            raise Refusal(status=400, code="tools_not_enabled", message=message)
        if raw not in EMPTY and raw not in HARMLESS.get(name, ()):
            if name == "output_config" and "format" not in (value_of(fields, name) or {}):
                continue  # its other fields are hints
            raise Refusal(status=400, code="unsupported_field", message=f"{name}: not supported here; {remedy}")


def choose(api: Api, fields: Fields) -> Forced | None:
    """Make the choice of tools true, changing `fields`; returns the call that has to come. Raises Refusal."""
    tools = value_of(fields, "tools")
    if tools is not None and not isinstance(tools, list):
        return None  # llama-server says what is wrong
    names = tuple(_name(tool, place, api) for place, tool in enumerate(tools or []))
    if api is Api.CHAT and tools:
        _without_nulls(fields, tools)
    kind, name = _choice(value_of(fields, "tool_choice"), api)
    if kind == "none":
        for field in ("tools", "tool_choice", "parallel_tool_calls"):
            fields.pop(field, None)
        return None
    if kind not in ("required", "named"):
        if names:
            _check_format(api, fields)
        return None
    if not names:
        raise _invalid("tool_choice", "a call is required, but no tools are offered")
    if name and name not in names:
        raise _invalid("tool_choice", f"no tool {name[:100]!r} is offered; offered: {', '.join(names)[:300]}")
    for field in FORMATS if api is Api.CHAT else ():
        fields.pop(field, None)  # the answer is a call, and has no text
    put(fields, "tool_choice", "required" if api is Api.CHAT else {"type": "any"})
    return Forced(name or (names[0] if len(names) == 1 else ""), names)


def opened(api: Api, fields: Fields, forced: Forced) -> bytes:
    """The body that asks for a forced call: the answer begins with its opening, and the prompt's cache holds."""
    turns = msgspec.json.decode(fields["messages"], type=list[msgspec.Raw])
    text = opening(forced)
    changed = {**fields, "messages": msgspec.Raw(msgspec.json.encode([*turns, {"role": "assistant", "content": text}]))}
    if api is Api.CHAT:
        changed["continue_final_message"] = msgspec.Raw(b'"content"')
        changed["add_generation_prompt"] = msgspec.Raw(b"false")
    return msgspec.json.encode(changed)


def narrowed(api: Api, fields: Fields, forced: Forced) -> bytes:
    """The body that asks for a forced call of a model with another format: only what may be called is offered."""
    if not forced.name:
        return msgspec.json.encode(fields)
    tools = [tool for tool in value_of(fields, "tools") if _name(tool, 0, api) == forced.name]
    return msgspec.json.encode({**fields, "tools": msgspec.Raw(msgspec.json.encode(tools))})


def opening(forced: Forced) -> str:
    """The beginning of a call, as Nemotron 3 and Qwen3-Coder write it."""
    return f"<tool_call>\n<function={forced.name}>\n" if forced.name else "<tool_call>"


def writes_so(template: bytes) -> bool:
    """Whether a prompt with tools, as a template renders it, asks for calls in that format."""
    return b"<tool_call>" in template and b"<function=" in template


def may_be_opened(fields: Fields) -> bool:
    """Whether the next turn is the assistant's; one that the client has begun cannot begin with a call."""
    turns = value_of(fields, "messages")
    last = turns[-1] if isinstance(turns, list) and turns else None
    return isinstance(last, dict) and last.get("role") != "assistant"


def with_brace(name: str, blob: bytes) -> bytes:
    """Events of a call whose name was given: llama-server leaves out the brace that begins its arguments."""
    head, begun, rest = blob.partition(b'"function":{"name":%b' % msgspec.json.encode(name))
    if rest.startswith(b"}"):
        return head + begun + b',"arguments":"{"' + rest
    said = b',"arguments":"'
    if rest.startswith(said) and not rest.startswith(said + b"{"):
        return head + begun + said + b"{" + rest[len(said) :]
    return blob


def _name(tool: Any, place: int, api: Api) -> str:
    """The name of an offered tool. Raises Refusal for one that would run at the server."""
    if not isinstance(tool, dict):
        raise _invalid(f"tools[{place}]", "expected an object")
    kind = tool.get("type", "function" if api is Api.CHAT else "custom")
    if kind == ("function" if api is Api.CHAT else "custom"):
        inner = tool.get("function") if api is Api.CHAT else tool
        name = inner.get("name") if isinstance(inner, dict) else None
        if not isinstance(name, str) or not name:
            raise _invalid(f"tools[{place}]", "it has no name")
        return name
    raise not_enabled(str(kind), place)


def not_enabled(kind: str, place: int) -> Refusal:
    """The Refusal of a tool that would run at the server, with the command that enables it."""
    enables = next((what for begin, what in HOSTED.items() if kind.startswith(begin)), None)
    if enables:
        message = f"tools[{place}]: {kind[:60]!r} runs at the server and is not enabled: {ENABLE.format(enables)}"
    else:
        message = f"tools[{place}]: tools of type {kind[:60]!r} are not run here; offer a function instead"
    return Refusal(status=400, code="tools_not_enabled", message=message)


def _choice(choice: Any, api: Api) -> tuple[str, str]:
    """The kind of a choice (auto, none, required, named), and the name. Raises Refusal."""
    if choice is None:
        return "auto", ""
    if isinstance(choice, str) and api is Api.CHAT and choice in ("auto", "none", "required"):
        return choice, ""
    if isinstance(choice, dict):
        kind = choice.get("type")
        if api is Api.MESSAGES and kind in ("auto", "none", "any"):
            return ("required" if kind == "any" else str(kind)), ""
        function = choice.get("function") if api is Api.CHAT else choice
        name = function.get("name") if isinstance(function, dict) else None
        if kind == ("function" if api is Api.CHAT else "tool") and isinstance(name, str) and name:
            return "named", name
    known = "auto, none, required, or a function by name" if api is Api.CHAT else "auto, any, none, or a tool by name"
    raise _invalid("tool_choice", f"expected {known}")


def _check_format(api: Api, fields: Fields) -> None:
    """A format of the answer and calls exclude each other in llama-server, whose own words for it are a riddle."""
    for name in FORMATS if api is Api.CHAT else ():
        if given(fields, name) and not _is_text(fields, name):
            message = f"{name}: cannot be used together with tools; send it with `tool_choice` none, or without tools"
            raise Refusal(status=400, code="unsupported_field", message=message)


def _is_text(fields: Fields, name: str) -> bool:
    value = value_of(fields, name)
    return name == "response_format" and isinstance(value, dict) and value.get("type") == "text"


def _without_nulls(fields: Fields, tools: list[Any]) -> None:
    """Leave out descriptions that are null: llama-server fails on them."""
    empty = [t["function"] for t in tools if "description" in t["function"] and t["function"]["description"] is None]
    for function in empty:
        del function["description"]
    if empty:
        put(fields, "tools", tools)


def _invalid(field: str, why: str) -> Refusal:
    return Refusal(status=400, code="invalid_field", message=f"{field}: {why}")
