"""Documents of the messages and responses APIs: text reaches the model, what cannot is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.request.documents import file_text, with_text_documents
from nemotron_ops.gateway.responses.items import messages_of

CODED = base64.b64encode("Åse has 7 cats.".encode()).decode()
TEXT = {"type": "text", "text": "Hi"}


def content(*blocks: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": list(blocks)}]}).encode()


def document(**source: Any) -> dict[str, Any]:
    return {"type": "document", "title": "Cats", "source": source}


@pytest.mark.parametrize(
    "source",
    [
        {"type": "text", "media_type": "text/plain", "data": "Åse has 7 cats."},
        {"type": "base64", "media_type": "text/markdown", "data": CODED},
        {"type": "content", "content": "Åse has 7 cats."},
        {"type": "content", "content": [{"type": "text", "text": "Åse has 7 cats."}]},
    ],
)
def test_a_text_document_becomes_text_with_its_title(source: Any) -> None:
    found = json.loads(with_text_documents(content(TEXT, document(**source))))
    assert found["messages"][0]["content"] == [TEXT, {"type": "text", "text": "Cats\n\nÅse has 7 cats."}]


def test_documents_in_tool_results_and_search_results_become_text() -> None:
    hit = {"type": "search_result", "title": "T", "source": "S", "content": [{"type": "text", "text": "x"}]}
    inner = [document(type="text", data="y"), hit]
    block = {"type": "tool_result", "tool_use_id": "a", "content": inner}
    (found,) = json.loads(with_text_documents(content(block)))["messages"][0]["content"]
    assert [part["text"] for part in found["content"]] == ["Cats\n\ny", "T\nS\n\nx"]


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (document(type="base64", media_type="application/pdf", data=CODED), "only text documents"),
        (document(type="base64", media_type="text/plain", data="%%"), "only text documents"),
        (document(type="base64", media_type="text/plain", data="/w=="), "only text documents"),
        (document(type="file", file_id="f"), "only text documents"),
        (document(type="content", content=[{"type": "image"}]), "only text documents"),
        (document(type="url", url="http://a/b"), "only inline data"),
        ({**document(type="text", data="x"), "citations": {"enabled": True}}, "citations"),
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "base64 only"),
        ({"type": "container_upload", "file_id": "f"}, "'container_upload' are not read here"),
        ({"type": "tool_result", "content": [{"type": "server_tool_use"}]}, "messages[0].content[0].content[0]"),
        ("words", "not read here"),
    ],
)
def test_content_that_would_not_reach_the_model_is_refused(block: Any, says: str) -> None:
    with pytest.raises(Refusal) as caught:
        with_text_documents(content(block, {"type": "server_tool_use"} if block == "words" else TEXT))
    assert (caught.value.status, says in caught.value.message) == (400, True)


def test_a_system_prompt_has_only_text() -> None:
    body = json.dumps({"system": [TEXT, {"type": "image", "source": {"type": "base64"}}], "messages": []}).encode()
    with pytest.raises(Refusal, match=r"system\[1\]"):
        with_text_documents(body)


@pytest.mark.parametrize(
    "blocks",
    [
        [TEXT, {"type": "thinking", "thinking": "x"}, {"type": "redacted_thinking", "data": "x"}],
        [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
        [{"type": "tool_use", "id": "a", "name": "f", "input": {"type": "document"}}],
        [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}],
    ],
)
def test_a_body_without_documents_keeps_its_bytes(blocks: list[Any]) -> None:
    body = content(*blocks)
    assert with_text_documents(body) is body


def test_text_files_of_responses_are_read_and_others_refused() -> None:
    part = {"type": "input_file", "filename": "a.txt", "file_data": f"data:text/plain;base64,{CODED}"}
    item = {"role": "user", "content": [{"type": "input_text", "text": "Hi"}, part]}
    assert messages_of([item], lambda _: None)[0]["content"] == "Hi\na.txt\n\nÅse has 7 cats."
    for wrong in ({"file_id": "f"}, {"file_url": "http://a"}, {"file_data": f"data:application/pdf;base64,{CODED}"}):
        with pytest.raises(Refusal, match="input_file"):
            messages_of([{"role": "user", "content": [{"type": "input_file", **wrong}]}], lambda _: None)


def test_the_type_of_a_file_may_have_parameters() -> None:
    assert file_text(f"data:text/plain;charset=utf-8;base64,{CODED}") == "Åse has 7 cats."
    assert file_text("data:,plain") is None
