"""HTTP heads: reads a client's request head, writes the heads of upstream requests and of answers. Pure.

An upstream head is written from scratch: request line, host, our key, content type and length. So no client header
reaches llama-server (its key, `X-Conversation-Id`, a second length), and no crafted head can make the two servers
disagree about where a request ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import parse_qs

import msgspec

from nemotron_ops.gateway.api import header_bytes
from nemotron_ops.gateway.api.content_types import REQUEST_JSON
from nemotron_ops.gateway.api.errors import REASONS

PATIENCE_S = 86400.0
PATIENCE_HEADERS = (b"x-request-timeout", b"x-stainless-read-timeout", b"x-stainless-timeout")


class Request(msgspec.Struct):
    """One whole request of a client. Header names are lower case; of repeated headers the last is kept."""

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    http_1_0: bool = False

    def param(self, name: str) -> str:
        """The first value of a query parameter, or an empty string."""
        return parse_qs(self.query).get(name, [""])[0] if self.query else ""


def client_key(headers: dict[bytes, bytes]) -> str:
    """The key that a client sent in OpenAI's or Anthropic's header, or an empty string."""
    value = headers.get(b"authorization", b"")
    if value:
        scheme, _, rest = value.partition(b" ")
        return (rest if scheme.lower() == b"bearer" else value).strip().decode("latin-1")
    return headers.get(b"x-api-key", b"").strip().decode("latin-1")


def client_patience_s(request: Request) -> float:
    """How long the client waits for an answer to begin, from a header that OpenAI's clients send; else PATIENCE_S."""
    for name in PATIENCE_HEADERS:
        if (value := request.headers.get(name)) is None:
            continue
        try:
            seconds = float(value)
        except ValueError:
            continue
        if 0 < seconds < PATIENCE_S:
            return seconds
    return PATIENCE_S


def upstream_head(path: str, *, key: str, length: int, content_type: bytes, method: str = "POST") -> bytes:
    """The head of a request to llama-server."""
    kind = content_type
    if kind != REQUEST_JSON and not (kind and header_bytes.CONTENT_TYPE.issuperset(kind)):
        kind = REQUEST_JSON
    auth = b"Authorization: Bearer %b\r\n" % key.encode() if key else b""
    if method != "POST":
        return b"%b %b HTTP/1.1\r\nHost: engine\r\n%b\r\n" % (method.encode(), path.encode(), auth)
    return b"POST %b HTTP/1.1\r\nHost: engine\r\n%bContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (
        path.encode(), auth, kind, length,
    )  # fmt: skip


@lru_cache(maxsize=64)
def status_line(status: int) -> bytes:
    """The first line of an answer."""
    return b"HTTP/1.1 %d %b" % (status, REASONS.get(status, "Error").encode())


def response_head(
    status: int, *, content_type: bytes, length: int | None, keep_alive: bool, chunked: bool = False,
    extra: Iterable[bytes] = (),
) -> bytes:  # fmt: skip
    """The head of an answer to a client, with the `extra` lines.

    If `length` is None and the answer not `chunked`, its body ends where the connection closes.
    """
    lines = [status_line(status)]
    if content_type:
        lines.append(b"Content-Type: " + content_type)
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
    elif length is not None:
        lines.append(b"Content-Length: %d" % length)
    lines += extra
    if not keep_alive:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"
