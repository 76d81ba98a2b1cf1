"""Reads a request's JSON, and refuses with a text. Starlette."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from nemotron_ops.studio.shared import Shared

MOST_BODY = 8 << 20


class Refusal(Exception):
    """A request that cannot be done; the text is for people."""

    def __init__(self, status: int, said: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(said)
        self.status, self.said, self.retry_after_s = status, said, retry_after_s


def shared(request: Request) -> Shared:
    """What all requests share."""
    found = request.app.state.shared
    assert isinstance(found, Shared)
    return found


async def bounded_body(request: Request, most: int = MOST_BODY) -> bytes:
    """The body, at most `most` bytes. Raises Refusal."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise Refusal(413, f"this is larger than {most >> 20} MiB")
    except ClientDisconnect as exc:
        raise Refusal(400, "the request ended early") from exc
    return bytes(body)


async def json_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Raises Refusal."""
    try:
        value = msgspec.json.decode(await bounded_body(request))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Refusal(400, "the request is not JSON") from exc
    if not isinstance(value, dict):
        raise Refusal(400, "the request is no JSON object")
    return value


def text(value: dict[str, Any], name: str, *, most: int = 2_000_000, default: str | None = None) -> str:
    """A text field. Raises Refusal."""
    found = value.get(name, default)
    if not isinstance(found, str):
        raise Refusal(400, f"{name}: expected a text")
    if len(found) > most:
        raise Refusal(413, f"{name}: at most {most} letters")
    return found


def word(value: dict[str, Any], name: str, *, most: int = 300) -> str:
    """A text that may stand on a command line: not empty, no option, no control character. Raises Refusal."""
    found = text(value, name, most=most, default="")
    if not found or found.startswith("-") or not found.isprintable():
        raise Refusal(400, f"{name}: expected a name" + (", which may not begin with -" if found else ""))
    return found


def answer(value: Any, status: int = 200) -> JSONResponse:
    """JSON of any value that msgspec knows."""
    return _Json(value, status)


class _Json(JSONResponse):
    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)
