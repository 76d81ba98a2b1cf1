"""Calls that break the schema of their tool: named in whole answers and in streams, in each API."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.request.json_fields import read_fields
from nemotron_ops.gateway.streams.sse import events
from nemotron_ops.gateway.toolcalls.heal import Level
from nemotron_ops.gateway.toolcalls.healing import Healing
from nemotron_ops.gateway.toolcalls.messages_stream import written
from nemotron_ops.gateway.toolcalls.schema import Checker
from tests.fakes.told import as_response

SCHEMA = {
    "type": "object",
    "properties": {"unit": {"type": "string", "enum": ["celsius"]}, "day": {"type": "string", "pattern": "^[0-9]+$"}},
    "required": ["unit"],
}
RIGHT, WRONG, UNLIKE = '{"unit":"celsius"}', '{"unit":"kelvin"}', '{"unit":"celsius","day":"one"}'
CAUSES = {WRONG: "unit: none of the allowed values", UNLIKE: "day: not of the demanded pattern"}
HEAD = {"created": 1, "id": "x", "model": "m", "system_fingerprint": "b", "object": "chat.completion.chunk"}
APIS = [Api.CHAT, Api.MESSAGES]


class Sink:
    def __init__(self) -> None:
        self.data = b""

    def send(self, data: bytes, *, last: bool = False) -> None:
        del last
        self.data += data


def healing(api: Api, level: Level, *, strict: bool = True) -> Healing:
    function: dict[str, Any] = {"name": "f", "strict": strict, "parameters": SCHEMA}
    tool = {"type": "function", "function": function} if api is Api.CHAT else {"input_schema": SCHEMA, **function}
    return Healing(api, read_fields(json.dumps({"tools": [tool]}).encode()), level)


def whole(api: Api, arguments: str) -> bytes:
    if api is Api.CHAT:
        call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
        message = {"role": "assistant", "content": "", "tool_calls": [call]}
        return json.dumps({"choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}]}).encode()
    block = {"type": "tool_use", "id": "a", "name": "f", "input": json.loads(arguments)}
    return json.dumps({"content": [block], "stop_reason": "tool_use"}).encode()


def stream(api: Api, arguments: str) -> list[bytes]:
    if api is Api.CHAT:
        call = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
        choices: list[dict[str, Any]] = [
            {"delta": {"tool_calls": [call]}, "finish_reason": None},
            {"delta": {}, "finish_reason": "tool_calls"},
        ]
        return [b"data: " + msgspec.json.encode({"choices": [{"index": 0, **c}], **HEAD}) + b"\n\n" for c in choices]
    block = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    return [
        written({"type": "content_block_start", "index": 0, "content_block": block}),
        written({"type": "content_block_delta", "index": 0,
                 "delta": {"type": "input_json_delta", "partial_json": arguments}}),
        written({"type": "content_block_stop", "index": 0}),
        written({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}),
    ]  # fmt: skip


def named(value: dict[str, Any]) -> Any:
    return value.get("invalid_tool_calls")


def streamed(api: Api, arguments: str, level: Level, *, strict: bool = True) -> bytes:
    sink = Sink()
    outlet = healing(api, level, strict=strict).stream(sink)
    for part in stream(api, arguments):
        outlet.send(part)
    return sink.data


@pytest.mark.parametrize("level", [Level.OFF, Level.SAFE])
@pytest.mark.parametrize("api", APIS)
def test_a_call_that_breaks_its_schema_is_named(api: Api, level: Level) -> None:
    for arguments, cause in CAUSES.items():
        expected = [{"index": 0, "name": "f", "cause": cause}]
        assert named(json.loads(healing(api, level).whole(whole(api, arguments)))) == expected
        assert named(list(events(streamed(api, arguments, level)))[-1]) == expected


@pytest.mark.parametrize("level", [Level.OFF, Level.SAFE])
@pytest.mark.parametrize("api", APIS)
def test_a_right_call_is_not_touched(api: Api, level: Level) -> None:
    assert healing(api, level).whole(whole(api, RIGHT)) == whole(api, RIGHT)
    assert streamed(api, RIGHT, level) == b"".join(stream(api, RIGHT))


@pytest.mark.parametrize("api", APIS)
def test_without_strict_a_wrong_call_is_named_unless_healing_is_off(api: Api) -> None:
    assert named(list(events(streamed(api, WRONG, Level.SAFE, strict=False)))[-1])
    assert streamed(api, WRONG, Level.OFF, strict=False) == b"".join(stream(api, WRONG))
    assert healing(api, Level.OFF, strict=False).whole(whole(api, WRONG)) == whole(api, WRONG)


def test_a_name_that_is_not_offered_is_named() -> None:
    body = whole(Api.CHAT, RIGHT).replace(b'"f"', b'"other"')
    assert named(json.loads(healing(Api.CHAT, Level.SAFE).whole(body)))[0]["cause"] == "not offered"


def test_a_response_names_it_too() -> None:
    *_, last = events(as_response(streamed(Api.CHAT, WRONG, Level.SAFE) + b"data: [DONE]\n\n"))
    assert named(last["response"]) == [{"index": 0, "name": "f", "cause": CAUSES[WRONG]}]


DEAR = "(a+)+$"


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"multipleOf": 5}, 10, 12),
        ({"prefixItems": [{"type": "integer"}], "items": {"type": "string"}}, [1, "a"], ["a"]),
        ({"prefixItems": [{"type": "integer"}], "items": False}, [1], [1, 2]),
        ({"patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": False}, {"x-a": 1}, {"x-a": "b"}),
        ({"patternProperties": {"^x-": {}}, "additionalProperties": False}, {"x-a": 1}, {"a": 1}),
        ({"not": {"enum": ["a"]}}, "b", "a"),
        ({"not": {"required": ["a"]}, "type": "object"}, {"b": 1}, {"a": 1}),
    ],
)  # fmt: skip
def test_words_of_schemas(schema: Any, right: Any, wrong: Any) -> None:
    assert Checker(schema).fault(right, schema) == ""
    assert Checker(schema).fault(wrong, schema)


@pytest.mark.parametrize(
    "schema",
    [{"not": {"pattern": DEAR}}, {"not": {"format": "email"}}, {"patternProperties": {DEAR: {"type": "null"}}}],
)
def test_what_cannot_be_known_is_no_fault(schema: Any) -> None:
    for value in ("a" * 60 + "b", {"a" * 60 + "b": 1}):
        assert Checker(schema).fault(value, schema) == ""
