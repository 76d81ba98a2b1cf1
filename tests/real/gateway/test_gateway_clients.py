"""Real clients and a real llama-server with the gateway between them: nobody notices that it is there."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.stages.gateway import Engine, Stage, open_request, real_gateway

pytestmark = pytest.mark.real

SUM = [{"role": "user", "content": "What is 2 + 2?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Oslo?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "Weather of a city", "parameters": CITY}
TOOLS = [{"type": "function", "function": TOOL}]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    profiles = {"tools": {"temperature": 0.6, "top_p": 0.95}}
    long = ("-c", "65536")  # "forever" is longer than a test takes
    with real_gateway(tmp_path_factory.mktemp("real"), llama_bin, extra=long, profiles=profiles) as found:
        yield found


@pytest.fixture(scope="module")
def client(stage: Stage) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stage.url}/v1", api_key="sk-no-key-required", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def claude(stage: Stage) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=stage.url, api_key="sk-no-key-required", max_retries=0) as found:
        yield found


# OpenAI's package


def test_chat_whole_and_streamed(client: openai.OpenAI) -> None:
    whole: Any = client.chat.completions.create(model="org/tiny", messages=SUM)  # type: ignore[call-overload]
    assert whole.choices[0].message.content == "2 + 2 = 4."
    assert whole.choices[0].message.reasoning_content == "Two plus two makes four.\n"
    assert whole.model == "org/tiny"
    assert whole.usage.completion_tokens > 0
    stream: Any = client.chat.completions.create(model="tiny:tools", messages=SUM, stream=True)  # type: ignore[call-overload]
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "2 + 2 = 4."
    assert {c.model for c in chunks} == {"tiny:tools"}
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_tool_is_called_and_its_result_used(client: openai.OpenAI) -> None:
    first: Any = client.chat.completions.create(model="tiny", messages=WEATHER, tools=TOOLS)  # type: ignore[call-overload]
    (call,) = first.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Oslo"})
    turn = {"role": "assistant", "content": "", "tool_calls": [call.model_dump()]}
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    second: Any = client.chat.completions.create(model="tiny", messages=[*WEATHER, turn, result], tools=TOOLS)  # type: ignore[call-overload]
    assert second.choices[0].message.content == "It is sunny in Oslo."


def test_completions_responses_and_models(client: openai.OpenAI) -> None:
    text = client.completions.create(model="tiny", prompt="What is 2 + 2?", max_tokens=6)
    assert text.choices[0].text
    answer = client.responses.create(model="tiny", input="What is 2 + 2?")
    assert answer.output_text == "2 + 2 = 4."
    events = client.responses.create(model="tiny", input="What is 2 + 2?", stream=True)
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "2 + 2 = 4."
    assert [m.id for m in client.models.list()] == ["tiny"]
    assert client.models.retrieve("org/tiny").id == "tiny"


def test_errors_are_the_clients_own_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="known models: tiny"):
        client.chat.completions.create(model="nope", messages=SUM)  # type: ignore[call-overload]
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.post("/chat/completions", body={"model": "tiny"}, cast_to=httpx.Response)
    with pytest.raises(openai.InternalServerError):
        client.embeddings.create(model="tiny", input="x")  # this llama-server was started without: 501


def test_thinking_is_switched_off_and_bounded(client: openai.OpenAI) -> None:
    def thought(**extra: Any) -> str:
        answer: Any = client.chat.completions.create(model="tiny", messages=SUM, extra_body=extra)  # type: ignore[call-overload]
        return getattr(answer.choices[0].message, "reasoning_content", "") or ""

    assert thought() == "Two plus two makes four.\n"
    assert thought(enable_thinking=False) == ""
    assert thought(reasoning={"effort": "none"}) == ""
    assert thought(thinking={"type": "disabled"}) == ""
    assert len(thought(thinking_budget=2)) < len(thought())


# Anthropic's package


def test_messages_whole_and_streamed(claude: anthropic.Anthropic) -> None:
    whole = claude.messages.create(model="org/tiny", max_tokens=100, messages=SUM)  # type: ignore[arg-type]
    assert [b.type for b in whole.content] == ["thinking", "text"]
    assert whole.content[1].text == "2 + 2 = 4."  # type: ignore[union-attr]
    assert whole.model == "org/tiny"
    with claude.messages.stream(model="tiny", max_tokens=100, messages=SUM) as stream:  # type: ignore[arg-type]
        assert "".join(stream.text_stream) == "2 + 2 = 4."
        assert stream.get_final_message().usage.output_tokens == whole.usage.output_tokens


def test_messages_call_a_tool_and_count_tokens(claude: anthropic.Anthropic) -> None:
    tool: Any = {"name": "get_weather", "description": "w", "input_schema": CITY}
    answer = claude.messages.create(model="tiny", max_tokens=100, messages=WEATHER, tools=[tool])  # type: ignore[arg-type]
    (use,) = [b for b in answer.content if b.type == "tool_use"]
    assert use.input == {"city": "Oslo"}
    assert answer.stop_reason == "tool_use"
    assert claude.messages.count_tokens(model="tiny", messages=SUM).input_tokens > 5  # type: ignore[arg-type]


def test_anthropics_errors_are_its_own_classes(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="known models: tiny"):
        claude.messages.create(model="nope", max_tokens=5, messages=SUM)  # type: ignore[arg-type]


# leaving


def busy(engine: Engine) -> int:
    """How many slots of a real llama-server work."""
    transport = httpx.HTTPTransport(uds=str(engine.socket))
    head = {"Authorization": f"Bearer {engine.key}"}
    with httpx.Client(transport=transport, headers=head, timeout=60) as direct:
        return sum(slot["is_processing"] for slot in direct.get("http://engine/slots").json())


FOREVER = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Count forever."}],
    "max_tokens": 100000,
    "ignore_eos": True,
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_who_leaves_frees_the_slot_while_another_streams(
    stage: Stage, eventually: Callable[..., None], stream: bool
) -> None:
    """llama-server alone would compute a whole answer to its end as long as another one streams."""
    (engine,) = stage.engines
    eventually(lambda: busy(engine) == 0)
    with open_request(stage, "/v1/chat/completions", {**FOREVER, "stream": True}) as steady:
        steady.until(b"data:")
        with open_request(stage, "/v1/chat/completions", {**FOREVER, "stream": stream}):
            eventually(lambda: busy(engine) == 2)
        eventually(lambda: busy(engine) == 1)
        steady.socket.shutdown(socket.SHUT_RDWR)
    eventually(lambda: busy(engine) == 0)
