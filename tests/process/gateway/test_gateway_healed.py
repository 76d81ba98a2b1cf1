"""Healed tool calls through a whole gateway, in front of an engine that leaks them as text. Costs about 3 s."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from nemotron_ops.supervisor.snapshot import ModelView
from tests.fakes.scripted_engine import STREAM_HEAD, Heard, ScriptedEngine, chunk, events
from tests.stages.gateway import Stage, gateway

pytestmark = pytest.mark.process
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
WORDS = (
    "I look.",
    "\n\n<func",
    "tion=get_weather>\n<parameter=city>\nOs",
    "lo\n</parameter>\n</function>\n</tool_call>",
)
CALL = {"name": "get_weather", "arguments": '{"city":"Oslo"}'}


def leaks(s: socket.socket, request: Heard) -> None:
    """A stream, or a whole answer, that says a call as text."""
    if request.json.get("stream"):
        s.sendall(STREAM_HEAD + b"".join(map(chunk, events("chat", WORDS))) + chunk(b""))
        return
    message = {"role": "assistant", "content": "".join(WORDS)}
    body = json.dumps(
        {"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "model": "engine"}
    ).encode()
    s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedEngine]:
    made = ScriptedEngine(name="m-0", path=tmp_path_factory.mktemp("engine") / "e.sock", play=leaks).start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, engine: ScriptedEngine) -> Iterator[Stage]:
    with gateway(tmp_path_factory.mktemp("healed")) as found:
        found.control.show(models=(ModelView(name="m", names=("m",)),), instances=(engine.view(),))
        found.settle()
        yield found


def ask(stage: Stage, **more: Any) -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "tools": TOOLS, **more.pop("body", {})}
    return httpx.post(f"{stage.url}/v1/chat/completions", json=body, timeout=30, **more)


@pytest.mark.parametrize("limit", [{}, {"max_tokens": 2}], ids=["folded", "whole"])
def test_a_whole_chat_answer_is_healed(stage: Stage, limit: dict[str, Any]) -> None:
    answer = ask(stage, body=limit)
    choice = answer.json()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "I look.")
    assert choice["message"]["tool_calls"][0]["function"] == CALL
    assert answer.headers["x-tool-calls-healed"] == "extract"


def test_a_streamed_chat_answer_is_healed(stage: Stage) -> None:
    client = openai.OpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0)
    content = ""
    calls: list[Any] = []
    marks: list[Any] = []
    chat: Any = client.chat.completions
    for part in chat.create(model="m", messages=[{"role": "user", "content": "Hi"}], tools=TOOLS, stream=True):
        for choice in part.choices:
            content += choice.delta.content or ""
            calls += choice.delta.tool_calls or []
            marks += [getattr(part, "tool_calls_healed", None)] if choice.finish_reason else []
    assert (content, marks) == ("I look.", [["extract"]])
    assert [c.function.model_dump() for c in calls] == [CALL]


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_is_healed(stage: Stage, stream: bool) -> None:
    client = openai.OpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0)
    tools: Any = [{"type": "function", "name": "get_weather", "parameters": SCHEMA}]
    given: Any = {"model": "m", "input": "Hi", "tools": tools}
    if stream:
        with client.responses.stream(**given) as found:
            answer = found.get_final_response()
    else:
        answer = client.responses.create(**given)
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert {"name": call.name, "arguments": call.arguments} == CALL


def test_the_header_turns_it_off(stage: Stage) -> None:
    answer = ask(stage, headers={"X-Heal-Tool-Calls": "off"})
    assert answer.json()["choices"][0]["message"]["content"] == "".join(WORDS)
    assert "x-tool-calls-healed" not in answer.headers


def test_without_tools_nothing_is_looked_at(stage: Stage) -> None:
    answer = ask(stage, body={"tools": []})
    assert answer.json()["choices"][0]["message"]["content"] == "".join(WORDS)


def test_broken_arguments_in_the_history_reach_the_engine_as_objects(stage: Stage, engine: ScriptedEngine) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Os'}}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    ask(stage, body={"messages": [*messages, {"role": "tool", "tool_call_id": "a", "content": "-"}]})
    sent = engine.heard[-1].json["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(sent) == {"city": "Os"}


def test_calls_are_counted_by_how_they_ended(stage: Stage) -> None:
    ask(stage)
    metrics = httpx.get(f"{stage.url}/metrics").text
    assert 'nemotron_ops_tool_calls_total{model="m",outcome="healed"}' in metrics
    assert 'nemotron_ops_tool_call_heals_total{model="m",step="extract"}' in metrics
