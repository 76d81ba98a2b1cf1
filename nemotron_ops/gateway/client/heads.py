"""HTTP heads: what a client may send, what goes upstream, what comes back. Pure.

A head that goes upstream is written from nothing: request line, host, our key, content type and length. So no
header of a client reaches llama-server (its key, `X-Conversation-Id`, a second length), and no trick in a head can
make the two sides disagree about where a request ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import parse_qs

import msgspec

from nemotron_ops.gateway.api.errors import REASONS, Refusal

PATIENCE_S = 86400.0
PATIENCE_HEADERS = (b"x-request-timeout", b"x-stainless-read-timeout", b"x-stainless-timeout")
HEADER_NAME = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~")
ASKED_HEADERS_BYTES = 2048
ALLOW_HEADERS = b"Authorization, Content-Type, X-Api-Key, Anthropic-Version"
EXPOSE_HEADERS = b"X-Request-Id, X-Instance, X-Queue-Ms, X-Lost-In-Thought, Retry-After"
JSON = b"application/json"
SAFE_TYPE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/+-.;=\" _'()?:,")


class Request(msgspec.Struct):
    """One request of a client, whole. Header names are lower case; of repeated ones the last is kept."""

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    http_1_0: bool = False

    def param(self, name: str) -> str:
        """The first value of a query parameter, or nothing."""
        return parse_qs(self.query).get(name, [""])[0] if self.query else ""


def client_key(headers: dict[bytes, bytes]) -> str:
    """The key that a client sent, as OpenAI's or Anthropic's clients do, or nothing."""
    value = headers.get(b"authorization", b"")
    if value:
        scheme, _, rest = value.partition(b" ")
        return (rest if scheme.lower() == b"bearer" else value).strip().decode("latin-1")
    return headers.get(b"x-api-key", b"").strip().decode("latin-1")


def client_patience_s(request: Request) -> float:
    """How long the client says it will wait for an answer to begin (OpenAI's clients say so in a header)."""
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
    if kind != JSON and not (kind and SAFE_TYPE.issuperset(kind)):
        kind = JSON
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
    """The head of an answer to a client. `length` None and not `chunked` means: until the connection closes.

    `extra` are further lines.
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


@lru_cache(maxsize=64)
def host_name(value: str) -> str:
    """A Host header or origin's authority without its port, in lower case."""
    text = value.strip().lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.rpartition(":")[0] if text.count(":") == 1 else text


def check_host(headers: dict[bytes, bytes], allowed: frozenset[str] | None) -> None:
    """Raises Refusal if the Host header names someone else: a web page whose DNS was pointed here would.

    `allowed` None means: any host (a client has to prove itself by a key anyway).
    """
    if allowed is None:
        return
    host = headers.get(b"host")
    if host is None or host_name(host.decode("latin-1")) in allowed:
        return
    raise Refusal(
        status=403, code="host_not_allowed",
        message="this Host is not served here; allow it with --allowed-host, or configure keys",
    )  # fmt: skip


def check_origin(headers: dict[bytes, bytes], allowed: frozenset[str]) -> None:
    """Raises Refusal for a request that a web page of another origin made a browser send."""
    origin = headers.get(b"origin")
    if origin is None:
        return
    text = origin.decode("latin-1").strip().lower()
    host = headers.get(b"host", b"").decode("latin-1").strip().lower()
    if text in allowed or "*" in allowed or text.partition("://")[2] == host:
        return
    raise Refusal(status=403, code="origin_not_allowed", message="requests from this web origin are not allowed")


def cors_headers(headers: dict[bytes, bytes], allowed: frozenset[str]) -> list[bytes]:
    """The lines that tell a browser that an allowed origin may read the answer; nothing where CORS is off."""
    origin = headers.get(b"origin")
    if origin is None or not (origin.decode("latin-1").strip().lower() in allowed or "*" in allowed):
        return []
    expose = b"Access-Control-Expose-Headers: " + EXPOSE_HEADERS
    return [b"Access-Control-Allow-Origin: " + origin, expose, b"Vary: Origin"]


def preflight_headers(headers: dict[bytes, bytes], allowed: frozenset[str]) -> list[bytes]:
    """The lines that answer a browser's question before a request of another origin."""
    found = cors_headers(headers, allowed)
    if not found:
        return []
    return [
        *found,
        b"Access-Control-Allow-Methods: GET, POST, OPTIONS",
        b"Access-Control-Allow-Headers: " + _allow_headers(headers),
        b"Access-Control-Max-Age: 600",
    ]


def _allow_headers(headers: dict[bytes, bytes]) -> bytes:
    """The headers that a page of an allowed origin may send: those that it wants to.

    OpenAI's and Anthropic's clients send a dozen of their own (`x-stainless-*`), and none reaches llama-server.
    """
    wanted = headers.get(b"access-control-request-headers", b"")
    names = [name.strip() for name in wanted.split(b",")]
    harmless = all(name and HEADER_NAME.issuperset(name) for name in names)
    return b", ".join(names) if harmless and len(wanted) <= ASKED_HEADERS_BYTES else ALLOW_HEADERS
