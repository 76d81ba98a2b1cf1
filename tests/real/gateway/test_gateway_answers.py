"""What a real llama-server answers through the gateway is what our OpenAPI description says it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from nemotron_ops.models.synthetic import ensure
from nemotron_ops.supervisor.snapshot import ModelView
from tests.stages.gateway import Engine, Stage, gateway

pytestmark = pytest.mark.real
CHAT = [{"role": "user", "content": "What is 2 + 2?"}]
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": CHAT}),
    ("/v1/chat/completions", {"messages": CHAT, "max_tokens": 2}),
    ("/v1/completions", {"prompt": "2 + 2", "max_tokens": 9}),
    ("/v1/responses", {"input": "What is 2 + 2?"}),
    ("/v1/messages", {"messages": CHAT, "max_tokens": 50}),
    ("/v1/messages/count_tokens", {"messages": CHAT}),
    ("/v1/chat/completions/input_tokens", {"messages": CHAT}),
    ("/v1/responses/input_tokens", {"input": "What is 2 + 2?"}),
    ("/completion", {"prompt": "2 + 2", "n_predict": 9}),
    ("/completions", {"prompt": ["2 + 2", "3"], "n_predict": 2}),
    ("/tokenize", {"content": "2 + 2"}),
    ("/detokenize", {"tokens": [20, 21]}),
    ("/apply-template", {"messages": CHAT}),
    ("/v1/embeddings", {"model": "vectors", "input": "2 + 2"}),
    ("/embeddings", {"model": "vectors", "content": "2 + 2"}),
]
REFUSED: list[tuple[str, dict[str, Any], int]] = [
    ("/v1/chat/completions", {}, 400),
    ("/v1/chat/completions", {"model": "none", "messages": CHAT}, 404),
    ("/v1/messages", {"model": "none", "messages": CHAT}, 404),
    ("/v1/messages", {"max_tokens": 1}, 400),  # 500 by llama-server, though the request is at fault
    ("/v1/completions", {"prompt": "word " * 3000}, 400),
    ("/v1/embeddings", {"input": "x"}, 501),
    ("/v1/rerank", {"query": "x", "documents": ["y"]}, 501),
]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("answers")
    model, binary = ensure("moe", tmp_path_factory.mktemp("model")), llama_bin / "llama-server"
    with gateway(folder) as found:
        chat = Engine(name="tiny-0", model=model, folder=folder, binary=binary)
        vectors = Engine(
            name="vectors-0", model=model, folder=folder, binary=binary, extra=("--embeddings", "--pooling", "mean")
        )
        found.engines += [chat, vectors]
        models = tuple(ModelView(name=n, names=(n,)) for n in ("tiny", "vectors"))
        instances = (chat.start().view(), vectors.start().view("vectors"))
        found.control.show(models=models, instances=instances, default_model="tiny")
        found.settle()
        yield found


@pytest.fixture(scope="module")
def described(stage: Stage) -> dict[str, Any]:
    return dict(httpx.get(f"{stage.url}/openapi.json").json())


def check(described: dict[str, Any], answer: httpx.Response, path: str, method: str = "post") -> None:
    """`answer` has the status and the shape that the description names for it."""
    told = described["paths"][path][method]["responses"][str(answer.status_code)]
    if "$ref" in told:
        told = described["components"]["responses"][told["$ref"].rsplit("/", 1)[1]]
    schema = told["content"]["application/json"]["schema"]
    jsonschema.validate(answer.json(), {**schema, "components": described["components"]})


@pytest.mark.parametrize(("path", "body"), REQUESTS, ids=lambda v: v if isinstance(v, str) else "")
def test_an_answer_is_as_described(stage: Stage, described: dict[str, Any], path: str, body: dict[str, Any]) -> None:
    answer = httpx.post(stage.url + path, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    check(described, answer, path)


@pytest.mark.parametrize(("path", "body", "status"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_an_error_is_as_described(
    stage: Stage, described: dict[str, Any], path: str, body: dict[str, Any], status: int
) -> None:
    answer = httpx.post(stage.url + path, json=body, timeout=60)
    assert answer.status_code == status, answer.text
    check(described, answer, path)


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/models/{model}", "/props", "/slots", "/lora-adapters"])
def test_a_page_is_as_described(stage: Stage, described: dict[str, Any], path: str) -> None:
    answer = httpx.get(stage.url + path.replace("{model}", "tiny"), timeout=60)
    assert answer.status_code == 200, answer.text
    check(described, answer, path, "get")
