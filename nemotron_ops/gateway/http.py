"""One client's connection: requests in, answers out, nothing believed. asyncio.

A request is handed on only when it is whole. While one is being answered, what the client sends meanwhile (the next
requests of a pipeline) waits unread, bounded; we go on reading the socket all the time, because only a reader sees
that the other side left. A client that closes its sending side counts as gone, as it does for llama-server.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Protocol, cast

from nemotron_ops.gateway.headers import Request, response_head
from nemotron_ops.gateway.reader import Limits, RequestReader
from nemotron_ops.gateway.replies import Refusal, error_body
from nemotron_ops.gateway.routes import Api

HELD_BYTES = 1 << 18
LINGER_S = 2.0
RETIRE_S = 1.0  # silence after which a connection that is to end is taken to bring no further request


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
        self._reader = RequestReader(owner.limits)
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._lingering = False

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
        if not self.busy and not self._reader.mid_request and not self._lingering:
            self.deadline = min(self.deadline, self.loop.time() + RETIRE_S)

    def check_deadline(self, now: float) -> None:
        """Close a connection that is idle or too slow. Called about once a second."""
        if self.busy or now < self.deadline or self.transport is None:
            return
        if self._lingering or not self._reader.mid_request:
            self.transport.abort() if self._lingering else self.transport.close()
            return
        self._refuse(Refusal(status=408, code="request_timeout", message="the request came too slowly"))

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
        reader, now = self._reader, self.loop.time()
        if not reader.in_head:
            self.deadline = now + reader.limits.body_stall_s
        elif not reader.mid_request:
            self.deadline = now + reader.limits.head_s
        was_in_head = reader.in_head
        reader.feed(data)
        self.closing = self.closing or reader.upgrade  # answered as HTTP/1.1, then closed
        if was_in_head and not reader.in_head:
            self.deadline = now + reader.limits.body_stall_s
        if reader.continues:
            reader.continues = False
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._next()

    def _next(self) -> None:
        if self.busy or self.transport is None:
            return
        if self._reader.requests:
            request = self._reader.requests.popleft()
            self._request = request
            self.busy = True
            self.began = False
            self.bytes_out = 0
            self.owner.asked(self, request)
        elif self._reader.refusal is not None:
            self._refuse(self._reader.refusal)

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
            self._reader.requests.clear()
            if self.transport is not None:
                self.transport.close()
            return
        if self._reader.requests or self._held or self._reader.refusal is not None:
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.transport is None or self.busy:
            return
        if self._reader.requests:
            self._next()
            return
        held, self._held, self._held_bytes = self._held, [], 0
        if held:
            self.transport.resume_reading()
            self._feed(b"".join(held))
        else:
            self._next()
