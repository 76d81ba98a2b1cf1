"""A real llama-server whose slots share one context: what fails when it runs full does not fail behind the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from nemotron_ops.models.synthetic import ensure
from nemotron_ops.supervisor.snapshot import ModelView
from tests.stages.gateway import Engine, Stage, gateway

pytestmark = pytest.mark.real
CTX = 1024
LONG = {"model": "tiny", "prompt": "What is 2 + 2?", "ignore_eos": True, "temperature": 0, "cache_prompt": False}
ERROR = "Context size has been exceeded."


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("context")
    model, binary = ensure("moe", tmp_path_factory.mktemp("model")), llama_bin / "llama-server"
    with gateway(folder) as found:
        engine = Engine(
            name="tiny-0", model=model, folder=folder, binary=binary, slots=4,
            extra=("--kv-unified", "--ctx-size", str(CTX)),
        )  # fmt: skip
        found.engines.append(engine)
        engine.start()
        view = engine.view(kv_unified=True, ctx_tokens=CTX)
        found.control.show(models=(ModelView(name="tiny", names=("tiny",)),), instances=(view,))
        found.settle()
        yield found


def ask_all(client: httpx.Client, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers to `bodies`, all asked at once."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: dict(client.post("/v1/completions", json=body).json()), bodies))


def test_llama_server_itself_fails_all_when_its_context_runs_full(stage: Stage) -> None:
    engine = stage.engines[0]
    headers = {"Authorization": f"Bearer {engine.key}"}
    transport = httpx.HTTPTransport(uds=str(engine.socket))
    with httpx.Client(transport=transport, base_url="http://engine", headers=headers, timeout=120) as client:
        answers = ask_all(client, [{**LONG, "max_tokens": 1000}] * 3)  # two are enough, and they may begin one by one
    assert any(ERROR in str(a.get("error")) for a in answers), answers


def test_behind_the_gateway_all_are_answered_to_their_last_token(stage: Stage) -> None:
    with httpx.Client(base_url=stage.url, timeout=120) as client:
        answers = ask_all(client, [{**LONG, "max_tokens": 700}] * 3 + [{**LONG, "max_tokens": 60}] * 4)
    assert [a["usage"]["completion_tokens"] for a in answers] == [700] * 3 + [60] * 4


def test_answers_without_a_limit_that_fill_the_context_together_go_on_one_by_one(stage: Stage) -> None:
    with httpx.Client(base_url=stage.url, timeout=120) as client:
        answers = ask_all(client, [LONG] * 3)
        lost = [line for line in client.get("/metrics").text.splitlines() if "nemotron_ops_retries_total{" in line]
    assert lost, "the context did not run full"
    assert [a["choices"][0]["finish_reason"] for a in answers] == ["length"] * 3, answers
    assert all(a["usage"]["completion_tokens"] > CTX * 3 // 4 for a in answers), answers


def test_streams_without_a_limit_see_a_pause_and_no_error(stage: Stage) -> None:
    with httpx.Client(base_url=stage.url, timeout=120) as client, ThreadPoolExecutor(3) as pool:
        streams = list(pool.map(lambda _: client.post("/v1/completions", json={**LONG, "stream": True}).text, range(3)))
    for text in streams:
        assert text.endswith("data: [DONE]\n\n")
        assert "error" not in text
        assert text.count("data: ") > CTX * 3 // 4


def test_what_is_larger_than_the_whole_context_is_refused_with_both_sizes(stage: Stage) -> None:
    with httpx.Client(base_url=stage.url, timeout=120) as client:
        answer = client.post("/v1/completions", json={**LONG, "prompt": "What is 2 + 2? " * 2000})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["n_ctx"]) == ("context_length_exceeded", CTX)
