"""Parses a client's bytes into whole requests, within bounds; refuses ambiguous ones. Pure.

httptools splits the bytes. Requests that two servers could read differently (two lengths, a length and chunks, a
repeated header that may occur once) are refused here, as are those that are too large. After a refusal nothing more is
read. Trailers behind a chunked body are read and dropped: a key or a host in them would come after the decision.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import httptools

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.client.heads import Request

METHODS = frozenset({b"GET", b"POST", b"HEAD", b"OPTIONS", b"DELETE", b"PUT", b"PATCH"})
ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"authorization", b"content-type"})
RARE = frozenset({b"transfer-encoding", b"content-encoding", b"expect", b"upgrade"})
UPGRADE = frozenset({b"upgrade", b"connection", b"http2-settings"})
SMALL_PART_BYTES = 4096  # smaller parts of a body are joined as they come: one object per byte would take 50 times that
JOINED_BYTES = 65536  # a joined part that is longer is not appended to


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what a client sends, how slowly it sends, and how slowly it reads."""

    head_bytes: int = 32768
    header_count: int = 100
    target_bytes: int = 8192
    body_bytes: int = 100 << 20  # as llama-server
    head_s: float = 20.0
    body_stall_s: float = 30.0
    body_bytes_per_s: int = 500  # after the first body_stall_s; Apache's mod_reqtimeout has the same
    idle_s: float = 75.0
    write_stall_s: float = 60.0


class RequestReader:
    """Reads one connection. `requests` are whole; `refusal` is why no more follow."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests: deque[Request] = deque()
        self.refusal: Refusal | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._header_count = limits.header_count
        self._method = b""  # from here: of the last head that was read to its end
        self._headers: dict[bytes, bytes] = {}
        self._old = False  # HTTP/1.0
        self._fresh()

    def _fresh(self) -> None:
        self.in_head = True
        self.continues = False  # the client waits for "100 Continue" before it sends the body
        self.body_bytes = 0
        self._upgrades = False
        self._bound = self.limits.body_bytes
        self._dry_bytes = 0  # bytes since the last byte of a body
        self._target: list[bytes] = []
        self._lines: list[tuple[bytes, bytes]] = []  # headers and trailers, with names in lower case
        self._body: list[bytes | bytearray] = []

    def mid_request(self) -> bool:
        """Whether a part of the next request has come."""
        return bool(self._dry_bytes or self._target or self._lines or self._body)

    def feed(self, data: bytes) -> None:
        """Parse bytes that have come."""
        self._dry_bytes += len(data)
        body_bytes = self.body_bytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data, upgrade)
        except httptools.HttpParserError as exc:
            self._unreadable(exc)
        if len(self._lines) > self._header_count:  # once for what has come: parsed lines take many times their bytes
            self.stop(head_too_large())
        if self.body_bytes != body_bytes:
            self._dry_bytes = 0
        elif self._dry_bytes > self.limits.head_bytes + len(data):  # llhttp buffers an unfinished line of any length
            self.stop(head_too_large())

    def bound(self, limit: int) -> None:
        """Lower the bound of the body whose head has come to `limit` bytes."""
        self._bound = min(limit, self._bound)
        declared = int(self._headers.get(b"content-length", b"0"))
        if max(declared, self.body_bytes) > self._bound:
            self._body.clear()
            self.stop(self._too_large())

    def stop(self, refusal: Refusal) -> None:
        """Read no further request."""
        self.refusal = self.refusal or refusal

    def head(self) -> Request | None:
        """The request whose head has come, without its body. None if its path cannot be read."""
        return self._request(b"")

    def _ignore_upgrade(self, data: bytes, upgrade: httptools.HttpParserUpgrade) -> None:
        """Ignore a client's offer to upgrade to another protocol (Java's client offers h2c).

        llhttp takes the bytes after such a head, even a body, for the other protocol's. So the head is parsed again
        without the offer.
        """
        rest: memoryview | bytes = data
        while True:
            head, rest = self._plain_head(), memoryview(rest)[upgrade.args[0] :]
            self._parser = httptools.HttpRequestParser(self)
            self._fresh()
            try:
                self._parser.feed_data(head)
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as another:
                upgrade = another
                continue
            except httptools.HttpParserError as exc:
                self._unreadable(exc)
            return

    def _plain_head(self) -> bytes:
        """The head that has come, without the headers that offer an upgrade."""
        version = self._parser.get_http_version().encode()
        line = b"%b %b HTTP/%b" % (self._method, b"".join(self._target), version)
        lines = [line, *(b"%b: %b" % pair for pair in self._headers.items() if pair[0] not in UPGRADE)]
        if b"close" in self._headers.get(b"connection", b"").lower():
            lines.append(b"connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _unreadable(self, exc: httptools.HttpParserError) -> None:
        self.stop(Refusal(status=400, code="bad_request", message=f"cannot read the request: {exc}"))

    # httptools

    def on_url(self, url: bytes) -> None:
        self._target.append(url)
        if sum(map(len, self._target)) > self.limits.target_bytes:
            self._stop(414, "uri_too_long", "the request's path is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.in_head = False
        version = self._parser.get_http_version()
        self._old = version == "1.0"
        if len(self._lines) > self._header_count:
            self._stop_at(head_too_large())
        self._headers = headers = dict(self._lines)
        if len(headers) < len(self._lines) and (name := repeated(self._lines)):
            self._stop(400, "bad_request", f"the header {name.decode()} occurs twice")
        most = self.limits.head_bytes  # the bytes so far may include a body, so the lines are summed up
        if self._dry_bytes > most and sum(map(len, chain(self._target, *self._lines))) > most:
            self._stop_at(head_too_large())
        if version not in ("1.1", "1.0"):
            self._stop(505, "http_version", "only HTTP/1.0 and 1.1 are supported")
        self._method = self._parser.get_method()
        if self._method not in METHODS:
            self._stop(501, "method", "method not implemented")
        if b"host" not in headers and version == "1.1":
            self._stop(400, "bad_request", "the Host header is missing")
        length = headers.get(b"content-length")
        if not RARE.isdisjoint(headers):
            self._look_closer(headers, length)
        if length is not None and (not (length.isdigit() or is_number(length)) or int(length) > self.limits.body_bytes):
            self._stop_at(self._too_large())

    def _look_closer(self, headers: dict[bytes, bytes], length: bytes | None) -> None:
        coding = headers.get(b"transfer-encoding")
        if coding is not None and (length is not None or coding.strip().lower() != b"chunked" or self._old):
            self._stop(400, "bad_request", "only a body with a length, or (in HTTP/1.1) a chunked one, is accepted")
        if headers.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
            self._stop(415, "content_encoding", "compressed bodies are not accepted")
        self.continues = headers.get(b"expect", b"").lower() == b"100-continue"
        self._upgrades = b"upgrade" in headers and self._parser.should_upgrade()

    def on_body(self, data: bytes) -> None:
        self.body_bytes += len(data)
        if self.body_bytes > self._bound:
            self._body.clear()
            self._stop_at(self._too_large())
        parts = self._body
        if not parts or len(data) > SMALL_PART_BYTES or len(parts[-1]) > JOINED_BYTES:
            parts.append(data)
        elif isinstance(last := parts[-1], bytearray):
            last += data
        else:
            parts[-1] = bytearray(last + data)

    def on_message_complete(self) -> None:
        if self.refusal is not None or self._upgrades:
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = self._request(bytes(body))
        if request is None:
            self._stop(400, "bad_request", "cannot read the request's path")
            return
        self.requests.append(request)
        self._fresh()

    def _request(self, body: bytes) -> Request | None:
        found = self._target[0] if len(self._target) == 1 else b"".join(self._target)
        target = split_target(found)
        if target is None:
            return None
        path, query, named = target
        if named:
            self._headers[b"host"] = named  # in an absolute target it replaces the header (RFC 9112, 3.2.2)
        return Request(
            method=self._method.decode(), path=path, query=query, headers=self._headers, body=body,
            keep_alive=self._parser.should_keep_alive() and not self._old, http_1_0=self._old,
        )  # fmt: skip

    def _stop(self, status: int, code: str, message: str) -> None:
        self._stop_at(Refusal(status=status, code=code, message=message))

    def _stop_at(self, refusal: Refusal) -> None:
        """Refuse the request; raising makes the parser stop."""
        self.refusal = refusal
        raise refusal

    def _too_large(self) -> Refusal:
        return Refusal(status=413, code="body_too_large", message=f"the body is larger than {self._bound} bytes")


def repeated(lines: list[tuple[bytes, bytes]]) -> bytes:
    """The first header in `lines` that is repeated but must occur once, or an empty string."""
    seen: set[bytes] = set()
    for name, _ in lines:
        if name in ONCE and name in seen:
            return name
        seen.add(name)
    return b""


def is_number(length: bytes) -> bool:
    """Whether a Content-Length is a number; space after it is no part of the value."""
    return length.strip(b" \t").isdigit()


def head_too_large() -> Refusal:
    """The refusal of too many or too long lines, in the head or in trailers."""
    return Refusal(status=431, code="head_too_large", message="the request's head is too large")


def authority(target: bytes) -> bytes:
    """Host and port in a target in absolute form, as in a Host header; empty in any other form."""
    url = httptools.parse_url(target)
    host = url.host or b""
    host = b"[" + host + b"]" if b":" in host else host
    return host + b":%d" % url.port if url.port else host


@lru_cache(maxsize=64)
def split_target(target: bytes) -> tuple[str, str, bytes] | None:
    """Path, query and authority of a request's target; None if it is malformed."""
    try:
        url = httptools.parse_url(target)
        path, query = (url.path or b"/").decode("ascii"), (url.query or b"").decode("ascii")
        return path, query, b"" if target.startswith(b"/") else authority(target)
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
        return None
