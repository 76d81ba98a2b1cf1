"""Batches without a process: lines, forms, routes, when a line may be sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nemotron_ops.gateway.api import routes
from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.batches.batch import page
from nemotron_ops.gateway.batches.lines import MOST_ERRORS, answered, done_ids, places
from nemotron_ops.gateway.batches.runner import Room, may_send
from nemotron_ops.gateway.batches.upload import read_upload

CHAT = "/v1/chat/completions"
FORM = b"multipart/form-data; boundary=xYz"


def line(name: str, **rest: Any) -> bytes:
    return json.dumps({"custom_id": name, "method": "POST", "url": CHAT, "body": {}, **rest}).encode() + b"\n"


@pytest.mark.parametrize(
    ("room", "running", "may"),
    [
        (Room(waiting=0, free=2, slots=2), 0, True),
        (Room(waiting=0, free=1, slots=2), 1, False),
        (Room(waiting=1, free=2, slots=2), 0, False),
        (Room(waiting=0, free=1, slots=1), 0, True),
        (Room(waiting=0, free=0, slots=1), 1, False),
        (Room(waiting=0, free=0, slots=0), 0, True),
        (Room(waiting=0, free=0, slots=0), 1, False),
    ],
)
def test_a_line_is_sent_only_where_it_takes_no_place_from_others(room: Room, running: int, may: bool) -> None:
    assert may_send(room, running) is may


def test_places_point_at_the_lines_of_the_file() -> None:
    content = line("a") + b"\n" + line("b")
    found, errors = places(content.splitlines(keepends=True), CHAT)
    assert errors == []
    assert [content[p.start : p.start + p.size] for p in found] == [line("a"), line("b")]


def test_faults_name_their_line_and_are_bounded() -> None:
    found, errors = places([line("a"), b"{}\n"] + [b"x\n"] * 100, CHAT)
    assert (len(found), len(errors)) == (1, MOST_ERRORS)
    assert errors[0]["line"] == 2


def test_a_result_that_a_kill_has_cut_is_not_counted() -> None:
    whole = answered("a", "1", 200, b'{"x": 1}') + answered("b", "2", 200, b"not json")
    names, size = done_ids(whole + b'{"custom_id": "c"')
    assert (list(names), size) == (["a", "b"], len(whole))


def test_a_form_gives_its_file_and_purpose_and_its_name_is_no_path() -> None:
    body = (
        b'--xYz\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--xYz\r\nContent-Disposition: form-data; name="file"; filename="../a\x01.jsonl"\r\n'
        b"Content-Type: application/jsonl\r\n\r\n{}\r\n\n\r\n--xYz--\r\n"
    )
    upload = read_upload(FORM, body)
    assert (upload.purpose, upload.filename, bytes(upload.content)) == ("batch", "../a?.jsonl", b"{}\r\n\n")


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        (b"application/json", b"{}", "content_type"),
        (FORM, b"{}", "invalid_form"),
        (FORM, b"--xYz\r\nno end", "invalid_form"),
        (FORM, b"--xYz--\r\n", "invalid_field"),
        (FORM, b'--xYz\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 30 + b"--xYz--", "invalid_form"),
    ],
)
def test_a_form_that_is_none_is_refused(kind: bytes, body: bytes, code: str) -> None:
    with pytest.raises(Refusal) as found:
        read_upload(kind, body)
    assert found.value.code == code


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("POST", "/v1/files", "/v1/files"),
        ("GET", "/v1/files/file-1", "/v1/files/{id}"),
        ("HEAD", "/v1/files/file-1/content", "/v1/files/{id}/content"),
        ("POST", "/v1/batches/batch_1/cancel", "/v1/batches/{id}/cancel"),
        ("POST", "/v1/batches/batch_1", None),
        ("GET", "/v1/files/", None),
        ("GET", "/v1/files/a/b", None),
        ("GET", "/v1/files/a/content/c", None),
    ],
)
def test_paths_below_the_stores_have_their_routes(method: str, path: str, found: str | None) -> None:
    route = routes.find(method, path)
    assert (route.path if route else None) == found


def test_a_page_begins_behind_the_item_that_is_named() -> None:
    items = [{"id": str(i)} for i in range(5)]
    assert page(items, after="1", limit=2) == {
        "object": "list", "data": [{"id": "2"}, {"id": "3"}], "has_more": True, "first_id": "2", "last_id": "3"
    }  # fmt: skip
    assert page(items, after="4", limit=2)["data"] == []
