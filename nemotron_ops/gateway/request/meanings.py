"""The fields that change what an answer means, in each API: honoured by llama-server or the gateway, or refused. Pure.

`docs/reference/fields.md` is made from these rows, and tests send the example of each to a real llama-server.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from nemotron_ops.gateway.api.routes import Api


class By(StrEnum):
    """What honours a field."""

    ENGINE = "llama-server"
    GATEWAY = "the gateway"
    REFUSED = "refused"


class Effect(StrEnum):
    """What the example of an honoured row shows in the answer."""

    CALL = "a call comes"
    ONE_CALL = "at most one call comes"
    NO_CALL = "no call comes"
    JSON = "the text is JSON"
    TEXT = "there is text"
    STOPPED = "the text ends before `4`"
    CUT = "the answer says that its length was limited"


class Row(NamedTuple):
    """One field of one API. `example` is part of a request; `code` is that of a refusal."""

    api: Api
    field: str
    example: dict[str, Any]
    by: By
    effect: Effect = Effect.TEXT
    tools: bool = False  # the example is sent with tools
    code: str = ""
    note: str = ""


C, R, M = Api.CHAT, Api.RESPONSES, Api.MESSAGES
ENGINE, GATEWAY, REFUSED = By.ENGINE, By.GATEWAY, By.REFUSED
OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": OBJECT}}
FLAT_FORMAT = {"type": "json_schema", "name": "x", "schema": OBJECT}
TOOL, UNKNOWN = "get_time", "nope"
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "eA=="}}
TEXT_FILE = {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,eA=="}
PDF_FILE = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,eA=="}
DOCUMENT = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
CANNOT_BOTH = "llama-server has no grammar for both"
CHECKED = (
    "llama-server's grammar enforces what is no text; the gateway checks each call against its schema, and names one "
    "that breaks it in `invalid_tool_calls` ([what is checked](../how-to/tool-calls.md#strict))"
)


def _turn(*content: Any) -> list[Any]:
    return [{"role": "user", "content": list(content)}]


def _named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _strict(api: Api) -> dict[str, Any]:
    function = {"name": TOOL, "strict": True, "parameters": OBJECT}
    return {"type": "function", "function": function} if api is C else {"type": "function", **function}


ROWS: tuple[Row, ...] = (
    Row(C, "tool_choice: auto", {"tool_choice": "auto"}, ENGINE, tools=True),
    Row(C, "tool_choice: none", {"tool_choice": "none"}, GATEWAY, Effect.NO_CALL, tools=True),
    Row(C, "tool_choice: required", {"tool_choice": "required"}, GATEWAY, Effect.CALL, tools=True),
    Row(C, "tool_choice by name", {"tool_choice": _named(TOOL)}, GATEWAY, Effect.CALL, tools=True),
    Row(C, "tool_choice: a name not offered", {"tool_choice": _named(UNKNOWN)}, REFUSED, tools=True,
        code="invalid_field"),
    Row(C, "parallel_tool_calls: false", {"parallel_tool_calls": False, "tool_choice": "required"}, GATEWAY,
        Effect.ONE_CALL, tools=True, note="llama-server's grammar has one call; of others the first is kept"),
    Row(C, "strict", {"tools": [_strict(C)], "tool_choice": "required"}, GATEWAY, Effect.CALL, note=CHECKED),
    Row(C, "response_format", {"response_format": FORMAT}, ENGINE, Effect.JSON),
    Row(C, "response_format with tools", {"response_format": FORMAT}, REFUSED, tools=True, code="unsupported_field",
        note=CANNOT_BOTH),
    Row(C, "response_format with tools, tool_choice: none", {"response_format": FORMAT, "tool_choice": "none"}, ENGINE,
        Effect.JSON, tools=True),
    Row(C, "response_format with tools, tool_choice: required", {"response_format": FORMAT, "tool_choice": "required"},
        GATEWAY, Effect.CALL, tools=True, note="the answer is a call, and has no text"),
    Row(C, "hosted tools", {"tools": [{"type": "web_search"}]}, REFUSED, code="tools_not_enabled"),
    Row(C, "web_search_options", {"web_search_options": {}}, REFUSED, code="tools_not_enabled"),
    Row(C, "functions", {"functions": [{"name": TOOL}]}, REFUSED, code="unsupported_field"),
    Row(C, "function_call", {"function_call": "auto"}, REFUSED, code="unsupported_field"),
    Row(C, "modalities", {"modalities": ["audio"]}, REFUSED, code="unsupported_field"),
    Row(C, "stop", {"stop": "4"}, ENGINE, Effect.STOPPED),
    Row(C, "stop: empty", {"stop": ""}, GATEWAY, note="empty texts are left out"),
    Row(C, "max_tokens", {"max_tokens": 2}, ENGINE, Effect.CUT),
    Row(C, "chat_template_kwargs", {"chat_template_kwargs": {"enable_thinking": False}}, ENGINE),
    Row(C, "chat_template_kwargs: messages, tools", {"chat_template_kwargs": {"tools": []}}, REFUSED,
        code="invalid_field"),
    Row(R, "tool_choice: none", {"tool_choice": "none"}, GATEWAY, Effect.NO_CALL, tools=True),
    Row(R, "tool_choice: required", {"tool_choice": "required"}, GATEWAY, Effect.CALL, tools=True),
    Row(R, "tool_choice by name", {"tool_choice": {"type": "function", "name": TOOL}}, GATEWAY, Effect.CALL,
        tools=True),
    Row(R, "tool_choice: a name not offered", {"tool_choice": {"type": "function", "name": UNKNOWN}}, REFUSED,
        tools=True, code="invalid_field"),
    Row(R, "parallel_tool_calls: false", {"parallel_tool_calls": False, "tool_choice": "required"}, GATEWAY,
        Effect.ONE_CALL, tools=True),
    Row(R, "max_tool_calls", {"max_tool_calls": 1, "tool_choice": "required"}, GATEWAY, Effect.ONE_CALL, tools=True,
        note="the first ones are kept, of whatever kind"),
    Row(R, "strict", {"tools": [_strict(R)], "tool_choice": "required"}, GATEWAY, Effect.CALL, note=CHECKED),
    Row(R, "text.format", {"text": {"format": FLAT_FORMAT}}, ENGINE, Effect.JSON),
    Row(R, "text.format with tools", {"text": {"format": FLAT_FORMAT}}, REFUSED, tools=True, code="unsupported_field",
        note=CANNOT_BOTH),
    Row(R, "hosted tools", {"tools": [{"type": "web_search"}]}, REFUSED, code="tools_not_enabled"),
    Row(R, "functions", {"functions": [{"name": TOOL}]}, REFUSED, code="unsupported_field"),
    Row(R, "input_file: text", {"input": _turn(TEXT_FILE, {"type": "input_text", "text": "What is 2 + 2?"})}, GATEWAY),
    Row(R, "input_file: others", {"input": _turn(PDF_FILE)}, REFUSED, code="invalid_input"),
    Row(R, "stop", {"stop": "4"}, ENGINE, Effect.STOPPED),
    Row(R, "max_output_tokens", {"max_output_tokens": 2}, ENGINE, Effect.CUT),
    Row(R, "background", {"background": True}, REFUSED, code="unsupported_field"),
    Row(R, "conversation", {"conversation": "c"}, REFUSED, code="unsupported_field"),
    Row(R, "prompt", {"prompt": {"id": "p"}}, REFUSED, code="unsupported_field"),
    Row(R, "truncation: auto", {"truncation": "auto"}, REFUSED, code="unsupported_field"),
    Row(M, "tool_choice: none", {"tool_choice": {"type": "none"}}, GATEWAY, Effect.NO_CALL, tools=True),
    Row(M, "tool_choice: any", {"tool_choice": {"type": "any"}}, GATEWAY, Effect.CALL, tools=True),
    Row(M, "tool_choice by name", {"tool_choice": {"type": "tool", "name": TOOL}}, GATEWAY, Effect.CALL, tools=True),
    Row(M, "tool_choice: a name not offered", {"tool_choice": {"type": "tool", "name": UNKNOWN}}, REFUSED, tools=True),
    Row(M, "disable_parallel_tool_use", {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}}, GATEWAY,
        Effect.ONE_CALL, tools=True, note="the first call is kept"),
    Row(M, "output_config.format", {"output_config": {"format": {"type": "json_schema", "schema": OBJECT}}}, REFUSED,
        note="llama-server has none in this API"),
    Row(M, "hosted tools", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, REFUSED),
    Row(M, "mcp_servers", {"mcp_servers": [{"type": "url", "url": "http://a", "name": "a"}]}, REFUSED),
    Row(M, "container", {"container": "c"}, REFUSED),
    Row(M, "document: text", {"messages": _turn(DOCUMENT, {"type": "text", "text": "What is 2 + 2?"})}, GATEWAY),
    Row(M, "document: others", {"messages": _turn(PDF)}, REFUSED),
    Row(M, "unknown blocks", {"messages": _turn({"type": "container_upload", "file_id": "f"})}, REFUSED),
    Row(M, "stop_sequences", {"stop_sequences": ["4"]}, ENGINE, Effect.STOPPED),
    Row(M, "stop_sequences: empty", {"stop_sequences": [""]}, GATEWAY, note="empty texts are left out"),
    Row(M, "max_tokens", {"max_tokens": 2}, ENGINE, Effect.CUT),
)  # fmt: skip
