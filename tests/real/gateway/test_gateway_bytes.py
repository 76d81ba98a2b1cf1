"""The same bytes from the gateway as from llama-server itself, on every route that reaches one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from nemotron_ops.gateway.api.routes import ROUTES, Api, Kind
from tests.stages.gateway import Engine, Stage, real_gateway

pytestmark = pytest.mark.real

SUM = [{"role": "user", "content": "What is 2 + 2?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Oslo?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "Weather of a city", "parameters": CITY}
TOOLS = [{"type": "function", "function": TOOL}]
RERANK = {"query": "Hello", "documents": ["What is", "capital of France", "Oslo"]}

# What differs from run to run. Scores, too: the tiny model has no head for them.
RANDOM = {"id", "created", "created_at", "completed_at", "timings", "call_id", "item_id", "id_slot", "relevance_score"}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": SUM}),
    ("/v1/chat/completions", {"messages": WEATHER, "tools": TOOLS}),
    ("/v1/chat/completions", {"messages": SUM, "max_tokens": 3}),
    ("/v1/chat/completions", {"messages": SUM, "logprobs": True, "top_logprobs": 2}),
    ("/v1/chat/completions", {"messages": SUM, "stop": ["="]}),
    ("/v1/chat/completions", {"messages": SUM, "response_format": {"type": "json_object"}, "max_tokens": 40}),
    ("/v1/chat/completions", {"messages": SUM, "stream": True}),
    ("/v1/chat/completions", {"messages": SUM, "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/chat/completions", {"messages": WEATHER, "tools": TOOLS, "stream": True}),
    ("/v1/chat/completions", {}),
    ("/v1/chat/completions", {"messages": "x"}),
    ("/v1/completions", {"prompt": "What is 2 + 2?", "max_tokens": 5}),
    ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 3}),
    ("/v1/completions", {"prompt": "What is 2 + 2?", "max_tokens": 5, "stream": True}),
    ("/completion", {"prompt": "What is 2 + 2?", "n_predict": 5}),
    ("/completion", {"prompt": "What is 2 + 2?", "n_predict": 5, "return_tokens": True}),
    ("/completion", {"prompt": "What is 2 + 2?", "n_predict": 5, "stream": True}),
    ("/v1/messages", {"messages": SUM, "max_tokens": 50}),
    ("/v1/messages", {"messages": SUM, "max_tokens": 50, "stop_sequences": ["="]}),
    ("/v1/messages", {"messages": SUM, "max_tokens": 50, "stream": True}),
    ("/v1/messages/count_tokens", {"messages": SUM}),
    ("/v1/chat/completions/input_tokens", {"messages": SUM}),
    ("/chat/completions/input_tokens", {"messages": SUM}),
    ("/tokenize", {"content": "What is 2 + 2?", "with_pieces": True}),
    ("/detokenize", {"tokens": [100, 101]}),
    ("/apply-template", {"messages": SUM}),
    ("/infill", {"input_prefix": "a", "input_suffix": "b"}),
    ("/chat/completions", {"messages": SUM, "max_tokens": 3}),
    ("/completions", {"prompt": "What is 2 + 2?", "n_predict": 5}),
    ("/v1/responses/input_tokens", {"input": "What is 2 + 2?"}),
    ("/responses/input_tokens", {"input": "What is 2 + 2?"}),
    ("/v1/chat/completions/control", {"id": "chatcmpl-nobody", "action": "reasoning_end"}),
    ("/v1/embeddings", {"input": "x"}),  # refused by an engine without them, as all of these
    ("/v1/rerank", RERANK),
]


EMBEDDINGS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/embeddings", {"input": "Hello"}),
    ("/v1/embeddings", {"input": ["Hello", "What is"], "encoding_format": "base64"}),
    ("/v1/embeddings", {"input": []}),
    ("/embeddings", {"content": "Hello"}),
    ("/embedding", {"content": ["Hello", "What is"]}),
]
RERANKING: list[tuple[str, dict[str, Any]]] = [
    ("/v1/rerank", RERANK),
    ("/v1/rerank", {**RERANK, "return_text": True, "top_n": 3}),
    ("/v1/rerank", {"query": "Hello"}),
    ("/v1/reranking", RERANK),
    ("/rerank", RERANK),
    ("/reranking", {"query": "Hello", "texts": ["What is", "Oslo"]}),
]
UPLOADS = ("/v1/audio/transcriptions", "/audio/transcriptions")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    """A gateway before one llama-server that calls itself by the public name, so that answers can be compared."""
    with real_gateway(tmp_path_factory.mktemp("real"), llama_bin) as found:
        yield found


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    flags = ("--embeddings", "--pooling", "mean")
    with real_gateway(tmp_path_factory.mktemp("embedding"), llama_bin, extra=flags) as found:
        yield found


@pytest.fixture(scope="module")
def reranking(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    with real_gateway(tmp_path_factory.mktemp("reranking"), llama_bin, extra=("--reranking",)) as found:
        yield found


def plain(value: Any) -> Any:
    """A value without what differs from run to run; what is ranked, by number."""
    if isinstance(value, dict) and {"code", "message", "type"} <= value.keys():
        return {k: v for k, v in sorted(value.items()) if k != "code"}  # a number from engines, a text in OpenAI's API
    if isinstance(value, dict):
        return {k: "random" if k in RANDOM else plain(v) for k, v in value.items()}
    if isinstance(value, list) and value and all(isinstance(v, dict) and "relevance_score" in v for v in value):
        value = sorted(value, key=lambda v: v["index"])
    return [plain(v) for v in value] if isinstance(value, list) else value


def readable(answer: httpx.Response) -> list[Any]:
    """Status, type, and the body as values in order; a stream as its lines."""
    kind = answer.headers["content-type"]
    if kind.startswith("text/event-stream"):
        lines = [line for line in answer.text.split("\n") if line]
        return [kind, *(json.dumps(plain(json.loads(x[6:]))) if x.startswith("data: {") else x for x in lines)]
    return [kind, answer.status_code, json.dumps(plain(answer.json()))]


def directly(engine: Engine) -> httpx.Client:
    head = {"Authorization": f"Bearer {engine.key}", "Connection": "close"}
    transport = httpx.HTTPTransport(uds=str(engine.socket))
    return httpx.Client(transport=transport, base_url="http://engine", headers=head, timeout=60)


def compare(stage: Stage, path: str, body: dict[str, Any]) -> None:
    (engine,) = stage.engines
    body = {"model": "tiny", "temperature": 0, "cache_prompt": False, **body}
    if path.startswith("/v1/messages"):
        del body["cache_prompt"]
    with directly(engine) as direct:
        direct.post(path, json=body)  # so that both find the same prompt in the cache
        expected = readable(direct.post(path, json=body))
    with httpx.Client(base_url=stage.url, timeout=60) as through:
        assert readable(through.post(path, json=body)) == expected


def name_of(value: Any) -> str:
    return value if isinstance(value, str) else "+".join(value)


@pytest.mark.parametrize(("path", "body"), CASES, ids=name_of)
def test_the_same_bytes_as_from_llama_server(stage: Stage, path: str, body: dict[str, Any]) -> None:
    compare(stage, path, body)


@pytest.mark.parametrize(("path", "body"), EMBEDDINGS, ids=name_of)
def test_the_same_embeddings_as_from_llama_server(embedding: Stage, path: str, body: dict[str, Any]) -> None:
    compare(embedding, path, body)


@pytest.mark.parametrize(("path", "body"), RERANKING, ids=name_of)
def test_the_same_ranks_as_from_llama_server(reranking: Stage, path: str, body: dict[str, Any]) -> None:
    compare(reranking, path, body)


def test_openais_client_gets_embeddings(embedding: Stage) -> None:
    with openai.OpenAI(base_url=f"{embedding.url}/v1", api_key="x", max_retries=0) as client:
        answer = client.embeddings.create(model="org/tiny", input=["Hello", "What is"])
    assert [len(e.embedding) for e in answer.data] == [len(answer.data[0].embedding)] * 2
    assert any(answer.data[0].embedding)
    assert answer.data[0].embedding != answer.data[1].embedding
    assert answer.model == "org/tiny"


@pytest.mark.parametrize("path", UPLOADS, ids=name_of)
def test_an_upload_is_refused_in_the_same_bytes(stage: Stage, path: str) -> None:
    (engine,) = stage.engines
    form: dict[str, Any] = {"data": {"model": "tiny"}, "files": {"file": ("a.wav", b"RIFF" * 1000, "audio/wav")}}
    with directly(engine) as direct:
        expected = readable(direct.post(path, **form))
    with httpx.Client(base_url=stage.url, timeout=60) as through:
        assert readable(through.post(path, **form)) == expected


CONVERTED = {"/v1/responses", "/responses"}  # spoken with engines as a chat


def test_every_route_to_an_engine_is_compared() -> None:
    compared = {path for path, _ in (*CASES, *EMBEDDINGS, *RERANKING)} | {*UPLOADS}
    posted = (
        route for route in ROUTES
        if route.method == "POST" and route.api is not Api.OLLAMA and route.kind is not Kind.STORE
    )  # fmt: skip
    passed_on = {route.path for route in posted if route.path not in CONVERTED}
    assert passed_on == compared - CONVERTED
