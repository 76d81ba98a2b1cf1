"""Healed tool calls: the corpus on whole answers and on streams cut at every letter. Costs about 6 s."""
# ruff: noqa: E501  markup and events stay on one line

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.cli import cli
from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.request.json_fields import read_fields
from nemotron_ops.gateway.toolcalls.corpus import healed
from nemotron_ops.gateway.toolcalls.heal import Level
from nemotron_ops.gateway.toolcalls.healing import Healing, level_of
from nemotron_ops.gateway.toolcalls.history import arguments_of, mended_messages

CORPUS = Path(__file__).parents[2] / "corpora" / "toolcalls.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in CORPUS.read_text().splitlines()]
TEXTS = [c for c in CASES if not c.get("raw_calls") and c["level"] in ("safe", "never") and not c.get("raw_reasoning")]
TEXTS = [c for c in TEXTS if "raw_history_arguments" not in c]
HELD = [c for c in CASES if c["level"] in ("safe", "never", "full", "history")]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}}  # fmt: skip
LEAK = "<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>"


@pytest.mark.parametrize("case", HELD, ids=lambda c: c["id"])
def test_the_corpus(case: dict[str, Any]) -> None:
    found = healed(case, Level.FULL if case["level"] == "full" else Level.SAFE)
    assert {name: found[name] for name in case["expected"]} == case["expected"]


@pytest.mark.parametrize("case", [c for c in CASES if c["level"] == "never"], ids=lambda c: c["id"])
def test_what_must_never_become_a_call_does_not_in_full_either(case: dict[str, Any]) -> None:
    if case["id"] in ("never-json-answer",):
        return  # an answer in JSON is a loose form, which `full` may take where its schema fits
    assert healed(case, Level.FULL)["calls"] == case["expected"]["calls"]


class Sink:
    def __init__(self) -> None:
        self.data = b""

    def send(self, data: bytes, *, last: bool = False) -> None:
        del last
        self.data += data


def event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + msgspec.json.encode({"id": "x", "choices": [choice], "model": "m"}) + b"\n\n"


def fields(tools: Any, **more: Any) -> Any:
    return read_fields(msgspec.json.encode({"messages": [], "tools": tools, **more}))


def streamed(case: dict[str, Any], pieces: list[str]) -> dict[str, Any]:
    """What a client reads of a stream in `pieces`."""
    choice = {"tool_choice": case["tool_choice"]} if case.get("tool_choice") else {}
    healing, sink = Healing(Api.CHAT, fields(case["tools"], **choice), Level.SAFE), Sink()
    outlet = healing.stream(sink)
    outlet.send(event({"role": "assistant", "content": None}))
    for piece in pieces:
        outlet.send(event({"content": piece}))
    reason = case.get("engine_finish_reason") or "stop"
    outlet.send(event({}, reason) + b"data: [DONE]\n\n", last=True)
    content = ""
    calls: list[Any] = []
    ends: list[Any] = []
    for line in sink.data.split(b"\n\n"):
        if line.startswith(b"data: {"):
            value = msgspec.json.decode(line[6:])
            one = value["choices"][0]
            content += one["delta"].get("content") or ""
            calls += one["delta"].get("tool_calls") or []
            ends += [(one["finish_reason"], value.get("tool_calls_healed", []))] if one["finish_reason"] else []
    assert sink.data.endswith(b"data: [DONE]\n\n")
    ((reason, steps),) = ends
    called = [{"name": c["function"]["name"], "arguments": json.loads(c["function"]["arguments"])} for c in calls]
    return {"calls": called, "content": content, "finish_reason": reason, "steps": steps}


def text_of(case: dict[str, Any]) -> str:
    return case.get("raw_content") or "".join(d.get("content") or "" for d in case.get("raw_stream", []))


@pytest.mark.parametrize("case", TEXTS, ids=lambda c: c["id"])
def test_a_stream_cut_anywhere_is_healed_like_the_whole_answer(case: dict[str, Any]) -> None:
    text, expected = text_of(case), case["expected"]
    for cut in range(len(text) + 1):
        assert streamed(case, [text[:cut], text[cut:]]) == expected
    assert streamed(case, list(text)) == expected


@given(st.lists(st.sampled_from(["a < b", "<tool", "_call>", LEAK, "\n\n", "`", "```\n", "text ", "<function=", "[TOOL", "{}", "</"]), max_size=9),
       st.randoms(use_true_random=False))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_no_letter_of_a_stream_is_lost_however_it_is_cut(parts: list[str], random: Any) -> None:
    text, case = "".join(parts), {"tools": [TOOL]}
    whole, at, pieces = streamed(case, [text]), 0, []
    while at < len(text):
        step = random.randint(1, 9)
        pieces.append(text[at : at + step])
        at += step
    assert streamed(case, pieces) == whole
    if not whole["calls"]:
        assert whole["content"] == text


@given(st.lists(st.sampled_from(["a < b", "<tool", "_call>", LEAK, "\n\n", "`", ".\n", "text ", "<function=", " "]), max_size=9),
       st.booleans(), st.randoms(use_true_random=False))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_no_letter_of_the_thinking_is_lost_however_it_is_cut(parts: list[str], answered: bool, random: Any) -> None:
    text, at, sink = "".join(parts), 0, Sink()
    outlet = Healing(Api.CHAT, fields([TOOL]), Level.SAFE).stream(sink)
    while at < len(text):
        step = random.randint(1, 9)
        outlet.send(event({"reasoning_content": text[at : at + step]}))
        at += step
    if answered:
        outlet.send(event({"content": "So."}))
    outlet.send(event({}, "stop") + b"data: [DONE]\n\n", last=True)
    deltas = [msgspec.json.decode(e[6:])["choices"][0]["delta"] for e in sink.data.split(b"\n\n")[:-2]]
    thought = "".join(d.get("reasoning_content") or "" for d in deltas)
    assert "".join(d.get("content") or "" for d in deltas) == ("So." if answered else "")
    if any("tool_calls" in d for d in deltas):
        assert not answered
        assert text.startswith(thought)
    else:
        assert thought == text


def test_text_flows_before_the_end() -> None:
    healing, sink = Healing(Api.CHAT, fields([TOOL]), Level.SAFE), Sink()
    outlet = healing.stream(sink)
    outlet.send(event({"content": "a < b, and <"}))
    assert b"a < b, and" in sink.data
    outlet.send(event({"content": "b>"}))
    assert b"b>" in sink.data


def test_the_engines_own_calls_pass_as_they_come() -> None:
    healing, sink = Healing(Api.CHAT, fields([TOOL]), Level.SAFE), Sink()
    outlet = healing.stream(sink)
    call = event({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "get_weather", "arguments": "{"}}]})
    rest = event({"tool_calls": [{"index": 0, "function": {"arguments": '"city":"Oslo"}'}}]})
    end = event({}, "tool_calls")
    for part in (call, rest, end):
        outlet.send(part)
    assert sink.data == call + rest + end
    assert healing.answer is not None
    assert [str(c.outcome) for c in healing.answer.calls] == ["clean"]


def test_a_call_that_the_limit_cut_is_named_in_the_last_event() -> None:
    healing, sink = Healing(Api.CHAT, fields([TOOL]), Level.SAFE), Sink()
    outlet = healing.stream(sink)
    outlet.send(
        event({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "get_weather", "arguments": '{"ci'}}]})
    )
    outlet.send(event({}, "length"))
    assert msgspec.json.decode(sink.data.split(b"\n\n")[-2][6:])["truncated_tool_call"] == "get_weather"


def chat_body(reason: str = "stop", **message: Any) -> bytes:
    return msgspec.json.encode(
        {"choices": [{"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}]}
    )


def test_a_whole_chat_answer_is_healed_or_stays_as_it_came() -> None:
    healing = Healing(Api.CHAT, fields([TOOL]), Level.SAFE)
    choice = msgspec.json.decode(healing.whole(chat_body(content="Wait.\n\n" + LEAK)))["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "Wait.")
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city":"Oslo"}'}
    assert healing.steps == ["extract"]
    for body in (
        chat_body(content="plain"),
        chat_body(content=f"```\n{LEAK}\n```"),
        b"nonsense",
        b"[]",
        b'{"choices":[]}',
    ):
        assert Healing(Api.CHAT, fields([TOOL]), Level.SAFE).whole(body) == body
    off = Healing(Api.CHAT, fields([TOOL]), Level.OFF)
    assert off.whole(chat_body(content=LEAK)) == chat_body(content=LEAK)


def test_arguments_of_a_whole_answer_get_their_types() -> None:
    call = {
        "id": "a",
        "type": "function",
        "function": {"name": "getWeather", "arguments": '{"city":"Oslo","days":"3"}'},
    }
    healing = Healing(Api.CHAT, fields([TOOL]), Level.SAFE)
    answer = msgspec.json.decode(healing.whole(chat_body("tool_calls", content="", tool_calls=[call])))
    function = answer["choices"][0]["message"]["tool_calls"][0]["function"]
    assert function == {"name": "get_weather", "arguments": '{"city":"Oslo","days":3}'}
    assert healing.steps == ["coerce", "name"]


def test_messages_never_show_a_cut_call_as_one_without_arguments() -> None:
    tools = [{"name": "get_weather", "input_schema": TOOL["function"]["parameters"]}]  # type: ignore[index]
    body = {"content": [{"type": "text", "text": "So"}, {"type": "tool_use", "id": "a", "name": "get_weather", "input": {}}],
            "stop_reason": "max_tokens"}  # fmt: skip
    healing = Healing(Api.MESSAGES, fields(tools), Level.SAFE)
    found = msgspec.json.decode(healing.whole(msgspec.json.encode(body)))
    assert found["content"] == [{"type": "text", "text": "So"}]
    assert (found["stop_reason"], found["truncated_tool_call"]) == ("max_tokens", "get_weather")
    leak = {"content": [{"type": "text", "text": LEAK}], "stop_reason": "end_turn"}
    found = msgspec.json.decode(healing.whole(msgspec.json.encode(leak)))
    assert (found["content"][0]["input"], found["stop_reason"]) == ({"city": "Oslo"}, "tool_use")


@pytest.mark.parametrize(
    ("sent", "value", "mended"),
    [
        ('{"a":1}', {"a": 1}, False), ({"a": 1}, {"a": 1}, False), ("", {}, True), (None, {}, True), ("null", {}, True),
        ('"{\\"a\\":1}"', {"a": 1}, True), ('{"a":"b', {"a": "b"}, True), ("[1]", {"arguments": [1]}, True),
        ("words", {"arguments": "words"}, True), (5, {"arguments": 5}, True), ("NaN", {"arguments": "NaN"}, True),
    ],
)  # fmt: skip
def test_arguments_that_come_back_are_objects_and_lose_nothing(sent: Any, value: Any, mended: bool) -> None:
    assert arguments_of(sent) == (value, mended)
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": sent}}]
    found = mended_messages(msgspec.json.encode([{"role": "assistant", "tool_calls": calls}]))
    assert (found is not None) is mended
    if found is not None:
        assert json.loads(msgspec.json.decode(found)[0]["tool_calls"][0]["function"]["arguments"]) == value


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'[{"tool_calls":5}]', b'[{"tool_calls":[5,{}]}]', b'{"tool_calls"', b"null"]
)
def test_odd_histories_are_left_to_the_engine(raw: bytes) -> None:
    assert mended_messages(raw) is None


def test_the_header_chooses_the_level() -> None:
    assert level_of({}, "safe") is Level.SAFE
    assert level_of({b"x-heal-tool-calls": b" FULL "}, "safe") is Level.FULL
    assert level_of({b"x-heal-tool-calls": b"maximal"}, "off") is Level.OFF


def test_the_command_prints_one_object_a_line(tmp_path: Path) -> None:
    run = CliRunner()
    found = run.invoke(cli, ["tools", "heal", str(CORPUS), "--json"], standalone_mode=False)
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert [line["id"] for line in lines] == [case["id"] for case in CASES]
    assert "extract" in run.invoke(cli, ["tools", "heal", str(CORPUS)], standalone_mode=False).stdout
    for text in ("{", "[]", '{"id": 1}', '{"raw_calls": 5}', '{"raw_content": "x", "tools": 5}'):
        bad = tmp_path / "bad.jsonl"
        bad.write_text('{"raw_content": "x"}\n' + text)
        failed = run.invoke(cli, ["tools", "heal", str(bad)], standalone_mode=False)
        assert failed.exception is None or "line 2" in str(failed.exception)


def test_hostile_text_takes_no_long_time() -> None:
    """Nothing is quadratic: twice the text takes about twice the steps, counted by a text that is all openers."""
    for text in (
        "<" * 65536,
        "<function=get_weather>" * 3000,
        "<tool_call>" * 6000,
        "`" * 65536,
        "[TOOL_CALLS]{" * 5000,
    ):
        assert healed({"tools": [TOOL], "raw_content": text}, Level.FULL)["calls"] == []


CALLS = [
    {"index": n, "id": f"c{n}", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'}}
    for n in range(3)
]


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize(("field", "most", "left"), [(False, 0, 1), (True, 2, 2), (True, 0, 3)])
def test_calls_beyond_those_that_the_request_allows_are_left_out(
    level: Level, field: bool, most: int, left: int
) -> None:
    fields = read_fields(json.dumps({"tools": [TOOL], "parallel_tool_calls": field}).encode())
    whole: dict[str, Any] = {"choices": [{"message": {"tool_calls": CALLS}, "finish_reason": "tool_calls"}]}
    Healing(Api.CHAT, fields, level, most).value(whole)
    assert [c["id"] for c in whole["choices"][0]["message"]["tool_calls"]] == ["c0", "c1", "c2"][:left]
    for together in (False, True):
        sink, healing = Sink(), Healing(Api.CHAT, fields, level, most)
        stream = healing.stream(sink)
        for calls in [CALLS] if together else [[call] for call in CALLS]:
            stream.send(event({"tool_calls": calls}))
        stream.send(event({}, "tool_calls"))
        assert [n for n in range(3) if f'"c{n}"'.encode() in sink.data] == list(range(left))
        assert healing.steps == (["parallel"] if left < 3 else [])
