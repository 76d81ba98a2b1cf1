"""Tools and the choice among them: made true, or refused with a text; llama-server's faults that a request causes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nemotron_ops.gateway.api import client_faults
from nemotron_ops.gateway.api.errors import Refusal, engine_error, upstream_error
from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.request.json_fields import Fields, read_fields
from nemotron_ops.gateway.request.tool_choice import (
    Forced,
    check_refused,
    choose,
    may_be_opened,
    narrowed,
    opened,
    with_brace,
    writes_so,
)

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CHAT_TOOLS = [{"type": "function", "function": {"name": n, "parameters": SCHEMA}} for n in ("weather", "time")]
MESSAGES_TOOLS = [{"name": n, "input_schema": SCHEMA} for n in ("weather", "time")]
ASK = [{"role": "user", "content": "Hi"}]


def fields(**value: Any) -> Fields:
    return read_fields(msgspec.json.encode(value))


def chosen(api: Api, choice: Any, **more: Any) -> tuple[Forced | None, dict[str, Any]]:
    tools = CHAT_TOOLS if api is Api.CHAT else MESSAGES_TOOLS
    given = fields(messages=ASK, tools=tools, tool_choice=choice, **more)
    forced = choose(api, given)
    return forced, msgspec.json.decode(msgspec.json.encode(given))


@pytest.mark.parametrize(
    ("api", "choice", "name", "sent"),
    [
        (Api.CHAT, "auto", None, "auto"),
        (Api.CHAT, None, None, None),
        (Api.CHAT, "required", "", "required"),
        (Api.CHAT, {"type": "function", "function": {"name": "time"}}, "time", "required"),
        (Api.MESSAGES, {"type": "auto"}, None, {"type": "auto"}),
        (Api.MESSAGES, {"type": "any"}, "", {"type": "any"}),
        (Api.MESSAGES, {"type": "tool", "name": "time"}, "time", {"type": "any"}),
    ],
)
def test_a_choice_becomes_what_the_engine_honours(api: Api, choice: Any, name: str | None, sent: Any) -> None:
    forced, body = chosen(api, choice)
    assert (forced.name if forced else None) == name
    assert body["tool_choice"] == sent
    assert len(body["tools"]) == 2


@pytest.mark.parametrize(("api", "choice"), [(Api.CHAT, "none"), (Api.MESSAGES, {"type": "none"})])
def test_with_none_no_tool_is_offered(api: Api, choice: Any) -> None:
    forced, body = chosen(api, choice, parallel_tool_calls=True, response_format={"type": "json_object"})
    assert forced is None
    assert body.keys() == {"messages", "response_format"}


def test_the_only_tool_is_the_one_that_is_required() -> None:
    given = fields(messages=ASK, tools=CHAT_TOOLS[:1], tool_choice="required")
    assert choose(Api.CHAT, given) == Forced("weather", ("weather",))


@pytest.mark.parametrize(
    ("api", "more", "code", "said"),
    [
        (
            Api.CHAT,
            {"tool_choice": {"type": "function", "function": {"name": "rm"}}},
            "invalid_field",
            "'rm' is offered",
        ),
        (Api.CHAT, {"tool_choice": "any"}, "invalid_field", "auto, none, required"),
        (Api.CHAT, {"tool_choice": 5}, "invalid_field", "expected"),
        (Api.CHAT, {"tools": [], "tool_choice": "required"}, "invalid_field", "no tools are offered"),
        (Api.CHAT, {"tools": [{"type": "web_search"}]}, "tools_not_enabled", "tools enable web"),
        (Api.CHAT, {"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools_not_enabled", "offer a function"),
        (Api.CHAT, {"tools": [{"type": "function", "function": {}}]}, "invalid_field", "no name"),
        (Api.CHAT, {"tools": ["x"]}, "invalid_field", "expected an object"),
        (Api.CHAT, {"response_format": {"type": "json_object"}}, "unsupported_field", "together with tools"),
        (
            Api.MESSAGES,
            {"tools": [{"type": "code_execution_20250522", "name": "c"}]},
            "tools_not_enabled",
            "enable python",
        ),
        (Api.MESSAGES, {"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools_not_enabled", "offer a function"),
        (Api.MESSAGES, {"tool_choice": {"type": "tool", "name": "rm"}}, "invalid_field", "'rm' is offered"),
        (Api.MESSAGES, {"tool_choice": "auto"}, "invalid_field", "auto, any, none"),
    ],
)
def test_what_cannot_be_honoured_is_refused(api: Api, more: dict[str, Any], code: str, said: str) -> None:
    tools = CHAT_TOOLS if api is Api.CHAT else MESSAGES_TOOLS
    with pytest.raises(Refusal) as refused:
        choose(api, fields(**{"messages": ASK, "tools": tools, **more}))
    assert (refused.value.status, refused.value.code) == (400, code)
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("api", "value", "refused"),
    [
        (Api.CHAT, {"functions": [{"name": "x"}]}, True),
        (Api.CHAT, {"functions": [], "function_call": "none", "modalities": ["text"], "audio": None}, False),
        (Api.CHAT, {"modalities": ["text", "audio"]}, True),
        (Api.MESSAGES, {"output_format": {"type": "json_schema"}}, True),
        (Api.MESSAGES, {"output_config": {"format": {}}}, True),
        (Api.MESSAGES, {"output_config": {"effort": "low"}}, False),
        (Api.MESSAGES, {"mcp_servers": [{"url": "x"}]}, True),
        (Api.MESSAGES, {"mcp_servers": [], "colour": 1}, False),
    ],
)
def test_a_field_that_changes_the_answer_is_not_dropped(api: Api, value: dict[str, Any], refused: bool) -> None:
    if not refused:
        check_refused(api, fields(**value))
        return
    with pytest.raises(Refusal, match=r"not supported here|tools enable mcp"):
        check_refused(api, fields(**value))


def test_a_tools_null_description_is_left_out() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": None, "parameters": SCHEMA}}]
    given = fields(messages=ASK, tools=tools)
    choose(Api.CHAT, given)
    assert msgspec.json.decode(given["tools"]) == [
        {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
    ]


def test_a_forced_call_begins_the_answer_and_keeps_the_prompt() -> None:
    given = fields(messages=ASK, tools=CHAT_TOOLS, tool_choice="required")
    body = msgspec.json.decode(opened(Api.CHAT, given, Forced("time", ("weather", "time"))))
    assert body["messages"] == [*ASK, {"role": "assistant", "content": "<tool_call>\n<function=time>\n"}]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == ("content", False)
    assert body["tools"] == CHAT_TOOLS
    other = msgspec.json.decode(narrowed(Api.CHAT, given, Forced("time", ("weather", "time"))))
    assert other["tools"] == CHAT_TOOLS[1:]
    assert msgspec.json.decode(narrowed(Api.CHAT, given, Forced("", ("weather", "time"))))["tools"] == CHAT_TOOLS


def test_only_a_template_of_that_format_is_opened() -> None:
    assert writes_so(b'{"prompt":"<tool_call>\\n<function=example>"}')
    assert not writes_so(b'{"prompt":"[TOOL_CALLS]"}')
    assert may_be_opened(fields(messages=ASK))
    assert not may_be_opened(fields(messages=[*ASK, {"role": "assistant", "content": "I"}]))
    assert not may_be_opened(fields(messages=[]))


@pytest.mark.parametrize(
    ("sent", "whole"),
    [
        (b'{"name":"time"}', b'{"name":"time","arguments":"{"}'),
        (b'{"name":"time","arguments":"}"}', b'{"name":"time","arguments":"{}"}'),
        (b'{"name":"time","arguments":"\\"city"}', b'{"name":"time","arguments":"{\\"city"}'),
        (b'{"name":"time","arguments":"{"}', b'{"name":"time","arguments":"{"}'),
        (b'{"name":"other"}', b'{"name":"other"}'),
    ],
)
def test_the_brace_that_the_engine_leaves_out_is_added_once(sent: bytes, whole: bytes) -> None:
    event = b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"type":"function","function":%b}]}}]}\n\n'
    assert with_brace("time", event % sent) == event % whole


@pytest.mark.parametrize(
    "text", ["image input is not supported - hint", "Failed to parse tools: x", "JSON schema error at #/a"]
)
def test_a_fault_of_the_request_is_no_500(text: str) -> None:
    body = msgspec.json.encode({"error": {"code": 500, "message": text, "type": "server_error"}})
    assert client_faults.status_of(500, body) == 400
    assert engine_error(500, body).status == 400
    for api in (Api.CHAT, Api.MESSAGES):
        assert b"500" not in upstream_error(api, 500, body)


@pytest.mark.parametrize("text", ["out of memory", "", "Compute error.", 'he said "Failed to parse tools"'])
def test_a_fault_of_the_engine_stays_one(text: str) -> None:
    body = msgspec.json.encode({"error": {"code": 500, "message": text}})
    assert client_faults.status_of(500, body) == 500
    assert client_faults.status_of(503, b'{"error":{"message":"Failed to parse tools"}}') == 503
