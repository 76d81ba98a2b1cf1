"""The choice of tools, as a real llama-server honours it through the gateway, in each API. Costs about 8 s."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from nemotron_ops.models.synthetic import ensure
from nemotron_ops.supervisor.snapshot import ModelView
from tests.stages.gateway import Engine, Stage, gateway

pytestmark = pytest.mark.real
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NAMES = ("get_weather", "get_time")
ASK: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]
IDLE: list[Any] = [{"role": "user", "content": "What is 2 + 2?"}]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("choice")
    model, binary = ensure("moe", tmp_path_factory.mktemp("model")), llama_bin / "llama-server"
    with gateway(folder) as found:
        engine = Engine(name="tiny-0", model=model, folder=folder, binary=binary)
        found.engines.append(engine)
        models = (ModelView(name="tiny", names=("tiny",)),)
        found.control.show(models=models, instances=(engine.start().view(),), default_model="tiny")
        found.settle()
        yield found


def chat_call(stage: Stage, choice: Any, *, stream: bool, asked: list[Any], **more: Any) -> tuple[list[Any], str, str]:
    """Calls as (name, arguments), content, and the finish reason."""
    client = openai.OpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0)
    tools: Any = [{"type": "function", "function": {"name": n, "parameters": SCHEMA}} for n in NAMES]
    given: Any = {"model": "tiny", "messages": asked, "tools": tools, "max_tokens": 200, "temperature": 0, **more}
    if not stream:
        answer = client.chat.completions.create(**given, tool_choice=choice).choices[0]
        calls = [(c.function.name, c.function.arguments) for c in answer.message.tool_calls or []]
        return calls, answer.message.content or "", answer.finish_reason
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    content = reason = ""
    for chunk in client.chat.completions.create(**given, tool_choice=choice, stream=True):
        for choice_ in chunk.choices:
            content += choice_.delta.content or ""
            reason = choice_.finish_reason or reason
            for call in choice_.delta.tool_calls or []:
                names[call.index] = names.get(call.index, "") + (call.function.name or "")
                arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
    return [(names[n], arguments[n]) for n in names], content, reason


def named(name: str) -> Any:
    return {"type": "function", "function": {"name": name}}


THINKING = [{}, {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}]


@pytest.mark.parametrize("more", THINKING, ids=["thinking", "direct"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "name"), [("required", ""), (named("get_weather"), "get_weather"), (named("get_time"), "get_time")]
)
def test_a_required_call_comes_in_a_chat(stage: Stage, choice: Any, name: str, stream: bool, more: Any) -> None:
    """Also where the model would say something else, and by the name that was asked for."""
    for asked in (ASK, IDLE):
        calls, content, reason = chat_call(stage, choice, stream=stream, asked=asked, **more)
        assert (len(calls), content, reason) == (1, "", "tool_calls")
        assert calls[0][0] == name if name else calls[0][0] in NAMES
        assert set(json.loads(calls[0][1])) == {"city"}


@pytest.mark.parametrize("stream", [False, True])
def test_with_none_there_is_no_call_and_no_markup(stage: Stage, stream: bool) -> None:
    calls, content, reason = chat_call(stage, "none", stream=stream, asked=ASK)
    assert (calls, reason) == ([], "stop")
    assert content
    assert "<" not in content


def test_auto_is_the_models_own_choice(stage: Stage) -> None:
    assert [c[0] for c in chat_call(stage, "auto", stream=False, asked=ASK)[0]] == ["get_weather"]
    assert chat_call(stage, "auto", stream=False, asked=IDLE)[0] == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "name"), [({"type": "any"}, ""), ({"type": "tool", "name": "get_time"}, "get_time")]
)
def test_a_required_call_comes_in_messages(stage: Stage, choice: Any, name: str, stream: bool) -> None:
    client = anthropic.Anthropic(base_url=stage.url, api_key="none", max_retries=0)
    tools: Any = [{"name": n, "input_schema": SCHEMA} for n in NAMES]
    for asked in (ASK, IDLE):
        given: Any = {"model": "tiny", "messages": asked, "tools": tools, "tool_choice": choice, "max_tokens": 200}
        given["extra_body"] = {"temperature": 0}
        if stream:
            with client.messages.stream(**given) as events:
                answer = events.get_final_message()
        else:
            answer = client.messages.create(**given)
        (block,) = answer.content
        assert block.type == "tool_use"
        assert block.name == name if name else block.name in NAMES
        assert (set(block.input), answer.stop_reason) == ({"city"}, "tool_use")  # type: ignore[call-overload]


def test_with_none_messages_have_no_call(stage: Stage) -> None:
    client = anthropic.Anthropic(base_url=stage.url, api_key="none", max_retries=0)
    tools: Any = [{"name": n, "input_schema": SCHEMA} for n in NAMES]
    given: Any = {"model": "tiny", "messages": ASK, "tools": tools, "max_tokens": 200, "tool_choice": {"type": "none"}}
    assert {b.type for b in client.messages.create(**given).content} <= {"thinking", "text"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_time"}])
def test_a_required_call_comes_in_responses(stage: Stage, choice: Any, stream: bool) -> None:
    client = openai.OpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0)
    tools: Any = [{"type": "function", "name": n, "parameters": SCHEMA} for n in NAMES]
    given: Any = {"model": "tiny", "input": "What is 2 + 2?", "tools": tools, "tool_choice": choice}
    given |= {"temperature": 0, "max_output_tokens": 200}
    if stream:
        with client.responses.stream(**given) as events:
            answer = events.get_final_response()
    else:
        answer = client.responses.create(**given)
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert call.name == (choice["name"] if isinstance(choice, dict) else call.name)
    assert (set(json.loads(call.arguments)), answer.status) == ({"city"}, "completed")


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
SOUND = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
LOST: Any = {"type": "object", "properties": {"a": {"$ref": "#/definitions/Nope"}}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": [IMAGE]}]},
        {"messages": [{"role": "user", "content": [SOUND]}]},
        {"messages": ASK, "tools": [{"type": "function", "function": {"name": "f", "parameters": LOST}}]},
    ],
    ids=["image", "sound", "ref"],
)
def test_what_a_request_will_always_cause_is_no_500(stage: Stage, body: Any, stream: bool) -> None:
    client = openai.OpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="tiny", stream=stream, **body)
