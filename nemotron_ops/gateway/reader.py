"""Bytes of a client's connection into whole requests, within bounds; nothing believed. Pure.

httptools splits; what two servers could read differently (two lengths, a length and chunks, a header twice that may
stand once) is refused here, as is what is too large. After a refusal nothing more is read.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import httptools

from nemotron_ops.gateway.headers import Request
from nemotron_ops.gateway.replies import Refusal

METHODS = frozenset({b"GET", b"POST", b"HEAD", b"OPTIONS", b"DELETE", b"PUT", b"PATCH"})
ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"authorization", b"content-type"})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what a client may send, and how slowly."""

    head_bytes: int = 32768
    header_count: int = 100
    target_bytes: int = 8192
    body_bytes: int = 100 << 20  # as llama-server
    head_s: float = 20.0
    body_stall_s: float = 30.0
    idle_s: float = 75.0


class RequestReader:
    """Reads one connection. `requests` are those that are whole; `refusal` is why nothing follows them."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests: deque[Request] = deque()
        self.refusal: Refusal | None = None
        self.upgrade = False  # asked for h2c or a websocket, which are not spoken here
        self.continues = False  # waits for "100 Continue" before it sends its body
        self._parser = httptools.HttpRequestParser(self)
        self._fresh()

    def _fresh(self) -> None:
        self.in_head = True
        self._head_fed = 0
        self._target: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._count = 0
        self._size = 0
        self._body: list[bytes] = []
        self._body_bytes = 0

    @property
    def mid_request(self) -> bool:
        """Whether a part of a request has come."""
        return bool(self._head_fed or self._target or self._headers or self._body)

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        if self.in_head:
            self._head_fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.upgrade = True
        except httptools.HttpParserError as exc:
            if self.refusal is None:
                self.refusal = Refusal(status=400, code="bad_request", message=f"cannot read the request: {exc}")
        if self.refusal is None and self.in_head and self._head_fed > self.limits.head_bytes + len(data):
            self.refusal = Refusal(status=431, code="head_too_large", message="the request's head is too large")

    # httptools

    def on_url(self, url: bytes) -> None:
        self._target.append(url)
        self._size += len(url)
        if self._size > self.limits.target_bytes:
            self._stop(414, "uri_too_long", "the request's path is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._count += 1
        self._size += len(name) + len(value)
        if self._count > self.limits.header_count or self._size > self.limits.head_bytes:
            self._stop(431, "head_too_large", "the request's head is too large")
        if name in ONCE and name in self._headers:
            self._stop(400, "bad_request", f"the header {name.decode()} occurs twice")
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        self.in_head = False
        headers = self._headers
        length = headers.get(b"content-length")
        coding = headers.get(b"transfer-encoding")
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            self._stop(505, "http_version", "HTTP/1.1 is spoken here")
        if self._parser.get_method() not in METHODS:
            self._stop(501, "method", "this method is not known here")
        if b"host" not in headers and self._parser.get_http_version() == "1.1":
            self._stop(400, "bad_request", "the Host header is missing")
        if coding is not None and (length is not None or coding.strip().lower() != b"chunked"):
            self._stop(400, "bad_request", "only a chunked body, or one with a length, is accepted")
        if headers.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
            self._stop(415, "content_encoding", "compressed bodies are not accepted")
        if length is not None and (not length.isdigit() or int(length) > self.limits.body_bytes):
            self._stop(413, "body_too_large", self._too_large())
        self.continues = headers.get(b"expect", b"").lower() == b"100-continue"

    def on_body(self, data: bytes) -> None:
        self._body.append(data)
        self._body_bytes += len(data)
        if self._body_bytes > self.limits.body_bytes:
            self._body.clear()
            self._stop(413, "body_too_large", self._too_large())

    def on_message_complete(self) -> None:
        if self.refusal is not None:
            return
        raw = b"".join(self._target)
        try:
            url = httptools.parse_url(raw)
            path = (url.path or b"/").decode("ascii")
            query = (url.query or b"").decode("ascii")
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            self._stop(400, "bad_request", "the request's path cannot be read")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        old = self._parser.get_http_version() == "1.0"
        request = Request(
            method=self._parser.get_method().decode(), path=path, query=query, headers=self._headers, body=body,
            keep_alive=self._parser.should_keep_alive() and not old, http_1_0=old,
        )  # fmt: skip
        self.requests.append(request)
        self._fresh()

    def _stop(self, status: int, code: str, message: str) -> None:
        """Refuse the request; raising makes the parser read no further."""
        self.refusal = Refusal(status=status, code=code, message=message)
        raise self.refusal

    def _too_large(self) -> str:
        return f"the body is larger than {self.limits.body_bytes} bytes"
