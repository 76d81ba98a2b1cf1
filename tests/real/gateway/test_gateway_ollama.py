"""Ollama's own client against the gateway and a real llama-server: chat, generate, tools, pages, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import ollama
import pytest

from tests.stages.gateway import Stage, real_gateway

pytestmark = pytest.mark.real

SUM = [{"role": "user", "content": "What is 2 + 2?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Oslo?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": CITY}}]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    with real_gateway(tmp_path_factory.mktemp("ollama"), llama_bin) as found:
        yield found


@pytest.fixture(scope="module")
def client(stage: Stage) -> Iterator[ollama.Client]:
    with ollama.Client(host=stage.url) as found:
        yield found


def test_chat_whole_and_streamed(client: ollama.Client) -> None:
    options = {"temperature": 0.0, "num_ctx": 1024, "num_gpu": 99}
    whole = client.chat(model="tiny:latest", messages=SUM, options=options, keep_alive="5m")
    assert whole.message.content == "2 + 2 = 4."
    assert whole.message.thinking == "Two plus two makes four.\n"
    assert (whole.model, whole.done, whole.done_reason) == ("tiny", True, "stop")
    assert all((whole.eval_count, whole.prompt_eval_count, whole.total_duration, whole.eval_duration))
    parts = list(client.chat(model="tiny", messages=SUM, stream=True))
    assert "".join(p.message.content or "" for p in parts) == "2 + 2 = 4."
    assert "".join(p.message.thinking or "" for p in parts) == "Two plus two makes four.\n"
    assert [p.done for p in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == whole.eval_count


def test_thinking_is_switched_off_and_a_limit_is_told(client: ollama.Client) -> None:
    assert not client.chat(model="tiny", messages=SUM, think=False).message.thinking
    cut = client.chat(model="tiny", messages=SUM, options={"num_predict": 8})
    assert (cut.done_reason, cut.eval_count) == ("length", 8)


def test_generate(client: ollama.Client) -> None:
    assert client.generate(model="tiny", prompt="What is 2 + 2?").response == "2 + 2 = 4."
    parts = list(client.generate(model="tiny", prompt="What is 2 + 2?", system="Be brief.", stream=True))
    assert "".join(p.response for p in parts).strip()
    assert parts[-1].done_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_used(client: ollama.Client, stream: bool) -> None:
    if stream:
        parts = list(client.chat(model="tiny", messages=WEATHER, tools=TOOLS, stream=True))
        calls = [call for part in parts for call in part.message.tool_calls or ()]
    else:
        calls = list(client.chat(model="tiny", messages=WEATHER, tools=TOOLS).message.tool_calls or ())
    assert [(c.function.name, c.function.arguments) for c in calls] == [("get_weather", {"city": "Oslo"})]
    turn = {"role": "assistant", "content": "", "tool_calls": [c.model_dump() for c in calls]}
    result = {"role": "tool", "tool_name": "get_weather", "content": "sunny"}
    assert client.chat(model="tiny", messages=[*WEATHER, turn, result], tools=TOOLS).message.content == (
        "It is sunny in Oslo."
    )


def test_pages(client: ollama.Client, stage: Stage) -> None:
    assert [m.model for m in client.list().models] == ["tiny"]
    assert [m.model for m in client.ps().models] == ["tiny"]
    assert "tools" in (client.show("tiny").capabilities or ())
    assert httpx.get(f"{stage.url}/api/version").json()["version"]


@pytest.mark.parametrize(("call", "command"), [("pull", "nemotron-ops add"), ("delete", "nemotron-ops remove")])
def test_what_changes_models_is_refused_with_the_command(client: ollama.Client, call: str, command: str) -> None:
    with pytest.raises(ollama.ResponseError, match=command) as caught:
        getattr(client, call)("other")
    assert caught.value.status_code == 403


def test_errors_have_ollamas_shape(client: ollama.Client) -> None:
    for model, options, status in (("other", {}, 404), ("tiny", {"num_ctx": 1 << 24}, 400), ("tiny", {"wild": 1}, 400)):
        with pytest.raises(ollama.ResponseError) as caught:
            client.chat(model=model, messages=SUM, options=options)
        assert caught.value.status_code == status
        assert not caught.value.error.startswith("{")
    with pytest.raises(ollama.ResponseError, match="maximum context length"):
        client.chat(model="tiny", messages=[{"role": "user", "content": "word " * 9000}])


def test_embed_is_refused_by_an_engine_without_embeddings(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.embed(model="tiny", input="text")
    assert caught.value.status_code >= 400


def test_embed(tmp_path: Path, llama_bin: Path) -> None:
    extra = ("--embedding", "--pooling", "mean")
    with real_gateway(tmp_path, llama_bin, extra=extra) as stage, ollama.Client(host=stage.url) as client:
        found = client.embed(model="tiny", input=["one text", "another"])
        assert len(found.embeddings) == 2
        assert len(found.embeddings[0]) == len(found.embeddings[1]) > 0
        assert list(client.embeddings(model="tiny", prompt="one text").embedding) == list(found.embeddings[0])
        for truncate in (True, False, None):
            with pytest.raises(ollama.ResponseError, match="tokens") as caught:
                client.embed(model="tiny", input="word " * 900, truncate=truncate)
            assert caught.value.status_code == 400
