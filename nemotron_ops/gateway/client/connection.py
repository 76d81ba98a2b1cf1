"""One client's connection: splits its bytes into requests, answers them in order, keeps deadlines. asyncio.

The owner gets a request only when it is whole. If the body arrives after the head, the owner is asked first whether it
accepts the request, so that an unauthenticated client cannot fill memory. While a request is being answered, the bytes
of further ones (a pipeline) are held, bounded; reading never pauses, because only a reader notices that the client
disconnects. A client that shuts down its sending side counts as disconnected, as it does for llama-server.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Protocol, cast

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.client import sent_ahead
from nemotron_ops.gateway.client.answer_writer import AnswerWriter
from nemotron_ops.gateway.client.heads import Request, response_head
from nemotron_ops.gateway.client.phase import AT_DEADLINE, AtDeadline, Phase
from nemotron_ops.gateway.client.reader import Limits, RequestReader
from nemotron_ops.gateway.client.sent_ahead import SentAhead
from nemotron_ops.gateway.loop.outbox import Outbox

LINGER_S = 2.0  # silence after which a refused request counts as sent completely
MAX_LINGER_S = 10.0
PACE_S = 5.0  # over which the pace of a body is measured
RETIRE_S = 1.0  # silence after which no further request is expected on a retiring connection
IDLE, HEAD, BODY, ANSWERING, LINGERING, CLOSING = Phase  # an attribute of an enum class costs more than a global


class Owner(Protocol):
    """What a connection belongs to."""

    limits: Limits
    outbox: Outbox

    def opened(self, connection: ClientConnection) -> None: ...
    def closed(self, connection: ClientConnection) -> None: ...
    def welcome(self, connection: ClientConnection, request: Request) -> int:
        """The largest body that is accepted for a request whose head has come. Raises Refusal."""
        ...

    def receiving(self, connection: ClientConnection, more: int) -> bool:
        """Count `more` (or, if negative, fewer) bytes of unfinished bodies; returns whether there is room for them."""
        ...

    def asked(self, connection: ClientConnection, request: Request) -> None: ...

    def refused(self, connection: ClientConnection, request: Request | None, refusal: Refusal) -> None:
        """Answer a request that cannot be read or accepted; `request` is its head, if that could be read."""
        ...


class ClientConnection(asyncio.Protocol):
    """One connection of one client."""

    __slots__ = (
        "_ahead", "_came_at", "_counted", "_linger_until", "_on_pause", "_pace_at", "_pace_bytes", "_paused",
        "_pending", "_reader", "_request", "_unread", "_window_at", "_window_bytes", "answer", "cached_auth",
        "deadline", "loop", "on_gone", "owner", "peer", "phase", "retiring", "transport",
    )  # fmt: skip

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.owner = owner
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.peer = ""
        self.cached_auth: object = None  # the owner's, of the last authenticated request
        self.phase = IDLE
        self.retiring = False  # no further request is promised
        self.deadline = loop.time() + owner.limits.head_s
        self.answer = AnswerWriter(owner.outbox)
        self.on_gone: Callable[[], object] | None = None
        self._on_pause: Callable[[bool], None] | None = None
        self._paused = False  # the client reads more slowly than we write
        self._reader = RequestReader(owner.limits)
        self._request: Request | None = None  # being answered
        self._pending: Request | None = None  # accepted by its head; its body is being received
        self._window_at = 0.0  # from when on that body's pace is measured
        self._window_bytes = 0  # of it that had come by then
        self._pace_at = 0.0  # the same, for the choice of a body that makes room
        self._pace_bytes = 0
        self._came_at = 0.0  # when its last part came
        self._counted = 0  # bytes of it that `receiving` knows of
        self._ahead: SentAhead | None = None
        self._unread = False  # the client may still be sending a refused request
        self._linger_until = 0.0

    # what the owner does

    def reply(
        self, status: int, body: bytes, *, content_type: bytes = b"application/json; charset=utf-8",
        extra: Iterable[bytes] = (),
    ) -> None:  # fmt: skip
        """Send a whole answer."""
        request = self._request
        keep = request is not None and request.keep_alive and not self.retiring
        length = None if status == 204 else len(body)
        head = response_head(status, content_type=content_type, length=length, keep_alive=keep, extra=extra)
        answer = self.answer
        answer.began = True
        answer.write(head if request is not None and request.method == "HEAD" else head + body)
        self._done(keep)

    def begin(self, status: int, content_type: bytes, extra: Iterable[bytes]) -> None:
        """Begin an answer of unknown length; `answer.send` and `end` follow."""
        request = self._request
        assert request is not None
        chunked = not request.http_1_0
        keep = request.keep_alive and chunked and not self.retiring
        head = response_head(
            status, content_type=content_type, length=None, chunked=chunked, keep_alive=keep, extra=extra
        )
        self.answer.begin(head, chunked=chunked, promised=keep)

    def end(self) -> None:
        """End an answer regularly that has begun."""
        self.answer.end()
        self._done(self.answer.promised)

    def abort(self) -> None:
        """End an answer as incomplete: what waits is written, the last chunk is not, the connection closes."""
        self.answer.write(b"")
        self.retiring = True
        self.on_gone = None
        self._close()

    def watch(self, on_pause: Callable[[bool], None]) -> None:
        """Call `on_pause` when the client reads too slowly (now, if it already does), and when it has caught up."""
        self._on_pause = on_pause
        if self._paused:
            on_pause(True)

    def turn_away(self, refusal: Refusal) -> None:
        """Refuse a connection before it has sent a request."""
        self._refuse(refusal)

    @property
    def held_bytes(self) -> int:
        """Bytes of an unfinished body that take room."""
        return self._counted

    def pace(self, now: float) -> float:
        """Bytes per second of the body that is being received, of late."""
        if now - self._came_at >= PACE_S:
            return 0.0
        return (self._counted - self._pace_bytes) / max(1.0, now - self._pace_at)

    def evict(self) -> None:
        """Refuse the body that is being received: there is no room for it."""
        message = "too many large requests are being received at once"
        self._refuse(Refusal(status=503, code="receiving_full", message=message, retry_after_s=1))

    def retire(self) -> None:
        """Promise no further request, but answer the one that is on its way, with `Connection: close`.

        If none is, `check_deadline` closes the connection after RETIRE_S of silence.
        """
        self.retiring = True
        if self.phase is IDLE:
            self.deadline = min(self.deadline, self.loop.time() + RETIRE_S)

    def check_deadline(self, now: float) -> None:
        """Close a connection that is idle, sends too slowly or reads nothing. Called about once a second."""
        transport = self.transport
        if transport is None:
            return
        if self.answer.stalled(now, self.owner.limits.write_stall_s):
            transport.abort()  # `connection_lost` cancels the request
            return
        if now < self.deadline:
            return
        match AT_DEADLINE[self.phase]:
            case AtDeadline.WAIT:
                pass
            case AtDeadline.CLOSE:
                self._close()
            case AtDeadline.REFUSE:
                self._refuse(Refusal(status=408, code="request_timeout", message="the request was sent too slowly"))
            case AtDeadline.ABORT:
                transport.abort()

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = self.answer.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, tuple) else "unix"
        self.owner.opened(self)

    def data_received(self, data: bytes) -> None:
        phase = self.phase
        if phase is IDLE or phase is HEAD or phase is BODY:
            self._feed(data)
        elif phase is ANSWERING:
            if self._ahead is None:
                self._ahead = SentAhead()
            self._ahead.hold(data)
        elif phase is LINGERING:
            self.deadline = min(self.loop.time() + LINGER_S, self._linger_until)

    def eof_received(self) -> bool:
        return False  # closes the transport, which cancels the request in progress

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = self.answer.transport = None
        self.phase = CLOSING
        self.retiring = True
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

    def _feed(self, data: bytes) -> None:
        reader = self._reader
        if self.phase is IDLE:
            self.phase = HEAD
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
        """Hand on the next whole request, refuse what cannot become one, or decide about a head that has come."""
        if self.phase is ANSWERING or self.transport is None:
            return
        reader = self._reader
        if reader.requests:
            self._request = request = reader.requests.popleft()
            self.phase = ANSWERING
            self.answer.renew()
            self.owner.asked(self, request)
        elif reader.refusal is not None:
            self._refuse(reader.refusal)
        elif not reader.in_head and self._pending is None:
            self._welcome()

    def _welcome(self) -> None:
        """A head has come without its body: receive the body only if the owner accepts the request."""
        reader, now = self._reader, self.loop.time()
        self._window_at, self._window_bytes, self._pace_at, self._pace_bytes, self._came_at = now, 0, now, 0, now
        self._pending = head = reader.head()
        if head is None:
            self._refuse(Refusal(status=400, code="bad_request", message="cannot read the request's path"))
            return
        try:
            reader.bound(self.owner.welcome(self, head))
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if reader.refusal is not None:
            self._refuse(reader.refusal)
            return
        self.phase = BODY
        if reader.continues:
            self.answer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._take_body()

    def _take_body(self) -> None:
        """A part of a body has come: check that there is room for it, and set the deadline for the next part."""
        reader, limits = self._reader, self.owner.limits
        if reader.refusal is not None:
            return
        if not self._count(reader.body_bytes):
            self.evict()
        if self.phase is not BODY:  # this one had to make room
            return
        self._came_at = now = self.loop.time()
        if now - self._pace_at >= PACE_S:
            self._pace_at, self._pace_bytes = now, reader.body_bytes
        seen_s, came = now - self._window_at, reader.body_bytes - self._window_bytes
        if seen_s >= limits.body_stall_s and came >= seen_s * limits.body_bytes_per_s:
            self._window_at, self._window_bytes = now, reader.body_bytes  # a burst earns no time beyond its window
        fair = (
            self._window_at + limits.body_stall_s + (reader.body_bytes - self._window_bytes) / limits.body_bytes_per_s
        )
        self.deadline = min(now + limits.body_stall_s, fair)

    def _count(self, size: int) -> bool:
        """Tell the owner that `size` bytes of an unfinished body are here; returns whether there is room for them."""
        more, self._counted = size - self._counted, size
        return not more or self.owner.receiving(self, more)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with `refusal`, then close; what the client still sends is read and dropped."""
        if self.phase is LINGERING:
            return
        self.phase = ANSWERING
        self.retiring = self._unread = True
        self.answer.renew()
        self._request, self._pending = self._pending, None
        self.owner.refused(self, self._request, refusal)
        self._reader = RequestReader(self.owner.limits)  # frees what had come of a body
        self._count(0)

    # the end of an answer

    def _done(self, keep: bool) -> None:
        """An answer is complete: go on with the next request, or close."""
        self.on_gone = None
        self._on_pause = None
        if self.phase is CLOSING:
            return
        self.deadline = self.loop.time() + (RETIRE_S if self.retiring else self.owner.limits.idle_s)
        reader = self._reader
        if not keep:
            self.retiring = True
            reader.requests.clear()
            if self._unread or (self._ahead is not None and self._ahead.overfull):
                self._linger()
            else:
                self._close()
            return
        self.phase = HEAD if reader.mid_request() else IDLE
        if reader.requests or self._ahead is not None or reader.refusal is not None or not reader.in_head:
            self.loop.call_soon(self._go_on)

    def _linger(self) -> None:
        """Shut down only our side: closing with unread bytes makes the kernel reset the answer on its way (RST)."""
        self.phase = LINGERING
        now = self.loop.time()
        self.deadline, self._linger_until = now + LINGER_S, now + MAX_LINGER_S
        if self.transport is None:
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _close(self) -> None:
        self.phase = CLOSING
        if self.transport is not None:
            self.transport.close()

    def _go_on(self) -> None:
        """Answer the next request of a pipeline; if none was read yet, read what was sent ahead."""
        if self.transport is None or self.phase is ANSWERING:
            return
        if self._reader.requests:
            self._next()
            return
        ahead = self._ahead
        if ahead is not None and not ahead.overfull:
            self._ahead = None
            self._feed(ahead.take())
            return
        if ahead is not None:
            self._reader.feed(ahead.take())
            self._reader.stop(sent_ahead.refusal())
        self._next()
