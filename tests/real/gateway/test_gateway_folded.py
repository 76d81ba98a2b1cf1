"""A whole answer that the gateway folds from a stream equals llama-server's own, for every kind of request.

Ten seconds: each request is answered twice by a real llama-server with a tiny model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nemotron_ops.models.synthetic import ensure
from nemotron_ops.supervisor.snapshot import ModelView
from tests.stages.gateway import Engine, Stage, gateway

pytestmark = pytest.mark.real
USER = [{"role": "user", "content": "What is 2 + 2?"}]
BEGUN = [*USER, {"role": "assistant", "content": "2 + 2 ="}]
ADD = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}
TOOL = {"tools": [{"type": "function", "function": ADD}], "max_tokens": 60}
SPACE = {"grammar": 'root ::= " \\n "'}
QUIET = {"chat_template_kwargs": {"enable_thinking": False}}
GO_ON = {"add_generation_prompt": False}
CHAT, COMPLETION, NATIVE = "/v1/chat/completions", "/v1/completions", "/completion"
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"messages": USER}),
    (CHAT, {"messages": BEGUN}),
    (CHAT, {"messages": BEGUN, "continue_final_message": True, **GO_ON}),
    (CHAT, {"messages": BEGUN, "continue_final_message": "content", **GO_ON}),
    (CHAT, {"messages": USER, **SPACE}),
    (CHAT, {"messages": USER, **SPACE, **QUIET}),
    (CHAT, {"messages": USER, **QUIET}),
    (CHAT, {"messages": USER, "reasoning_format": "none"}),
    (CHAT, {"messages": USER, "stop": ["4"]}),
    (CHAT, {"messages": USER, "max_tokens": 7}),
    (CHAT, {"messages": USER, "response_format": {"type": "json_object"}, "max_tokens": 9}),
    (CHAT, {"messages": USER, **TOOL}),
    (CHAT, {"messages": USER, "n": 2, "max_tokens": 9}),
    (COMPLETION, {"prompt": "2 + 2", "max_tokens": 9}),
    (COMPLETION, {"prompt": "2 + 2", "max_tokens": 9, **SPACE}),
    (COMPLETION, {"prompt": "", "max_tokens": 9}),
    (COMPLETION, {"prompt": ["2 + 2", "3"], "max_tokens": 9}),
    (COMPLETION, {"prompt": "2 + 2", "n": 2, "max_tokens": 9}),
    (NATIVE, {"prompt": "2 + 2", "n_predict": 9}),
    (NATIVE, {"prompt": "2 + 2", "n_predict": 9, "response_fields": ["content", "timings/predicted_n"]}),
    (NATIVE, {"prompt": ["2", "3 4"], "n_predict": 9, "response_fields": ["content"]}),
    (NATIVE, {"prompt": "", "n_predict": 9}),
    ("/v1/messages", {"messages": USER, "max_tokens": 50}),
    ("/v1/messages", {"messages": BEGUN, "max_tokens": 50}),
    ("/v1/messages", {"messages": USER, "max_tokens": 7}),
]
OF_THE_MOMENT = {
    "id", "created", "created_at", "completed_at", "timings", "id_slot", "model", "usage", "tokens_cached",
    "tokens_evaluated", "call_id", "signature", "timings/predicted_n", "slot_id",
}  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("folded")
    model = ensure("moe", tmp_path_factory.mktemp("model"))
    with gateway(folder) as found:
        engine = Engine(name="tiny-0", model=model, folder=folder, binary=llama_bin / "llama-server").start()
        found.engines.append(engine)
        found.control.show(
            models=(ModelView(name="tiny", names=("tiny",)),), instances=(engine.view(),), default_model="tiny"
        )
        found.settle()
        yield found


def lasting(value: Any) -> Any:
    """`value` without what differs between two answers to one request."""
    if isinstance(value, dict):
        return {name: lasting(inner) for name, inner in value.items() if name not in OF_THE_MOMENT}
    return [lasting(inner) for inner in value] if isinstance(value, list) else value


def direct(stage: Stage, path: str, body: dict[str, Any]) -> Any:
    """llama-server's own whole answer."""
    transport = httpx.HTTPTransport(uds=str(stage.engines[0].socket))
    with httpx.Client(transport=transport, timeout=60) as client:
        return client.post(
            "http://engine" + path, json=body, headers={"Authorization": f"Bearer {stage.engines[0].key}"}
        ).json()


@pytest.mark.parametrize(("path", "body"), REQUESTS, ids=lambda v: v if isinstance(v, str) else json.dumps(v)[:60])
def test_a_whole_answer_is_the_engines(stage: Stage, path: str, body: dict[str, Any]) -> None:
    body = {"temperature": 0, "seed": 1, **({} if path == "/v1/messages" else {"cache_prompt": False}), **body}
    answer = httpx.post(stage.url + path, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert lasting(answer.json()) == lasting(direct(stage, path, body))


@pytest.mark.parametrize(
    ("path", "body", "tokens"),
    [
        (CHAT, {"messages": USER, "n": 2, "ignore_eos": True, "max_tokens": 10}, 20),
        (CHAT, {"messages": USER, "n": 2, "ignore_eos": True, "max_tokens": 10, "logprobs": True}, 20),
        (COMPLETION, {"prompt": ["2 + 2", "3"], "ignore_eos": True, "max_tokens": 10}, 20),
        (COMPLETION, {"prompt": "2 + 2", "n": 2, "ignore_eos": True, "max_tokens": 3}, 6),
        (NATIVE, {"prompt": "2 + 2", "response_fields": ["content"], "ignore_eos": True, "n_predict": 10}, 10),
        (NATIVE, {"prompt": ["2", "3"], "response_fields": ["content"], "ignore_eos": True, "n_predict": 10}, 20),
    ],
    ids=str,
)
def test_all_tokens_of_all_answers_are_counted(stage: Stage, path: str, body: dict[str, Any], tokens: int) -> None:
    def counted() -> float:
        text = httpx.get(f"{stage.url}/metrics").text
        found = [line for line in text.splitlines() if line.startswith("nemotron_ops_tokens_total{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found if 'kind="completion"' in line)

    before = counted()
    answer = httpx.post(stage.url + path, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert counted() - before == tokens


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (COMPLETION, {"prompt": "", "n": 2}),
        (NATIVE, {"prompt": ["x", ""], "n": 2}),
        (CHAT, {"messages": [], "n": 2}),
        (CHAT, {"messages": USER, "n": 2.5}),
    ],
    ids=str,
)
def test_a_request_that_would_never_end_is_refused_and_the_model_goes_on(
    stage: Stage, path: str, body: dict[str, Any]
) -> None:
    assert httpx.post(stage.url + path, json=body, timeout=5).status_code == 400
    assert httpx.post(stage.url + CHAT, json={"messages": USER}, timeout=30).status_code == 200
