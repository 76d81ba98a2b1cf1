"""Sends one request to one llama-server and receives its response. asyncio.

Streams go to the relay as they arrive. Any other response is buffered until it is whole: if llama-server dies before
that, the client has received nothing and the request can be sent again.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import msgspec

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.loop.eager_task import Signal
from nemotron_ops.gateway.streams.relay import ContextFullError, Diverged, Relay
from nemotron_ops.gateway.upstream.connection import Upstream, UpstreamConnection

OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """The connection ended before the response did."""

    reason: str
    connected: bool
    full: bool = False  # the shared context was full
    diverged: bool = False  # the response does not continue the stream


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """A response that is not a stream."""

    status: int
    content_type: bytes
    body: bytes


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """A stream whose response ended regularly, perhaps before its last event."""


class Late(msgspec.Struct, frozen=True, kw_only=True):
    """The client's first-token timeout has passed."""


Outcome = Lost | Whole | Streamed


class Attempt(msgspec.Struct, eq=False):
    """One request at one llama-server: the `Sink` of its connection."""

    upstream: Upstream
    relay: Relay | None = None
    token: Callable[[bytes], bool] | None = None
    _connection: UpstreamConnection | None = None
    _paused: bool = False
    _end: Signal[Outcome | Late] = msgspec.field(default_factory=Signal)
    _stopped: bool = False  # by the gateway: more data may follow
    _status: int = 0
    _type: bytes = b""
    _parts: list[bytes] = []
    _streams: bool = False

    async def ask(self, head: bytes, body: bytes) -> Outcome | Late:
        """Send the request and wait for the end of its response. A kept connection that is dead is replaced.

        Raises Refusal if the gateway cannot open a connection for lack of descriptors.
        """
        connection = self.upstream.idle()
        sent = False  # perhaps over a kept connection that died, perhaps of this request
        while True:
            fresh = connection is None
            if connection is None:
                try:
                    connection = await self.upstream.connect()
                except OSError as exc:
                    if exc.errno in OUT_OF_DESCRIPTORS:  # the gateway's own lack, and no fault of the engine
                        message = "the gateway has no file descriptor left for a connection to the engine"
                        raise Refusal(status=503, code="out_of_descriptors", message=message, retry_after_s=1) from exc
                    return Lost(reason=f"cannot connect to the engine: {exc.strerror or exc}", connected=sent)
            sent = True
            self._connection = connection
            connection.send(head, body, self)
            if self._paused:
                connection.pause(True)
            try:
                outcome = await self._end
            except asyncio.CancelledError:
                connection.close()
                raise
            if self._stopped:
                connection.close()
            elif isinstance(outcome, Lost) and not fresh and connection.received == 0:
                connection, self._end = None, Signal()
                continue
            return outcome

    def pause(self, paused: bool) -> None:
        """Pause reading for a client that reads too slowly, or resume.

        After the end of the response the connection may carry another request, which must not be paused.
        """
        self._paused = paused
        if self._connection is not None and self._connection.sink is self:
            self._connection.pause(paused)

    def give_up(self) -> None:
        """End the attempt as `Late`."""
        self._stop(Late())

    def _stop(self, outcome: Outcome | Late) -> None:
        self._stopped = True
        self._end.tell(outcome)

    # Sink

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._status = status
        self._type = headers.get(b"content-type", b"application/json")
        self._streams = self.relay is not None and status == 200 and self._type.startswith(b"text/event-stream")
        if self._streams and self.relay is not None:
            self.token = self.relay.token

    def on_data(self, data: bytes) -> None:
        if self._streams and self.relay is not None:
            try:
                self.relay.feed(data)
            except Diverged:
                self._stop(
                    Lost(reason="another engine continued the stream differently", connected=True, diverged=True)
                )
            except ContextFullError:
                self._stop(Lost(reason="the context that the slots share was full", connected=True, full=True))
        else:
            self._parts.append(data)

    def on_end(self) -> None:
        if self._streams:
            self._end.tell(Streamed())
        else:
            self._end.tell(Whole(status=self._status, content_type=self._type, body=b"".join(self._parts)))

    def on_lost(self, reason: str) -> None:
        self._end.tell(Lost(reason=reason, connected=True))
