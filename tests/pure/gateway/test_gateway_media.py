"""Media in a request: only what it carries itself goes on, and no body takes long to be looked at."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nemotron_ops.gateway.api.catalog import index
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import find
from nemotron_ops.gateway.request.media import check_media
from nemotron_ops.gateway.request.prepare import Prepared, prepare
from nemotron_ops.supervisor.snapshot import ModelView, Snapshot

CHAT = "/v1/chat/completions"
DIRECTORY = index(Snapshot(models=(ModelView(name="tiny", names=("tiny",)),)))


def ready(path: str, body: dict[str, Any] | bytes) -> Prepared:
    route = find("POST", path)
    assert route is not None
    return prepare(route, body if isinstance(body, bytes) else json.dumps(body).encode(), DIRECTORY)


def image(url: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/a.png", "https://example.com/a", "file:///etc/passwd", "FTP://x/y", " data:a"]
)
def test_media_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(Refusal, match="inline"):
        ready(CHAT, {"model": "tiny", "messages": image(url)})


def test_media_elsewhere_is_refused_in_every_shape() -> None:
    link = "https://example.com/a.png"
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": link}]}]}),
        (
            "/v1/messages",
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": link}}]}]},
        ),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": link}}]}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"url": link}}]}]}),
        (
            "/v1/messages",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "tool_result", "content": [{"type": "image", "source": {"url": link}}]}],
                    }
                ]
            },
        ),
    ]
    for path, body in bodies:
        with pytest.raises(Refusal, match="inline"):
            ready(path, {"model": "tiny", **body})


def test_an_escaped_key_does_not_hide_media() -> None:
    body = json.dumps({"model": "tiny", "messages": image("http://a/b")}).replace('"type"', '"\\u0074ype"')
    with pytest.raises(Refusal, match="inline"):
        ready(CHAT, body.encode())


def test_inline_media_and_tool_arguments_with_addresses_pass() -> None:
    ready(CHAT, {"model": "tiny", "messages": image("data:image/png;base64,AAAA")})
    use = {"type": "tool_use", "id": "1", "name": "get", "input": {"url": "https://example.com", "type": "image"}}
    ready("/v1/messages", {"model": "tiny", "messages": [{"role": "assistant", "content": [use]}]})


@pytest.mark.parametrize("link", ["http://169.254.169.254/x", "HTTP://a", "httpx", "file:///etc/passwd", "a b", "x:y"])
@pytest.mark.parametrize("kind", ["input_audio", "input_video", "video_url"])
def test_data_that_the_engine_would_fetch_is_refused(kind: str, link: str) -> None:
    part = {"type": kind, kind: {"data": link, "format": "wav"}}
    with pytest.raises(Refusal, match="inline"):
        ready(CHAT, {"model": "tiny", "messages": [{"role": "user", "content": [part]}]})


@pytest.mark.parametrize("path", ["/embedding", "/embeddings", "/v1/embeddings"])
@pytest.mark.parametrize("name", ["content", "input"])
def test_media_in_what_is_to_be_embedded_is_looked_at(path: str, name: str) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://10.0.0.1/x"}}
    for value in ({"content": [part]}, ["image", {"content": [part]}], [{"content": [part]}]):
        with pytest.raises(Refusal, match="inline"):
            ready(path, {"model": "tiny", name: value})
    ready(path, {"model": "tiny", name: ["image", "video_url", 3, None, [1, 2]]})


def test_base64_without_a_prefix_passes() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "UklGRiQAAABXQVZF" * 100 + "==", "format": "wav"}}
    ready(CHAT, {"model": "tiny", "messages": [{"role": "user", "content": [part]}]})


@pytest.mark.parametrize("key", ["type", "image_url", "url", "http://a/b"])
def test_no_escape_hides_media(key: str) -> None:
    body = json.dumps({"model": "tiny", "messages": image("http://a/b")})
    escaped = body.replace(f'"{key}"', '"' + "".join(f"\\u{ord(c):04x}" for c in key) + '"')
    assert escaped != body
    with pytest.raises(Refusal, match="inline"):
        ready(CHAT, escaped.encode())


def test_a_documents_own_text_may_have_addresses() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "see http://example.com"}
    part = {"type": "document", "source": source}
    ready("/v1/messages", {"model": "tiny", "max_tokens": 9, "messages": [{"role": "user", "content": [part]}]})


MEDIA_ROUTES = (
    (CHAT, "messages"), ("/apply-template", "messages"), ("/v1/chat/completions/input_tokens", "messages"),
    ("/v1/embeddings", "input"), ("/v1/responses", "input"), ("/v1/messages", "messages"),
    ("/v1/messages/count_tokens", "messages"), ("/infill", "prompt"), ("/tokenize", "content"),
)  # fmt: skip
LINK_KINDS = ("image_url", "input_image", "image", "video_url", "input_video", "input_audio")
LINK_NAMES = ("image_url", "video_url", "input_video", "input_audio", "source")


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(MEDIA_ROUTES),
    st.sampled_from((*LINK_KINDS, "document")),
    st.sampled_from(LINK_NAMES),
    st.dictionaries(
        st.sampled_from(("type", "detail", "format", "media_type", "url", "data", "file_url")),
        st.sampled_from(("text", "document", "base64", "url", "image_url", "", "file", "wav", "auto", None, 0)),
    ),
    st.sampled_from(("url", "data", "file_url")),
    st.booleans(),
)
def test_no_field_of_a_link_hides_its_address(
    route: tuple[str, str], kind: str, name: str, fields: dict[str, Any], place: str, tool: bool
) -> None:
    path, top = route
    link = {**fields, place: "http://127.0.0.1:9/x"}
    assume(not (kind == "document" and name == "source" and link.get("type") == "text"))
    message = {"role": "tool" if tool else "user", "content": [{"type": kind, name: link}]}
    with pytest.raises(Refusal) as caught:
        ready(path, {"model": "tiny", top: [message]})
    assert caught.value.code == "remote_media"


def test_broken_text_beside_media_is_refused() -> None:
    body = b'{"model":"tiny","messages":[{"content":[{"type":"image_url","image_url":{"url":"\\n\xff"}}]}]}'
    with pytest.raises(Refusal) as caught:
        ready(CHAT, body)
    assert caught.value.status == 400


@pytest.mark.parametrize("part", [b"{}", b'{"type":"text"}', b"1", b'"a"', b"[]", b'{"content":[{}]}'])
@pytest.mark.parametrize("media", [b'{"type":"text"}', b'{"type":"image"}'])
def test_a_large_body_of_many_small_values_takes_no_longer_than_it_takes_to_read(part: bytes, media: bytes) -> None:
    body = b'{"model":"tiny","stream":true,"messages":[{"content":[%b' % media + (b"," + part) * (
        2_000_000 // len(part)
    )
    before = time.thread_time()
    json.loads(body + b"]}]}")
    reading = time.thread_time() - before
    before = time.thread_time()
    with contextlib.suppress(Refusal):
        ready(CHAT, body + b"]}]}")
    assert time.thread_time() - before < max(0.3, reading)


def test_content_in_content_without_end_is_refused() -> None:
    inner: Any = {"type": "image"}
    for _ in range(20):
        inner = {"content": [inner]}
    with pytest.raises(Refusal, match="nested"):
        ready(CHAT, {"model": "tiny", "messages": [inner]})


def test_lists_in_lists_are_looked_into_and_no_reason_to_refuse() -> None:
    def check(content: bytes) -> None:
        check_media({"content": msgspec.Raw(content)}, b'{"content":%b}' % content)

    check(b'[1,2,"\\u0041",[1,[2]],[["a","image_url"]],{"type":"x"}]')
    with pytest.raises(Refusal, match="only inline data"):
        check(b'[1,[{"type":"image_url","image_url":{"url":"http://x"}}],[["a"]]]')
