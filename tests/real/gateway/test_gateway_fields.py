"""Fields that change an answer: honoured or refused by a real llama-server's gateway, in each API. Costs about 6 s."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nemotron_ops.models.synthetic import ensure
from nemotron_ops.supervisor.snapshot import ModelView
from tests.stages.gateway import Engine, Stage, gateway

pytestmark = pytest.mark.real
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASK: list[Any] = [{"role": "user", "content": "What is 2 + 2?"}]
CODED = base64.b64encode(b"Some more words about cats.").decode()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("fields")
    model, binary = ensure("moe", tmp_path_factory.mktemp("model")), llama_bin / "llama-server"
    with gateway(folder) as found:
        engine = Engine(name="tiny-0", model=model, folder=folder, binary=binary)
        found.engines.append(engine)
        models = (ModelView(name="tiny", names=("tiny",)),)
        found.control.show(models=models, instances=(engine.start().view(),), default_model="tiny")
        found.settle()
        yield found


def ask(stage: Stage, path: str, **body: Any) -> httpx.Response:
    asked = {"input": "What is 2 + 2?"} if path.startswith(RESPONSES) else {"messages": ASK}
    return httpx.post(stage.url + path, json={"model": "tiny", "temperature": 0, **asked, **body}, timeout=60)


def refusal(stage: Stage, path: str, **body: Any) -> dict[str, Any]:
    answer = ask(stage, path, **body)
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    value = answer.json()
    if "choices" in value:
        return str(value["choices"][0]["message"]["content"])
    blocks = value.get("output") or value["content"]
    parts = [part for block in blocks for part in (block.get("content") or [block]) if isinstance(part, dict)]
    return "".join(part["text"] for part in parts if part["type"] in ("text", "output_text"))


@pytest.mark.parametrize("stop", ["", [""], ["", "§§§"], []])
@pytest.mark.parametrize(("path", "name"), [(CHAT, "stop"), (RESPONSES, "stop"), (MESSAGES, "stop_sequences")])
def test_an_empty_stop_text_does_not_empty_the_answer(stage: Stage, path: str, name: str, stop: Any) -> None:
    length = {"max_tokens": 60} if path == MESSAGES else {}
    whole = text_of(ask(stage, path, **length))
    assert text_of(ask(stage, path, **length, **{name: stop})) == whole != ""


def test_a_stop_that_is_no_text_is_refused(stage: Stage) -> None:
    assert "stop: expected a text" in refusal(stage, CHAT, stop=[5])["message"]


@pytest.mark.parametrize(
    ("path", "field", "names"),
    [
        (CHAT, {"web_search_options": {}}, "web"),
        (CHAT, {"tools": [{"type": "web_search"}]}, "web"),
        (RESPONSES, {"tools": [{"type": "web_search_preview"}]}, "web"),
        (RESPONSES, {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, "python"),
        (RESPONSES, {"tools": [{"type": "mcp", "server_url": "http://a"}]}, "mcp"),
        (MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web"),
        (MESSAGES, {"mcp_servers": [{"type": "url", "url": "http://a", "name": "a"}]}, "mcp"),
    ],
)
def test_tools_of_the_server_name_the_command_that_enables_them(
    stage: Stage, path: str, field: dict[str, Any], names: str
) -> None:
    error = refusal(stage, path, max_tokens=9, **field)
    assert f"nemotron-ops tools enable {names}" in error["message"]
    assert error.get("code", "tools_not_enabled") == "tools_not_enabled"


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
@pytest.mark.parametrize("kwargs", [{"messages": []}, {"tools": []}, "x", [1]])
def test_wrong_template_arguments_are_refused(stage: Stage, path: str, kwargs: Any) -> None:
    assert "chat_template_kwargs" in refusal(stage, path, max_tokens=9, chat_template_kwargs=kwargs)["message"]


@pytest.mark.parametrize(
    "field", [{"functions": [{"name": "f"}]}, {"function_call": "auto"}, {"max_tool_calls": 0}], ids=str
)
def test_fields_of_other_apis_are_refused_in_responses(stage: Stage, field: dict[str, Any]) -> None:
    assert next(iter(field)) in refusal(stage, RESPONSES, **field)["message"]


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_the_code_of_an_engines_refusal_is_text(stage: Stage, path: str) -> None:
    error = refusal(stage, path, reasoning_format="nope")
    assert (type(error["code"]), "nope" in error["message"].lower()) == (str, True)


def test_a_text_document_counts_as_its_text(stage: Stage) -> None:
    source = {"type": "base64", "media_type": "text/plain", "data": CODED}
    told = {"type": "text", "text": "Cats\n\nSome more words about cats."}
    sizes = [
        ask(stage, f"{MESSAGES}/count_tokens", messages=[{"role": "user", "content": [block]}]).json()["input_tokens"]
        for block in ({"type": "document", "title": "Cats", "source": source}, told)
    ]
    assert sizes[0] == sizes[1]
    content = [{"type": "document", "source": source}, {"type": "text", "text": "What is 2 + 2?"}]
    assert ask(stage, MESSAGES, max_tokens=9, messages=[{"role": "user", "content": content}]).status_code == 200


def test_content_that_is_not_read_is_refused_in_messages(stage: Stage) -> None:
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": CODED}}
    for block in (pdf, {"type": "container_upload", "file_id": "f"}):
        error = refusal(stage, MESSAGES, max_tokens=9, messages=[{"role": "user", "content": [block]}])
        assert error["message"].startswith("messages[0].content[0]")


def test_a_text_file_counts_as_its_text_in_responses(stage: Stage) -> None:
    parts = (
        {"type": "input_file", "filename": "c.txt", "file_data": f"data:text/plain;base64,{CODED}"},
        {"type": "input_text", "text": "c.txt\n\nSome more words about cats."},
    )
    sizes = [
        ask(stage, f"{RESPONSES}/input_tokens", input=[{"role": "user", "content": [part]}]).json() for part in parts
    ]
    assert sizes[0] == sizes[1]
    assert "input_tokens" in sizes[0]
