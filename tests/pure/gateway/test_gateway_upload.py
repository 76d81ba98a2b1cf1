"""Uploaded forms: written anew, so that nothing reaches the engine that is not known."""

from __future__ import annotations

import contextlib
import email.parser
import email.policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.gateway.api.catalog import index
from nemotron_ops.gateway.api.content_types import REQUEST_JSON
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.api.routes import ROUTES
from nemotron_ops.gateway.request.form import prepare_form
from nemotron_ops.gateway.request.prepare import Prepared, prepare
from nemotron_ops.supervisor.snapshot import ModelView, Snapshot

TYPE = b"multipart/form-data; boundary=x-1"
SOUND = b"RIFF\r\n--x\r\n\r\n--x-2\x00\xff"
MODEL = ModelView(
    name="asr", names=("asr",), defaults={"max_tokens": 500}, profiles={"cold": {"temp": 0.0}},
    fixed={"language": "no", "seed": 1}, capped={"max_tokens": 1_000_000, "temperature": 1.5},
)  # fmt: skip
PLAIN = ModelView(name="plain", names=("plain",))
DIRECTORY = index(Snapshot(models=(PLAIN, MODEL), default_model="plain"))


def form(*fields: tuple[str, str], file: bytes | None = SOUND, name: str = "file") -> bytes:
    parts = [f'--x-1\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields]
    if file is not None:
        head = f'--x-1\r\nContent-Disposition: form-data; name="{name}"; filename="a.wav"\r\nContent-Type: audio/wav'
        parts.insert(len(parts) // 2, head.encode() + b"\r\n\r\n" + file + b"\r\n")
    return b"".join(parts) + b"--x-1--\r\n"


def ready(*fields: tuple[str, str]) -> Prepared:
    return prepare_form(TYPE, form(*fields), DIRECTORY.resolve)


def read(prepared: Prepared) -> list[tuple[str, str | None, bytes]]:
    """Name, file name and content of each part, by another reader than ours."""
    whole = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
        b"Content-Type: " + prepared.content_type + b"\r\n\r\n" + prepared.body
    )
    return [
        (str(p.get_param("name", header="content-disposition")), p.get_filename(), p.get_payload(decode=True))  # type: ignore[misc]
        for p in whole.iter_parts()
    ]


def texts(prepared: Prepared) -> dict[str, str]:
    return {name: content.decode() for name, filename, content in read(prepared) if filename is None}


def test_known_fields_and_the_file_go_on_and_others_are_dropped() -> None:
    prepared = ready(("model", "plain"), ("prompt", "Hi"), ("id_slot", "1"), ("messages", "x"), ("n_predict", "9"))
    assert texts(prepared) == {"model": "plain", "prompt": "Hi"}
    assert SOUND in prepared.body
    assert not prepared.stream
    assert prepared.named.model is PLAIN


def test_a_field_twice_reaches_the_engine_once() -> None:
    assert texts(ready(("prompt", "a"), ("prompt", "b"))) == {"prompt": "b"}


def test_a_stream_is_known_for_one() -> None:
    assert ready(("stream", "true")).stream


def test_a_recipe_fills_in_fixes_and_caps() -> None:
    assert texts(ready(("model", "asr"))) == {"model": "asr", "max_tokens": "500", "language": "no"}
    assert texts(ready(("model", "asr:cold"), ("language", "en")))["temperature"] == "0.0"
    asked = texts(ready(("model", "asr"), ("temperature", "9"), ("max_tokens", "99999999")))
    assert (asked["temperature"], asked["max_tokens"]) == ("1.5", "1000000")
    assert texts(ready(("model", "asr"), ("max_tokens", "7")))["max_tokens"] == "7"
    assert texts(ready(("model", "asr"), ("max_tokens", "-1")))["max_tokens"] == "1000000"
    with pytest.raises(Refusal, match="expected a number"):
        ready(("model", "asr"), ("max_tokens", "many"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        form(file=None),
        form(name="other"),
        form()[:-9],
        b"--x-1\r\n\r\n",
        b"--x-1--",
        form(*[("prompt", "x")] * 101),
        b"--x-1\r\n\r\nno name\r\n--x-1--\r\n",
    ],
)
def test_what_is_no_form_with_a_file_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        prepare_form(TYPE, body, DIRECTORY.resolve)
    assert caught.value.status == 400


@settings(deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=60))
def test_no_content_becomes_a_field(file: bytes, prompt: bytes) -> None:
    inside = b'\r\n\r\n--x-\r\nContent-Disposition: form-data; name="id_slot"\r\n\r\n1' + prompt
    body = form(("prompt", "PROMPT"), file=file + inside).replace(b"PROMPT", prompt)
    try:
        prepared = prepare_form(TYPE, body, DIRECTORY.resolve)
    except Refusal:
        return
    fence = b"--" + prepared.content_type.partition(b"boundary=")[2]
    assert prepared.body.count(fence) == len(read(prepared)) + 1 <= 3
    assert {name for name, _, _ in read(prepared)} <= {"prompt", "file"}


TWO_WAYS = (
    b'multipart/form-data; x="; boundary=GW"; boundary=EN',
    b"multipart/form-data; boundary=GW; boundary=EN",
    b'multipart/form-data; boundary="GW"; x=y',
    b"Multipart/Form-Data;boundary=GW",
)


@pytest.mark.parametrize("content_type", TWO_WAYS)
def test_no_boundary_of_a_client_reaches_the_engine(content_type: bytes) -> None:
    smuggled = b'--EN\r\nContent-Disposition: form-data; name="id_slot"\r\n\r\n1\r\n--EN--\r\n'
    body = form(file=smuggled).replace(b"--x-1", content_type.partition(b"GW")[1] and b"--GW")
    with contextlib.suppress(Refusal):
        prepared = prepare_form(content_type, body, DIRECTORY.resolve)
        assert prepared.content_type.startswith(b"multipart/form-data; boundary=nemotron-ops-")
        assert [(name, content) for name, _, content in read(prepared)] == [("file", smuggled)]


def test_a_json_request_has_the_content_type_of_json_whatever_the_client_says() -> None:
    for route in ROUTES:
        if route.infers and not route.form:
            assert prepare(route, b'{"messages":[],"prompt":"x","input":"x"}', DIRECTORY).content_type == REQUEST_JSON


@pytest.mark.parametrize("stream", ["1", "True", "yes", ""])
def test_a_stream_that_is_neither_true_nor_false_is_refused(stream: str) -> None:
    with pytest.raises(Refusal, match="stream: expected true or false"):
        ready(("stream", stream))
