"""Calls of an engine in streams: held until they are whole, healed, and sent; or sent as they came."""

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
from nemotron_ops.gateway.toolcalls.held_calls import COMMENT, COMMENT_EVERY, MOST_BYTES
from nemotron_ops.gateway.toolcalls.messages_stream import written
from tests.fakes.told import as_response

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS: dict[Api, Any] = {
    Api.CHAT: {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}},
    Api.MESSAGES: {"name": "get_weather", "input_schema": SCHEMA},
}
APIS = list(TOOLS)
ENDS = {"tool_calls": "tool_use", "length": "max_tokens"}


class Sink:
    def __init__(self) -> None:
        self.data = b""

    def send(self, data: bytes, *, last: bool = False) -> None:
        del last
        self.data += data


def chat(delta: Any, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + msgspec.json.encode({"choices": [choice], "id": "x", "model": "m"}) + b"\n\n"


def call(api: Api, index: int, *pieces: str, name: str = "get_weather") -> list[bytes]:
    """The events of an engine's call, its arguments in pieces."""
    if api is Api.CHAT:
        function = {"name": name, "arguments": ""}
        begin = chat({"tool_calls": [{"index": index, "id": f"c{index}", "type": "function", "function": function}]})
        return [begin, *(chat({"tool_calls": [{"index": index, "function": {"arguments": p}}]}) for p in pieces)]
    block = {"type": "tool_use", "id": f"c{index}", "name": name, "input": {}}
    inner = [{"type": "input_json_delta", "partial_json": p} for p in pieces]
    deltas = [written({"type": "content_block_delta", "index": index, "delta": d}) for d in inner]
    begin = written({"type": "content_block_start", "index": index, "content_block": block})
    return [begin, *deltas, written({"type": "content_block_stop", "index": index})]


def end(api: Api, reason: str = "tool_calls") -> bytes:
    if api is Api.CHAT:
        return chat({}, reason)
    return written({"type": "message_delta", "delta": {"stop_reason": ENDS[reason]}})


def through(api: Api, parts: list[bytes], level: Level = Level.SAFE) -> tuple[list[bytes], list[str]]:
    """What has gone out after each part, and the steps."""
    healing, sink = Healing(api, read_fields(json.dumps({"tools": [TOOLS[api]]}).encode()), level), Sink()
    stream, seen = healing.stream(sink), []
    for part in parts:
        stream.send(part)
        seen.append(sink.data)
    return seen, healing.steps


def calls_in(data: bytes) -> list[tuple[str, str, Any]]:
    """Ids, names and arguments of the calls that a client puts together."""
    found: dict[int, list[str]] = {}
    for value in events(data):
        for one in value.get("choices", ()):
            for part in one["delta"].get("tool_calls", ()):
                mine = found.setdefault(part["index"], [part.get("id", ""), part["function"].get("name", ""), ""])
                mine[2] += part["function"].get("arguments") or ""
        if value.get("type") == "content_block_start":
            found[value["index"]] = [value["content_block"]["id"], value["content_block"]["name"], ""]
        if value.get("type") == "content_block_delta":
            found[value["index"]][2] += value["delta"]["partial_json"]
    return [(one, name, json.loads(arguments)) for one, name, arguments in found.values()]


@pytest.mark.parametrize("api", APIS)
def test_arguments_of_a_streamed_call_are_healed(api: Api) -> None:
    parts = [*call(api, 0, '{"city":"Os', 'lo","days":"3"}'), *call(api, 1, '{"city":"Rome"}', name="getWeather")]
    seen, steps = through(api, [*parts, end(api)])
    assert seen[-2] == b""
    wanted = [("c0", "get_weather", {"city": "Oslo", "days": 3}), ("c1", "get_weather", {"city": "Rome"})]
    assert calls_in(seen[-1]) == wanted
    assert steps == ["coerce", "name"]
    assert list(events(seen[-1]))[-1]["tool_calls_healed"] == steps


@pytest.mark.parametrize("api", APIS)
def test_a_right_call_goes_out_as_it_came(api: Api) -> None:
    parts = [*call(api, 0, '{"city":', '"Oslo"}'), end(api)]
    seen, steps = through(api, parts)
    assert (seen[-2], seen[-1], steps) == (b"", b"".join(parts), [])


@pytest.mark.parametrize("api", APIS)
def test_a_call_that_cannot_be_healed_goes_out_as_it_came(api: Api) -> None:
    parts = call(api, 0, '{"days":3}')
    seen = through(api, [*parts, end(api)])[0][-1]
    assert seen.startswith(b"".join(parts))
    assert list(events(seen))[-1]["invalid_tool_calls"][0]["cause"] == "city: missing"


@pytest.mark.parametrize("api", APIS)
def test_a_call_that_the_limit_cut_is_not_completed(api: Api) -> None:
    parts = call(api, 0, '{"city":"Os')
    seen, _ = through(api, [*parts, end(api, "length")])
    assert seen[-1].startswith(b"".join(parts))
    assert list(events(seen[-1]))[-1]["truncated_tool_call"] == "get_weather"


@pytest.mark.parametrize("api", APIS)
def test_with_healing_off_calls_pass_at_once(api: Api) -> None:
    parts = [*call(api, 0, '{"city":"Oslo","days":"3"}'), end(api)]
    seen, _ = through(api, parts, Level.OFF)
    assert seen[0] == parts[0]
    assert seen[-1] == b"".join(parts)


@pytest.mark.parametrize("api", APIS)
def test_a_large_call_goes_out_as_it_comes(api: Api) -> None:
    piece = "x" * 4096
    parts = [*call(api, 0, '{"city":"', *[piece] * (MOST_BYTES // 4096 + 2), '"}'), end(api)]
    seen, _ = through(api, parts)
    assert len(seen[-4]) > MOST_BYTES
    assert seen[-1].replace(COMMENT, b"") == b"".join(parts)


@pytest.mark.parametrize("api", APIS)
def test_comments_keep_the_connection_busy_while_a_call_is_held(api: Api) -> None:
    parts = call(api, 0, *["x"] * (2 * COMMENT_EVERY))
    assert through(api, parts)[0][-1] == COMMENT * 2


def test_a_chat_that_ends_without_a_reason_loses_no_call() -> None:
    healing, sink = (
        Healing(Api.CHAT, read_fields(json.dumps({"tools": [TOOLS[Api.CHAT]]}).encode()), Level.SAFE),
        Sink(),
    )
    stream, parts = healing.stream(sink), call(Api.CHAT, 0, '{"city":"Oslo"}')
    for part in parts:
        stream.send(part)
    stream.send(b"data: [DONE]\n\n", last=True)
    assert sink.data == b"".join(parts) + b"data: [DONE]\n\n"


def test_a_block_behind_the_calls_lets_them_go() -> None:
    block = {"type": "thinking", "thinking": ""}
    more = written({"type": "content_block_start", "index": 1, "content_block": block})
    parts = [*call(Api.MESSAGES, 0, '{"city":"Oslo","days":"3"}'), more]
    seen = through(Api.MESSAGES, [*parts, end(Api.MESSAGES)])[0][-1]
    assert seen.startswith(b"".join(parts))
    assert list(events(seen))[-1]["invalid_tool_calls"][0]["cause"] == "days: expected integer"


def test_comments_reach_a_client_of_the_responses_api() -> None:
    begun = as_response(b"")
    assert as_response(COMMENT) == begun + COMMENT
