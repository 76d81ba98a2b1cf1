"""Reads what a request offers to the model: tools, their schemas, the choice among them. Pure.

One reader for all shapes: chat (`{"type": "function", "function": {...}}`, and the older `functions`), messages
(`{"name", "input_schema"}`) and responses (`{"type": "function", "name", "parameters"}`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

Schema = Mapping[str, Any]
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
FUNCTION_TYPES = frozenset({"function", "custom"})  # what the client runs itself; other types are hosted
MOST_CALLS = 1 << 30  # of a request that sets no limit
TOOL_FIELDS = ("tools", "functions")
CHOICE_FIELDS = ("tool_choice", "function_call")


class Choice(StrEnum):
    """What the request says about calling: whether, and which."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class Tool:
    """One function that the client runs; `schema` is that of its arguments, empty if the request has none."""

    name: str
    schema: Schema
    strict: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Offered:
    """The tools of a request, by name, and the choice among them."""

    tools: Mapping[str, Tool] = field(default_factory=dict)
    hosted: tuple[str, ...] = ()  # types of tools that a server runs, such as `web_search`, in their order
    choice: Choice = Choice.AUTO
    names: tuple[str, ...] = ()  # that the choice allows, if it names any: one for `NAMED`
    parallel: bool = True  # several calls in one answer are allowed
    most: int = MOST_CALLS  # calls in one answer

    @property
    def callable(self) -> Mapping[str, Tool]:
        """The tools that the choice allows."""
        if self.choice is Choice.NONE:
            return {}
        if not self.names:
            return self.tools
        return {name: tool for name, tool in self.tools.items() if name in self.names}

    @property
    def unknown(self) -> tuple[str, ...]:
        """The names in the choice that are not among the tools."""
        return tuple(name for name in self.names if name not in self.tools)


def offers(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether the model may call tools: some are there, and the choice is not `none`. Reads no list of tools."""
    if "tools" not in fields and "functions" not in fields:
        return False
    raw = bytes(fields.get("tools", fields.get("functions", b"[]")))
    if len(raw) < len(b'[{"name":""}]'):
        return False
    choice = bytes(fields.get("tool_choice", fields.get("function_call", b"")))
    return choice != b'"none"' and not (len(choice) < 100 and b'"none"' in choice)


def offered(fields: Mapping[str, Any]) -> Offered:
    """What a request offers; `fields` are the top level of its body, raw or decoded. Wrong shapes are left out."""
    tools: dict[str, Tool] = {}
    hosted: list[str] = []
    for name in TOOL_FIELDS:
        for entry in _list(_value(fields, name)):
            _take(entry, tools, hosted)
    choice, names, parallel = _choice_in(fields)
    if _value(fields, "parallel_tool_calls") is False:
        parallel = False
    return Offered(tools=tools, hosted=tuple(hosted), choice=choice, names=names, parallel=parallel)


def _take(entry: Any, tools: dict[str, Tool], hosted: list[str]) -> None:
    if not isinstance(entry, dict):
        return
    kind = entry.get("type", "function")
    if isinstance(kind, str) and kind not in FUNCTION_TYPES:
        hosted.append(kind)
        return
    inner = entry.get("function", entry)
    if not isinstance(inner, dict) or not isinstance(name := inner.get("name"), str) or not name:
        return
    schema = inner.get("parameters", inner.get("input_schema"))
    tools.setdefault(name, Tool(name, schema if isinstance(schema, dict) else {}, inner.get("strict") is True))


def _choice_in(fields: Mapping[str, Any]) -> tuple[Choice, tuple[str, ...], bool]:
    """The choice, the names in it, and whether it allows several calls."""
    value = next((v for v in (_value(fields, name) for name in CHOICE_FIELDS) if v is not None), "auto")
    if isinstance(value, str):
        return _mode(value), (), True
    if not isinstance(value, dict):
        return Choice.AUTO, (), True
    parallel = value.get("disable_parallel_tool_use") is not True
    kind = value.get("type")
    if kind == "allowed_tools":
        inner = value.get("allowed_tools", value)
        listed = [_name_in(entry) for entry in _list(inner.get("tools"))] if isinstance(inner, dict) else []
        mode = inner.get("mode", "auto") if isinstance(inner, dict) else "auto"
        return _mode(mode), tuple(name for name in listed if name), parallel
    if name := _name_in(value):
        return Choice.NAMED, (name,), parallel
    return _mode(kind), (), parallel


def _mode(word: Any) -> Choice:
    match word:
        case "none":
            return Choice.NONE
        case "required" | "any":
            return Choice.REQUIRED
        case _:
            return Choice.AUTO


def _name_in(value: Any) -> str:
    """The name in a choice, with or without `function` around it."""
    if not isinstance(value, dict):
        return ""
    inner = value.get("function", value)
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else ""


def _value(fields: Mapping[str, Any], name: str) -> Any:
    """A field's value; None if it is absent or no JSON."""
    value = fields.get(name)
    if not isinstance(value, bytes | msgspec.Raw):
        return value
    try:
        return msgspec.json.decode(value)
    except NOT_JSON:
        return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
