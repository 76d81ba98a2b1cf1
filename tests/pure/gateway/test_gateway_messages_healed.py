"""Healed streams of the messages API: the corpus cut at every letter, blocks and indexes. Costs about 4 s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.request.json_fields import read_fields
from nemotron_ops.gateway.toolcalls.heal import Level
from nemotron_ops.gateway.toolcalls.healing import Healing
from nemotron_ops.gateway.toolcalls.messages_stream import written

CORPUS = Path(__file__).parents[2] / "corpora" / "toolcalls.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in CORPUS.read_text().splitlines()]
CASES = [c for c in CASES if c["level"] in ("safe", "never") and not c.get("raw_calls") and not c.get("raw_reasoning")]
CASES = [c for c in CASES if "raw_history_arguments" not in c and c.get("tool_choice") is None]
REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"name": "get_weather", "input_schema": SCHEMA}]
LEAK = "<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>"
END = b"\n\n"
USE: dict[str, Any] = {"type": "tool_use", "id": "a", "name": "get_weather", "input": {}}


class Sink:
    def __init__(self) -> None:
        self.data = b""

    def send(self, data: bytes, *, last: bool = False) -> None:
        del last
        self.data += data


class Client:
    """What Anthropic's clients make of the events: a new block is the next one, deltas belong to open blocks."""

    def __init__(self, data: bytes) -> None:
        self.blocks: list[dict[str, Any]] = []
        self.end: dict[str, Any] = {}
        opened: set[int] = set()
        for part in data.split(b"\n\n")[:-1]:
            name, _, line = part.partition(b"\n")
            value = msgspec.json.decode(line.removeprefix(b"data: "))
            assert name == b"event: " + value["type"].encode()
            match value["type"]:
                case "content_block_start":
                    assert value["index"] == len(self.blocks)
                    opened.add(value["index"])
                    self.blocks.append({**value["content_block"], "json": ""})
                case "content_block_delta":
                    assert value["index"] in opened
                    block, delta = self.blocks[value["index"]], value["delta"]
                    block["text"] = block.get("text", "") + delta.get("text", "")
                    block["json"] += delta.get("partial_json", "")
                case "content_block_stop":
                    opened.remove(value["index"])
                case _:
                    self.end = value
        assert not opened

    @property
    def text(self) -> str:
        return "".join(b["text"] for b in self.blocks if b["type"] == "text")

    @property
    def calls(self) -> list[dict[str, Any]]:
        used = [b for b in self.blocks if b["type"] == "tool_use"]
        return [{"name": b["name"], "arguments": json.loads(b["json"])} for b in used]


def start(index: int, block: dict[str, Any]) -> bytes:
    return written({"type": "content_block_start", "index": index, "content_block": block})


def delta(index: int, **value: Any) -> bytes:
    return written({"type": "content_block_delta", "index": index, "delta": value})


def stop(index: int) -> bytes:
    return written({"type": "content_block_stop", "index": index})


def said(index: int, *pieces: str) -> list[bytes]:
    deltas = [delta(index, type="text_delta", text=piece) for piece in pieces]
    return [start(index, {"type": "text", "text": ""}), *deltas, stop(index)]


def used(index: int, *pieces: str) -> list[bytes]:
    deltas = [delta(index, type="input_json_delta", partial_json=piece) for piece in pieces]
    return [start(index, {**USE, "id": f"c{index}"}), *deltas, stop(index)]


def ended(reason: str) -> bytes:
    return written({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 1}})


def client(events: list[bytes], *, tools: Any = TOOLS, level: Level = Level.SAFE, **more: Any) -> Client:
    fields = read_fields(msgspec.json.encode({"tools": tools, **more}))
    sink = Sink()
    stream = Healing(Api.MESSAGES, fields, level).stream(sink)
    for event in events:
        stream.send(event)
    return Client(sink.data)


def streamed(case: dict[str, Any], pieces: list[str]) -> dict[str, Any]:
    reason = REASONS[case.get("engine_finish_reason") or "stop"]
    found = client([*said(0, *pieces), ended(reason)], tools=case["tools"])
    healed = {"content": found.text, "calls": found.calls, "steps": found.end.get("tool_calls_healed", [])}
    return {**healed, "finish_reason": found.end["delta"]["stop_reason"]}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
def test_a_stream_cut_anywhere_is_healed_like_the_whole_answer(case: dict[str, Any]) -> None:
    text = case.get("raw_content") or "".join(d.get("content") or "" for d in case.get("raw_stream", []))
    expected = {**case["expected"], "finish_reason": REASONS[case["expected"]["finish_reason"]]}
    expected = {name: expected[name] for name in ("content", "calls", "steps", "finish_reason")}
    for cut in range(len(text) + 1):
        assert streamed(case, [text[:cut], text[cut:]]) == expected
    assert streamed(case, list(text)) == expected


@given(st.lists(st.sampled_from(["a < b", "<tool", "_call>", LEAK, "\n\n", "`", "```\n", "text ", "</"]), max_size=9))
@settings(max_examples=150, deadline=None)
def test_no_letter_of_a_stream_is_lost(parts: list[str]) -> None:
    whole = client([*said(0, "".join(parts)), ended("end_turn")])
    pieces = client([*said(0, *parts), ended("end_turn")])
    assert (pieces.text, pieces.calls) == (whole.text, whole.calls)
    if not whole.calls:
        assert whole.text == "".join(parts)


def test_an_answer_that_is_all_call_has_no_empty_text() -> None:
    found = client([*said(0, LEAK), ended("end_turn")])
    assert [b["type"] for b in found.blocks] == ["tool_use"]
    assert found.blocks[0]["id"]


def test_thoughts_and_the_engines_own_calls_pass_as_they_come() -> None:
    events = [
        start(0, {"type": "thinking", "thinking": ""}),
        delta(0, type="thinking_delta", thinking="<tool"),
        stop(0),
    ]
    events += used(1, '{"city":', '"Oslo"}')
    sink = Sink()
    fields = read_fields(msgspec.json.encode({"tools": TOOLS}))
    healing = Healing(Api.MESSAGES, fields, Level.SAFE)
    stream = healing.stream(sink)
    for event in [*events, ended("tool_use")]:
        stream.send(event)
    assert sink.data == b"".join([*events, ended("tool_use")])
    assert healing.answer is not None
    assert [str(c.outcome) for c in healing.answer.calls] == ["clean"]


def test_text_that_is_held_goes_out_before_the_engines_own_call() -> None:
    found = client([*said(0, "Wait.", "\n<tool"), *used(1, '{"city":"Oslo"}'), ended("tool_use")])
    assert found.text == "Wait.\n<tool"
    assert [b["type"] for b in found.blocks] == ["text", "tool_use"]


def test_a_call_that_the_limit_cut_is_named_and_never_empty() -> None:
    found = client([*used(0, '{"ci'), ended("max_tokens")])
    assert (found.end["truncated_tool_call"], found.blocks[0]["json"]) == ("get_weather", '{"ci')


@pytest.mark.parametrize("level", list(Level))
def test_only_the_first_call_is_kept_where_no_parallel_ones_are_allowed(level: Level) -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    arguments = '{"city":"Oslo"}'
    events = [*used(0, arguments), *used(1, arguments), *used(2, arguments), ended("tool_use")]
    found = client(events, level=level, tool_choice=choice)
    assert [b["id"] for b in found.blocks] == ["c0"]
    assert found.end["tool_calls_healed"] == ["parallel"]


def test_off_promotes_nothing() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    for more in ({}, {"tool_choice": choice}):
        assert client([*said(0, LEAK), ended("end_turn")], level=Level.OFF, **more).text == LEAK


@pytest.mark.parametrize("api", [Api.CHAT, Api.MESSAGES])
@pytest.mark.parametrize("level", [Level.SAFE, Level.FULL])
def test_plain_words_pass_by_their_bytes_and_quoted_markup_is_still_seen(api: Api, level: Level) -> None:
    """The text of events that were not decoded is known where a marker comes: here it stands in a fence."""

    def chat(text: str) -> bytes:
        return b"data: " + msgspec.json.encode({"choices": [{"finish_reason": None, "delta": {"content": text}}]}) + END

    words = ["See", "this", "see", "this:\n", "```\n", "x", "x", LEAK, "\n```", " x"]
    sink = Sink()
    tools = TOOLS if api is Api.MESSAGES else [{"type": "function", "function": {"name": "get_weather"}}]
    stream: Any = Healing(api, read_fields(msgspec.json.encode({"tools": tools})), level).stream(sink)
    if api is Api.MESSAGES:
        stream.send(said(0)[0])
    for word in words * 2:
        stream.send(chat(word) if api is Api.CHAT else delta(0, type="text_delta", text=word))
    if api is Api.CHAT:
        stream.send(chat("").replace(b"null", b'"stop"'))
        events = [msgspec.json.decode(part[6:]) for part in sink.data.split(END)[:-1]]
        assert "".join(e["choices"][0]["delta"].get("content") or "" for e in events) == "".join(words * 2)
    else:
        for event in (stop(0), ended("end_turn")):
            stream.send(event)
        assert Client(sink.data).text == "".join(words * 2)
