"""Each row of the table of fields that change an answer, sent to a real llama-server. Costs about 8 s."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.request.meanings import OBJECT, ROWS, TOOL, By, Effect, Row
from nemotron_ops.models.synthetic import ensure
from nemotron_ops.supervisor.snapshot import ModelView
from tests.stages.gateway import Engine, Stage, gateway

pytestmark = pytest.mark.real
PATHS = {Api.CHAT: "/v1/chat/completions", Api.RESPONSES: "/v1/responses", Api.MESSAGES: "/v1/messages"}
ASK: list[Any] = [{"role": "user", "content": "What is 2 + 2?"}]
FUNCTION = {"name": TOOL, "parameters": OBJECT}
TOOLS: dict[Api, Any] = {
    Api.CHAT: {"type": "function", "function": FUNCTION},
    Api.RESPONSES: {"type": "function", **FUNCTION},
    Api.MESSAGES: {"name": TOOL, "input_schema": OBJECT},
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("meanings")
    model, binary = ensure("moe", tmp_path_factory.mktemp("model")), llama_bin / "llama-server"
    with gateway(folder) as found:
        engine = Engine(name="tiny-0", model=model, folder=folder, binary=binary)
        found.engines.append(engine)
        models = (ModelView(name="tiny", names=("tiny",)),)
        found.control.show(models=models, instances=(engine.start().view(),), default_model="tiny")
        found.settle()
        yield found


def ask(stage: Stage, row: Row) -> httpx.Response:
    asked: dict[str, Any] = {"input": "What is 2 + 2?"} if row.api is Api.RESPONSES else {"messages": ASK}
    limit = "max_output_tokens" if row.api is Api.RESPONSES else "max_tokens"
    body = {"model": "tiny", "temperature": 0, limit: 300, **asked, **row.example}
    if row.tools:
        body["tools"] = [TOOLS[row.api]]
    return httpx.post(stage.url + PATHS[row.api], json=body, timeout=60)


def reading(answer: dict[str, Any]) -> tuple[str, int, bool]:
    """Text, number of calls, and whether the length was limited, of an answer of any API."""
    if "choices" in answer:
        choice = answer["choices"][0]
        message = choice["message"]
        return message["content"] or "", len(message.get("tool_calls", [])), choice["finish_reason"] == "length"
    if "output" in answer:
        parts = [p for item in answer["output"] if item["type"] == "message" for p in item["content"]]
        calls = sum(item["type"] == "function_call" for item in answer["output"])
        return "".join(p["text"] for p in parts), calls, answer["status"] == "incomplete"
    text = "".join(block["text"] for block in answer["content"] if block["type"] == "text")
    calls = sum(block["type"] == "tool_use" for block in answer["content"])
    return text, calls, answer["stop_reason"] == "max_tokens"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.api}: {row.field}")
def test_a_row_is_true(stage: Stage, row: Row) -> None:
    answer = ask(stage, row)
    if row.by is By.REFUSED:
        assert (answer.status_code, bool(answer.json()["error"]["message"])) == (400, True)
        assert answer.json()["error"].get("code", row.code) == row.code
        return
    assert answer.status_code == 200, answer.text
    text, calls, cut = reading(answer.json())
    match row.effect:
        case Effect.CALL | Effect.ONE_CALL:
            assert (calls, text) == (1, "")
        case Effect.NO_CALL:
            assert (calls, bool(text), "<" in text) == (0, True, False)
        case Effect.JSON:
            assert set(json.loads(text)) == {"a"}
        case Effect.STOPPED:
            assert "4" not in text
            assert not cut
        case Effect.CUT:
            assert cut
        case Effect.TEXT:
            assert text.strip()
