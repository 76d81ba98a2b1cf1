"""The responses API in front of a chat: what goes to the engine, and what the client is told. Pure."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.request.json_fields import read_fields
from nemotron_ops.gateway.responses.conversion import Conversion
from nemotron_ops.gateway.responses.stream import ResponsesStream
from nemotron_ops.gateway.responses.thoughts import packed, unpacked
from nemotron_ops.gateway.responses.translate import chat_body, chat_request
from nemotron_ops.gateway.responses.turn import Turn
from nemotron_ops.gateway.streams import sse
from tests.fakes.scripted_engine import call_events, events
from tests.fakes.told import Sent

USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "hello"}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}
NAMES = {"response", "item", "part"}


def turn() -> Turn:
    return Turn(id="resp_0123456789abcdef", serial="0123456789abcdef", created_at=5, asked="m")


def translated(found: Turn | None = None, **fields: Any) -> dict[str, Any]:
    """The chat request for a response's `fields`."""
    body = msgspec.json.encode({"model": "m", **fields})
    before = {"resp_1": [USER, ASSISTANT]}
    items = {"msg_1": {"type": "message", **ASSISTANT}}
    chat = chat_request(read_fields(body), found or turn(), lambda name: before[name], items.get)
    return dict(json.loads(chat_body(chat)))


def refusal(**fields: Any) -> str:
    with pytest.raises(Refusal) as found:
        translated(**fields)
    assert found.value.status == 400
    return found.value.code


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FUNCTION_CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": [{"type": "output_text", "text": "sunny"}]}
TOOL = {"role": "tool", "tool_call_id": "c", "content": "sunny"}
PATCH = {"id": "c", "type": "function", "function": {"name": "apply_patch", "arguments": '{"input":"x"}'}}
SHELL = {"id": "c", "type": "function", "function": {"name": "local_shell", "arguments": '{"command":["ls"]}'}}
SEARCH = {"id": "w", "type": "function", "function": {"name": "web_search", "arguments": '{"query":"q"}'}}


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ("hi", [USER]),
        ([USER, ASSISTANT, USER], [USER, ASSISTANT, USER]),
        ([USER, {"role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}], [USER, ASSISTANT]),
        ([{"type": "item_reference", "id": "msg_1"}, USER], [ASSISTANT, USER]),
        ([FUNCTION_CALL, RESULT], [{"role": "assistant", "content": "", "tool_calls": [CALL]}, TOOL]),
        (
            [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}, FUNCTION_CALL],
            [{"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [CALL]}],
        ),
        (
            [{"type": "reasoning", "summary": [], "encrypted_content": packed("hm")}, {"type": "message", **ASSISTANT}],
            [{**ASSISTANT, "reasoning_content": "hm"}],
        ),
        ([{"type": "reasoning", "summary": []}, ASSISTANT], [ASSISTANT]),
        (
            [{"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "x"},
             {"type": "custom_tool_call_output", "call_id": "c", "output": "sunny"}],
            [{"role": "assistant", "content": "", "tool_calls": [PATCH]}, TOOL],
        ),
        (
            [{"type": "local_shell_call", "call_id": "c", "action": {"command": ["ls"]}},
             {"type": "local_shell_call_output", "call_id": "c", "output": "sunny"}],
            [{"role": "assistant", "content": "", "tool_calls": [SHELL]}, TOOL],
        ),
        (
            [{"type": "web_search_call", "id": "w", "status": "completed", "action": {"query": "q"}}, ASSISTANT],
            [{"role": "assistant", "content": "", "tool_calls": [SEARCH]},
             {"role": "tool", "tool_call_id": "w", "content": "completed"}, ASSISTANT],
        ),
        ([{"role": "developer", "content": "a"}, {"role": "system", "content": "b"}, USER],
         [{"role": "system", "content": "a\n\nb"}, USER]),
    ],
)  # fmt: skip
def test_items_become_the_messages_of_a_chat(items: Any, messages: list[Any]) -> None:
    assert translated(input=items)["messages"] == messages


def test_instructions_come_first_and_are_not_those_of_the_turn_before() -> None:
    found = translated(input="hi", instructions="short", previous_response_id="resp_1")
    assert found["messages"] == [{"role": "system", "content": "short"}, USER, ASSISTANT, USER]


def test_fields_are_those_of_a_chat() -> None:
    schema = {"type": "object"}
    found = translated(
        input="hi", max_output_tokens=7, temperature=0.5, tools=[FUNCTION], parallel_tool_calls=False, stream=True,
        text={"format": {"type": "json_schema", "name": "n", "schema": schema}}, reasoning={"effort": "none"},
        store=False, include=["message.output_text.logprobs"], top_logprobs=2, metadata={}, truncation="disabled",
    )  # fmt: skip
    assert found.pop("messages") == [USER]
    assert found == {
        "model": "m", "max_tokens": 7, "temperature": 0.5, "stream": True, "stream_options": {"include_usage": True},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "parallel_tool_calls": False, "reasoning": {"effort": "none"}, "logprobs": True, "top_logprobs": 2,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", "none"),
        ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "custom", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]}, "required"),
    ],
)
def test_a_choice_of_tools_is_that_of_a_chat(choice: Any, expected: Any) -> None:
    found = translated(input="hi", tools=[FUNCTION, {**FUNCTION, "name": "g"}], tool_choice=choice)
    assert found["tool_choice"] == expected
    assert [t["function"]["name"] for t in found["tools"]] == (["f"] if expected == "required" else ["f", "g"])


def test_a_call_that_is_forced_takes_the_place_of_a_form() -> None:
    choice = {"type": "function", "name": "f"}
    text = {"format": {"type": "json_object"}}
    assert "response_format" not in translated(input="hi", tools=[FUNCTION], tool_choice=choice, text=text)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"input": [{"type": "compaction", "id": "x"}]}, "invalid_input"),
        ({"input": [{"type": "item_reference", "id": "msg_2"}]}, "invalid_input"),
        ({"input": [{"role": "tool", "content": "x"}]}, "invalid_input"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "invalid_input"),
        ({}, "invalid_input"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools_not_enabled"),
        ({"input": "x", "tools": [FUNCTION], "tool_choice": {"type": "web_search"}}, "invalid_field"),
        ({"input": "x", "background": True}, "unsupported_field"),
        ({"input": "x", "conversation": "c"}, "unsupported_field"),
        ({"input": "x", "truncation": "auto"}, "unsupported_field"),
        ({"input": "x", "n": 2}, "invalid_field"),
    ],
    ids=str,
)
def test_what_would_be_dropped_in_silence_is_refused(fields: dict[str, Any], code: str) -> None:
    assert refusal(**fields) == code


@pytest.mark.parametrize("text", ["", "nops1.", "nops1.!", "gAAAA", packed("x")[:-4], packed("x" * (2 << 20))])
def test_what_is_not_packed_reasoning_is_no_reasoning(text: str) -> None:
    assert unpacked(text) == ""


# what the client is told


def streamed(chat: list[bytes], found: Turn | None = None) -> list[dict[str, Any]]:
    """The events of a response for those of a chat."""
    sent = Sent()
    stream = ResponsesStream(found or turn(), sent, now=lambda: 9.0, ended=lambda _: None)
    for event in chat:
        stream.send(event, last=event == sse.DONE)
    return list(sse.events(sent.data))


def finished(chat: list[bytes], reason: str) -> list[bytes]:
    return [event.replace(b'"finish_reason": "stop"', b'"finish_reason": "%b"' % reason.encode()) for event in chat]


CUT = call_events("chat", ("{", '"city":"Os'))


@pytest.mark.parametrize("chat", [events("chat"), events("chat", (), ("Hm.",)), call_events("chat"), CUT], ids=len)
def test_a_streams_events_are_numbered_and_name_their_place(chat: list[bytes]) -> None:
    found = streamed(chat)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event["type"] for event in found[:2]] == ["response.created", "response.in_progress"]
    assert all(NAMES & event.keys() or "output_index" in event for event in found)
    for event in found[2:-1]:
        assert "output_index" in event
        assert "item" in event or "item_id" in event
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert found[-1]["response"]["output"] == done
    for index, item in enumerate(done):
        (added,) = [e for e in found if e["type"] == "response.output_item.added" and e["item"]["id"] == item["id"]]
        assert added["output_index"] == index


def test_a_stream_that_the_limit_cut_is_incomplete() -> None:
    cut = [event.replace(b'"stop"', b'"length"') for event in events("chat")]
    last = streamed(cut)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["status"] == "incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["output"][-1]["status"] == "incomplete"


def test_a_call_that_the_limit_cut_is_named_and_never_done() -> None:
    cut = [event.replace(b'"tool_calls"', b'"length"') if b'"finish_reason": "tool_calls"' in event
           or b'"finish_reason":"tool_calls"' in event else event for event in CUT]  # fmt: skip
    found = streamed(cut)
    assert found[-1]["type"] == "response.incomplete"
    assert found[-1]["response"]["truncated_tool_call"] == "get_weather"
    assert found[-1]["response"]["output"] == []
    assert not [event for event in found if "done" in event["type"]]


def whole(finish: str, **message: Any) -> dict[str, Any]:
    chat = {"choices": [{"finish_reason": finish, "message": message}], "usage": {"completion_tokens": 4}}
    told: dict[str, Any] = json.loads(
        Conversion(turn(), keep=lambda *_: None, now=lambda: 9.0).whole(msgspec.json.encode(chat))
    )
    return told


def test_a_whole_answer_that_the_limit_cut_is_incomplete() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": '{"a":"b'}}
    told = whole("length", content="", tool_calls=[call])
    assert (told["status"], told["truncated_tool_call"], told["output"]) == ("incomplete", "f", [])
    assert whole("length", content="wor")["output"][0]["status"] == "incomplete"
    assert whole("stop", content="word")["incomplete_details"] is None


def test_free_text_is_the_input_of_a_custom_call() -> None:
    found = turn()
    found.custom = frozenset({"get_weather"})
    said = streamed(call_events("chat", ('{"input":"', "*** Begin", '"}')), found)
    (done,) = [event["item"] for event in said if event["type"] == "response.output_item.done"]
    assert (done["type"], done["input"]) == ("custom_tool_call", "*** Begin")
    assert [event["input"] for event in said if event["type"] == "response.custom_tool_call_input.done"] == [
        "*** Begin"
    ]


def test_a_stream_that_fails_says_so_as_openai_does() -> None:
    sent = Sent()
    stream = ResponsesStream(turn(), sent, now=lambda: 9.0, ended=lambda _: None)
    error, failed = list(sse.events(stream.failed({"type": "t", "code": "context_length_exceeded", "message": "m"})))[
        -2:
    ]
    assert (error["type"], error["code"], error["error"]["code"]) == ("error", *["context_length_exceeded"] * 2)
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"] == {"code": "context_length_exceeded", "message": "m"}


def test_a_response_has_the_fields_that_strict_readers_require() -> None:
    told = whole("stop", content="word")
    assert told["usage"]["output_tokens_details"] == {"reasoning_tokens": 0}
    assert told["usage"]["input_tokens_details"] == {"cached_tokens": 0}
    assert (told["parallel_tool_calls"], told["tool_choice"], told["tools"]) == (True, "auto", [])
