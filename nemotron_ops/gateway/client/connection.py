"""One client's connection: requests in, answers out, nothing believed. asyncio.

A request is handed on only when it is whole. Where its body takes longer than its head, the owner is asked in between
whether anybody wants it, so that a stranger fills no memory. While one is being answered, what the client sends
meanwhile (the next requests of a pipeline) waits unread, bounded; we go on reading the socket all the time, because
only a reader sees that the other side left. A client that closes its sending side counts as gone, as it does for
llama-server.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Protocol, cast

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.client.heads import Request, response_head
from nemotron_ops.gateway.client.reader import Limits, RequestReader
from nemotron_ops.gateway.loop.outbox import Outbox

HELD_BYTES = 1 << 18
LINGER_S = 2.0  # silence after which nobody is taken to be still sending what was refused
MAX_LINGER_S = 10.0
RETIRE_S = 1.0  # silence after which a connection that is to end is taken to bring no further request


class Owner(Protocol):
    """What a connection belongs to."""

    limits: Limits
    outbox: Outbox

    def opened(self, connection: ClientConnection) -> None: ...
    def closed(self, connection: ClientConnection) -> None: ...
    def welcome(self, connection: ClientConnection, request: Request) -> int:
        """How large the body may be of a request whose head has come. Raises Refusal."""
        ...

    def receiving(self, more: int) -> bool:
        """So many bytes more (or less) of bodies have come; whether there is room for them."""
        ...

    def asked(self, connection: ClientConnection, request: Request) -> None: ...

    def refused(self, connection: ClientConnection, request: Request | None, refusal: Refusal) -> None:
        """Answer what is no whole request; `request` is its head if that could be read."""
        ...


class ClientConnection(asyncio.Protocol):
    """One connection of one client."""

    __slots__ = (  # a stream's token costs a twentieth less with them
        "_before", "_body_at", "_counted", "_due", "_ended", "_held", "_held_bytes", "_linger_until",
        "_lingering", "_on_pause", "_overfull", "_paused", "_pending", "_promised", "_reader", "_request",
        "_seen_gone", "_stalled_at", "_unread", "_waiting", "began", "busy", "chunked", "closing", "deadline",
        "guest", "loop", "on_gone", "owner", "peer", "transport", "written",
    )  # fmt: skip

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.owner = owner
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.peer = ""
        self.guest: object = None  # what the owner keeps of who this is
        self.deadline = loop.time() + owner.limits.head_s
        self.busy = False  # a request is being answered
        self.closing = False  # no further request is promised
        self.on_gone: Callable[[], object] | None = None
        self.began = False  # the answer's head is out
        self.chunked = False
        self._promised = False  # the head of the answer in progress lets the client send another request
        self.written = 0  # bytes, of all answers
        self._before = 0  # of those, before the answer in progress
        self._on_pause: Callable[[bool], None] | None = None
        self._paused = False  # the client reads more slowly than we write
        self._seen_gone = 0  # bytes that had left us when somebody last looked
        self._stalled_at = 0.0
        self._waiting = b""  # to be written at the end of this round of the loop; a head alone waits for more
        self._due = False  # it is in the outbox
        self._ended = False  # the mark of its end is out
        self._request: Request | None = None
        self._pending: Request | None = None  # its body is on its way, and welcome
        self._body_at = 0.0
        self._counted = 0  # bytes of it that `receiving` knows of
        self._reader = RequestReader(owner.limits)
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._overfull = False  # more was sent ahead than is held
        self._unread = False  # the client may still be sending what is not wanted
        self._lingering = False
        self._linger_until = 0.0

    def bytes_out(self) -> int:
        """Bytes of the answer in progress, or the last one."""
        return self.written - self._before

    # what the owner does

    def reply(
        self, status: int, body: bytes, *, content_type: bytes = b"application/json; charset=utf-8",
        extra: Iterable[bytes] = (),
    ) -> None:  # fmt: skip
        """A whole answer."""
        request = self._request
        keep = request is not None and request.keep_alive and not self.closing
        length = None if status == 204 else len(body)
        head = response_head(status, content_type=content_type, length=length, keep_alive=keep, extra=extra)
        self.began = True
        self._write(head if request is not None and request.method == "HEAD" else head + body)
        self._done(keep)

    def begin(self, status: int, content_type: bytes, extra: Iterable[bytes]) -> None:
        """The head of an answer whose length nobody knows yet; it is written with its first part."""
        request = self._request
        assert request is not None
        self.chunked = not request.http_1_0
        self.began = True
        self._promised = request.keep_alive and self.chunked and not self.closing
        self._ended = False
        self._waiting += response_head(
            status, content_type=content_type, length=None, chunked=self.chunked, keep_alive=self._promised,
            extra=extra,
        )  # fmt: skip

    def send(self, data: bytes, *, last: bool = False) -> None:
        """A part of an answer that has begun; with the `last` one the mark of its end goes out. `end` must follow."""
        if not data:
            return  # as a chunk it would be the end
        if self.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
            if last:
                data += b"0\r\n\r\n"
                self._ended = True
        outbox = self.owner.outbox
        if not outbox.gathers:
            self._write(data)
            return
        self._waiting += data
        if not self._due:
            self._due = True
            outbox.add(self)

    def flush(self) -> None:
        """Write what waits for the end of the round."""
        self._due = False
        self._write(b"")

    def end(self) -> None:
        """The regular end of an answer that has begun."""
        self._write(b"0\r\n\r\n" if self.chunked and not self._ended else b"")
        self._done(self._promised)

    def abort(self) -> None:
        """End an answer so that nobody takes it for a whole one: what is written goes out, no last chunk follows."""
        self._write(b"")
        self.closing = True
        self.busy = False
        self.on_gone = None
        if self.transport is not None:
            self.transport.close()

    def watch(self, on_pause: Callable[[bool], None]) -> None:
        """Tell `on_pause` when the client reads too slowly, and when no more; at once if it does so already."""
        self._on_pause = on_pause
        if self._paused:
            on_pause(True)

    def turn_away(self, refusal: Refusal) -> None:
        """Answer a connection that has asked nothing yet."""
        self._refuse(refusal)

    def retire(self) -> None:
        """Promise nothing more, and lose nothing: a request that is on its way is answered with `Connection: close`.

        Without one, `check_deadline` closes the connection once it has been silent for RETIRE_S.
        """
        self.closing = True
        if not self.busy and not self._reader.mid_request() and not self._lingering:
            self.deadline = min(self.deadline, self.loop.time() + RETIRE_S)

    def check_deadline(self, now: float) -> None:
        """Close a connection that is idle or too slow, or that reads nothing. Called about once a second."""
        transport = self.transport
        if transport is None:
            return
        if self._stalled(transport, now):
            transport.abort()  # `connection_lost` cancels what it waited for
        elif self.busy or now < self.deadline:
            return
        elif self._lingering:
            transport.abort()
        elif not self._reader.mid_request():
            transport.close()
        else:
            self._refuse(Refusal(status=408, code="request_timeout", message="the request came too slowly"))

    def _stalled(self, transport: asyncio.Transport, now: float) -> bool:
        """Whether the client has taken nothing for so long that it holds its slot for nothing."""
        waiting = transport.get_write_buffer_size()
        gone = self.written - waiting
        if not waiting or gone != self._seen_gone or not self._stalled_at:
            self._seen_gone = gone
            self._stalled_at = now + self.owner.limits.write_stall_s if waiting else 0.0
        return bool(waiting) and now >= self._stalled_at

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
            self.deadline = min(self.loop.time() + LINGER_S, self._linger_until)
        elif self.busy:
            self._hold(data)
        else:
            self._feed(data)

    def eof_received(self) -> bool:
        return False  # closes, which cancels what is in progress

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.closing = True
        self._count(0)
        self._on_pause = None
        self.owner.closed(self)
        gone, self.on_gone = self.on_gone, None
        if gone is not None:
            gone()

    def pause_writing(self) -> None:
        self._paused = True
        if self._on_pause is not None:
            self._on_pause(True)

    def resume_writing(self) -> None:
        self._paused = False
        if self._on_pause is not None:
            self._on_pause(False)

    # reading

    def _hold(self, data: bytes) -> None:
        """Keep what was sent ahead. What does not fit is thrown away, for who does not read does not see an end."""
        if self._held_bytes + len(data) > HELD_BYTES:
            self._overfull = True
        if not self._overfull:
            self._held.append(data)
            self._held_bytes += len(data)

    def _feed(self, data: bytes) -> None:
        reader = self._reader
        if reader.in_head and not reader.mid_request():
            self.deadline = self.loop.time() + reader.limits.head_s
        reader.feed(data)
        if reader.in_head or reader.requests:
            self._pending = None
            if self._counted:
                self._count(0)
        elif self._pending is not None:
            self._take_body()
        self._next()

    def _next(self) -> None:
        if self.busy or self.transport is None:
            return
        reader = self._reader
        if reader.requests:
            request = reader.requests.popleft()
            self._request = request
            self.busy = True
            self.began = False
            self._before = self.written
            self.owner.asked(self, request)
        elif reader.refusal is not None:
            self._refuse(reader.refusal)
        elif not reader.in_head and self._pending is None:
            self._welcome()

    def _welcome(self) -> None:
        """A request's head has come and its body has not: receive that only if somebody wants it."""
        reader, self._body_at = self._reader, self.loop.time()
        self._pending = head = reader.head()
        if head is None:
            self._refuse(Refusal(status=400, code="bad_request", message="the request's path cannot be read"))
            return
        try:
            reader.bound(self.owner.welcome(self, head))
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if reader.refusal is not None:
            self._refuse(reader.refusal)
            return
        if reader.continues:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._take_body()

    def _take_body(self) -> None:
        """A part of a body has come: is there room for it, and until when must there be more?"""
        reader, limits = self._reader, self.owner.limits
        if reader.refusal is not None:
            return
        if not self._count(reader.body_bytes):
            message = "too many large requests come at once"
            self._refuse(Refusal(status=503, code="receiving_full", message=message, retry_after_s=1))
            return
        fair = self._body_at + limits.body_stall_s + reader.body_bytes / limits.body_bytes_per_s
        self.deadline = min(self.loop.time() + limits.body_stall_s, fair)

    def _count(self, size: int) -> bool:
        """`size` bytes of a body are here; returns whether there is room for them."""
        more, self._counted = size - self._counted, size
        return not more or self.owner.receiving(more)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is no proper request, then close; what the client still sends is read and thrown away."""
        if self._lingering:
            return
        self.closing = self._unread = True
        self.began = False
        self._before = self.written
        self._request, self._pending = self._pending, None
        self.owner.refused(self, self._request, refusal)
        self._reader = RequestReader(self.owner.limits)  # with what there was of a body
        self._count(0)

    def _linger(self) -> None:
        """Closing with unread bytes would make the kernel destroy the answer on its way (RST)."""
        self._lingering = True
        now = self.loop.time()
        self.deadline, self._linger_until = now + LINGER_S, now + MAX_LINGER_S
        if self.transport is None:
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    # writing

    def _write(self, data: bytes) -> None:
        """Write `data`, after what waits."""
        if self._waiting:
            data, self._waiting = self._waiting + data, b""
        transport = self.transport
        if data and transport is not None and not transport.is_closing():
            self.written += len(data)
            transport.write(data)

    def _done(self, keep: bool) -> None:
        """The answer is out: go on with what waits, or close."""
        self.busy = False
        self.on_gone = None
        self._on_pause = None
        self.deadline = self.loop.time() + (RETIRE_S if self.closing else self.owner.limits.idle_s)
        if not keep:
            self.closing = True
            self._reader.requests.clear()
            self._held.clear()
            if self._unread or self._overfull:
                self._linger()
            elif self.transport is not None:
                self.transport.close()
            return
        reader = self._reader
        if reader.requests or self._held or self._overfull or reader.refusal is not None or not reader.in_head:
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.transport is None or self.busy:
            return
        if self._reader.requests:
            self._next()
            return
        held, self._held, self._held_bytes = b"".join(self._held), [], 0
        if self._overfull:
            self._reader.feed(held)
            message = f"more than {HELD_BYTES} bytes were sent ahead while an earlier request was being answered"
            self._reader.stop(Refusal(status=400, code="sent_ahead", message=message))
        if held and not self._overfull:
            self._feed(held)
        else:
            self._next()
