"""One client's connection: requests in, answers out, nothing believed. asyncio.

A request is handed on only when it is whole. While one is being answered, what the client sends meanwhile (the next
requests of a pipeline) waits unread, bounded; we go on reading the socket all the time, because only a reader sees
that the other side left. A client that closes its sending side counts as gone, as it does for llama-server.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from nemotron_ops.gateway.headers import Request, response_head
from nemotron_ops.gateway.replies import Refusal, error_body
from nemotron_ops.gateway.routes import Api

METHODS = frozenset({b"GET", b"POST", b"HEAD", b"OPTIONS", b"DELETE", b"PUT", b"PATCH"})
ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"authorization", b"content-type"})
HELD_BYTES = 1 << 18
LINGER_S = 2.0
RETIRE_S = 1.0  # silence after which a connection that is to end is taken to bring no further request


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


class Owner(Protocol):
    """What a connection belongs to."""

    limits: Limits

    def opened(self, connection: ClientConnection) -> None: ...
    def closed(self, connection: ClientConnection) -> None: ...
    def asked(self, connection: ClientConnection, request: Request) -> None: ...
    def refused(self, connection: ClientConnection, refusal: Refusal) -> None: ...


class ClientConnection(asyncio.Protocol):
    """One connection of one client."""

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.owner = owner
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.peer = ""
        self.deadline = loop.time() + owner.limits.head_s
        self.busy = False  # a request is being answered
        self.closing = False  # no further request is promised
        self.on_gone: Callable[[], None] | None = None
        self.on_pause: Callable[[bool], None] | None = None
        self.began = False  # the answer's head is out
        self.chunked = False
        self._promised = False  # the head of the answer in progress lets the client send another request
        self.bytes_out = 0
        self._head = b""  # of an answer that has begun, until its first part
        self._ended = False  # the mark of its end is out
        self._request: Request | None = None
        self._waiting: deque[Request] = deque()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._lingering = False
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._refusal: Refusal | None = None
        self._fresh()

    def _fresh(self) -> None:
        self._target: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._count = 0
        self._size = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._in_head = True
        self._head_fed = 0

    # what the owner does

    def reply(
        self, status: int, body: bytes, *, content_type: bytes = b"application/json; charset=utf-8",
        extra: Iterable[tuple[bytes, bytes]] = (), close: bool = False,
    ) -> None:  # fmt: skip
        """A whole answer."""
        request = self._request
        keep = request is not None and request.keep_alive and not self.closing and not close
        length = None if status == 204 else len(body)
        head = response_head(status, content_type=content_type, length=length, keep_alive=keep, extra=extra)
        self.began = True
        self._write(head if request is not None and request.method == "HEAD" else head + body)
        self._done(keep)

    def begin(self, status: int, content_type: bytes, extra: Iterable[tuple[bytes, bytes]]) -> None:
        """The head of an answer whose length nobody knows yet; it goes out with the first part."""
        request = self._request
        assert request is not None
        self.chunked = not request.http_1_0
        self.began = True
        self._promised = request.keep_alive and self.chunked and not self.closing
        self._ended = False
        self._head = response_head(
            status, content_type=content_type, length=None, chunked=self.chunked, keep_alive=self._promised,
            extra=extra,
        )  # fmt: skip

    def send(self, data: bytes, *, last: bool = False) -> None:
        """A part of an answer that has begun; with the `last` one the mark of its end goes out. `end` must follow."""
        if not data:
            return  # as a chunk it would be the end
        if self.chunked:
            data = (b"%x\r\n%b\r\n0\r\n\r\n" if last else b"%x\r\n%b\r\n") % (len(data), data)
            self._ended = last
        self._write_head(data)

    def end(self) -> None:
        """The regular end of an answer that has begun."""
        self._write_head(b"0\r\n\r\n" if self.chunked and not self._ended else b"")
        self._done(self._promised)

    def abort(self) -> None:
        """End an answer so that nobody takes it for a whole one: what is written goes out, no last chunk follows."""
        self._write_head(b"")
        self.closing = True
        self.busy = False
        self.on_gone = None
        if self.transport is not None:
            self.transport.close()

    def close_when_idle(self) -> None:
        """Take no further request; close now, or after the answer in progress."""
        self.closing = True
        if not self.busy and self.transport is not None:
            self.transport.close()

    def retire(self) -> None:
        """Promise nothing more, and lose nothing: a request that is on its way is answered with `Connection: close`.

        Without one, `check_deadline` closes the connection once it has been silent for RETIRE_S.
        """
        self.closing = True
        if not self.busy and not self._mid_request() and not self._lingering:
            self.deadline = min(self.deadline, self.loop.time() + RETIRE_S)

    def check_deadline(self, now: float) -> None:
        """Close a connection that is idle or too slow. Called about once a second."""
        if self.busy or now < self.deadline or self.transport is None:
            return
        if self._lingering or not self._mid_request():
            self.transport.abort() if self._lingering else self.transport.close()
            return
        self._refuse(Refusal(status=408, code="request_timeout", message="the request came too slowly"))

    def _mid_request(self) -> bool:
        return bool(self._head_fed or self._target or self._headers or self._body)

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, tuple) else "unix"
        self.owner.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if self.busy:
            self._held.append(data)
            self._held_bytes += len(data)
            if self._held_bytes > HELD_BYTES and self.transport is not None:
                self.transport.pause_reading()
            return
        self._feed(data)

    def eof_received(self) -> bool:
        return False  # closes, which cancels what is in progress

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.closing = True
        self.owner.closed(self)
        gone, self.on_gone = self.on_gone, None
        if gone is not None:
            gone()

    def pause_writing(self) -> None:
        if self.on_pause is not None:
            self.on_pause(True)

    def resume_writing(self) -> None:
        if self.on_pause is not None:
            self.on_pause(False)

    # reading

    def _feed(self, data: bytes) -> None:
        limits = self.owner.limits
        self.deadline = max(self.deadline, 0.0) if self._in_head else self.loop.time() + limits.body_stall_s
        if self._in_head and not self._mid_request():
            self.deadline = self.loop.time() + limits.head_s
        if self._in_head:
            self._head_fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.closing = True  # h2c and websockets are not spoken here; answered as HTTP/1.1, then closed
        except httptools.HttpParserError as exc:
            if self._refusal is None:
                self._refusal = Refusal(status=400, code="bad_request", message=f"cannot read the request: {exc}")
        if self._refusal is None and self._in_head and self._head_fed > limits.head_bytes + len(data):
            self._refusal = Refusal(status=431, code="head_too_large", message="the request's head is too large")
        self._next()

    def _next(self) -> None:
        if self.busy or self.transport is None:
            return
        if self._waiting:
            request = self._waiting.popleft()
            self._request = request
            self.busy = True
            self.began = False
            self.bytes_out = 0
            self.owner.asked(self, request)
        elif self._refusal is not None:
            self._refuse(self._refusal)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is no proper request, then close; what the client still sends is read and thrown away."""
        self._request = None
        self.closing = True
        self.owner.refused(self, refusal)
        body = error_body(Api.OTHER, refusal)
        head = response_head(
            refusal.status, content_type=b"application/json; charset=utf-8", length=len(body), keep_alive=False
        )
        self._write(head + body)
        self._linger()

    def _linger(self) -> None:
        """Closing with unread bytes would make the kernel destroy the answer on its way (RST)."""
        self._lingering = True
        self.deadline = self.loop.time() + LINGER_S
        if self.transport is None:
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    # httptools

    def on_url(self, url: bytes) -> None:
        self._target.append(url)
        self._size += len(url)
        if self._size > self.owner.limits.target_bytes:
            self._stop(414, "uri_too_long", "the request's path is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._count += 1
        self._size += len(name) + len(value)
        limits = self.owner.limits
        if self._count > limits.header_count or self._size > limits.head_bytes:
            self._stop(431, "head_too_large", "the request's head is too large")
        if name in ONCE and name in self._headers:
            self._stop(400, "bad_request", f"the header {name.decode()} occurs twice")
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        self._in_head = False
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
        if length is not None and (not length.isdigit() or int(length) > self.owner.limits.body_bytes):
            self._stop(413, "body_too_large", self._too_large())
        if headers.get(b"expect", b"").lower() == b"100-continue" and self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.deadline = self.loop.time() + self.owner.limits.body_stall_s

    def on_body(self, data: bytes) -> None:
        self._body.append(data)
        self._body_bytes += len(data)
        if self._body_bytes > self.owner.limits.body_bytes:
            self._body.clear()
            self._stop(413, "body_too_large", self._too_large())

    def on_message_complete(self) -> None:
        if self._refusal is not None:
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
        self._waiting.append(request)
        self._fresh()

    def _stop(self, status: int, code: str, message: str) -> None:
        """Refuse the request; raising makes the parser read no further."""
        self._refusal = Refusal(status=status, code=code, message=message)
        raise self._refusal

    def _too_large(self) -> str:
        return f"the body is larger than {self.owner.limits.body_bytes} bytes"

    # writing

    def _write_head(self, data: bytes) -> None:
        """Write `data`, after the head if that waits for it."""
        if self._head:
            data, self._head = self._head + data, b""
        if data:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.bytes_out += len(data)
            self.transport.write(data)

    def _done(self, keep: bool) -> None:
        """The answer is out: go on with what waits, or close."""
        self.busy = False
        self.on_gone = None
        self.on_pause = None
        self.deadline = self.loop.time() + (RETIRE_S if self.closing else self.owner.limits.idle_s)
        if not keep:
            self.closing = True
            self._waiting.clear()
            if self.transport is not None:
                self.transport.close()
            return
        if self._waiting or self._held or self._refusal is not None:
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.transport is None or self.busy:
            return
        if self._waiting:
            self._next()
            return
        held, self._held, self._held_bytes = self._held, [], 0
        if held:
            self.transport.resume_reading()
            self._feed(b"".join(held))
        else:
            self._next()
