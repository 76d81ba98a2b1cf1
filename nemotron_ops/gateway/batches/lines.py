"""Lines of a batch's input and of its results. Pure.

A line of input is `{"custom_id": "…", "method": "POST", "url": ENDPOINT, "body": {…}}`; one of a result has the
`custom_id` and either the response or an error. What is wrong with a line is known before any line runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from nemotron_ops.gateway.batches.batch import MOST_REQUESTS

MOST_ERRORS = 20  # of one input that are told
MOST_ID_LETTERS = 512
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Line(msgspec.Struct):
    """One request of a batch."""

    custom_id: str
    url: str
    body: msgspec.Raw
    method: str = "POST"


class Place(msgspec.Struct):
    """Where a line is in its file."""

    custom_id: str
    start: int
    size: int


class _Streams(msgspec.Struct):
    stream: Any = None


class _Result(msgspec.Struct):
    custom_id: str


_line = msgspec.json.Decoder(Line).decode
_streams = msgspec.json.Decoder(_Streams).decode
_result = msgspec.json.Decoder(_Result).decode
encode = msgspec.json.Encoder().encode


def read_line(text: bytes) -> Line:
    """One line. Raises DecodeError and its kind if it is no request."""
    return _line(text)


def places(lines: Iterable[bytes], endpoint: str) -> tuple[list[Place], list[dict[str, Any]]]:
    """Where the requests are, and what is wrong with the input; if anything is, no request may run."""
    found: list[Place] = []
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    at = 0
    for number, text in enumerate(lines, 1):
        start, at = at, at + len(text)
        if not text.strip():
            continue
        why, custom_id = _check(text, endpoint, seen)
        if why:
            errors.append({"code": "invalid_request", "line": number, "message": why, "param": None})
            if len(errors) >= MOST_ERRORS:
                break
            continue
        seen.add(custom_id)
        found.append(Place(custom_id=custom_id, start=start, size=len(text)))
    if len(found) > MOST_REQUESTS:
        errors.append(of_whole("too_many_requests", f"{len(found):,} requests; at most {MOST_REQUESTS:,}"))
    if not found and not errors:
        errors.append(of_whole("empty_file", "the file has no request"))
    return found, errors


def of_whole(code: str, message: str) -> dict[str, Any]:
    """An error of the whole input."""
    return {"code": code, "line": None, "message": message, "param": None}


def _check(text: bytes, endpoint: str, seen: set[str]) -> tuple[str, str]:
    """What is wrong with a line, and its custom_id."""
    try:
        line = _line(text)
        streams = _streams(line.body).stream
    except NOT_JSON as exc:
        return f"no request: {exc}", ""
    if not line.custom_id or len(line.custom_id) > MOST_ID_LETTERS:
        return f"custom_id: expected 1 to {MOST_ID_LETTERS} letters", ""
    if line.custom_id in seen:
        return f"custom_id {line.custom_id[:80]!r} is there twice", ""
    if line.method != "POST" or line.url != endpoint:
        return f"expected POST {endpoint}, found {line.method[:10]} {line.url[:80]}", ""
    return ("stream: a batch takes whole answers only", "") if streams else ("", line.custom_id)


def answered(custom_id: str, serial: str, status: int, body: bytes) -> bytes:
    """The line of a result."""
    value: Any
    try:
        value = msgspec.json.decode(body)
    except NOT_JSON:
        value = {"error": {"message": body.decode(errors="replace")[:1000]}}
    response = {"status_code": status, "request_id": serial, "body": value}
    return encode({"id": f"batch_req_{serial}", "custom_id": custom_id, "response": response, "error": None}) + b"\n"


def unanswered(custom_id: str, serial: str, code: str, message: str) -> bytes:
    """The line of a request that was not sent, or got no answer."""
    error = {"code": code, "message": message}
    return encode({"id": f"batch_req_{serial}", "custom_id": custom_id, "response": None, "error": error}) + b"\n"


def done_ids(content: bytes) -> tuple[Iterator[str], int]:
    """The custom_ids of whole lines of a result, and how many bytes they are: a kill may have cut the last one."""
    whole = content.rfind(b"\n") + 1
    return (_result(text).custom_id for text in content[:whole].splitlines()), whole
