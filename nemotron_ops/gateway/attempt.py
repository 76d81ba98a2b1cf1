"""One try to get an answer from one llama-server. asyncio.

Streams go to the relay as they come; any other answer is kept until it is whole, so that a llama-server that dies
in the middle of it leaves nothing at the client, and the request can be tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from nemotron_ops.gateway.relay import ContextFullError, Relay
from nemotron_ops.gateway.unseen import Diverged
from nemotron_ops.gateway.upstream import Upstream, UpstreamConnection


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """The connection ended before the answer did."""

    reason: str
    connected: bool
    full: bool = False  # the context that its slots share was full
    diverged: bool = False  # it answered, but not so that a stream could be continued


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that is no stream."""

    status: int
    content_type: bytes
    body: bytes


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that llama-server ended regularly."""


Outcome = Lost | Whole | Streamed


class Attempt:
    """The `Sink` of one request at one llama-server; `done` gives the outcome."""

    def __init__(self, loop: asyncio.AbstractEventLoop, relay: Relay | None) -> None:
        self.done: asyncio.Future[Outcome] = loop.create_future()
        self.token: Callable[[bytes], bool] | None = None
        self._relay = relay
        self._status = 0
        self._type = b""
        self._parts: list[bytes] = []
        self._streams = False
        self.diverged = False

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._status = status
        self._type = headers.get(b"content-type", b"application/json")
        self._streams = self._relay is not None and status == 200 and self._type.startswith(b"text/event-stream")
        if self._streams and self._relay is not None:
            self.token = self._relay.token

    def on_data(self, data: bytes) -> None:
        if self._streams and self._relay is not None:
            try:
                self._relay.feed(data)
            except Diverged:
                self.diverged = True
                self._set(Lost(reason="another engine would have gone on differently", connected=True, diverged=True))
            except ContextFullError:
                self.diverged = True
                self._set(Lost(reason="the context that slots share was full", connected=True, full=True))
        else:
            self._parts.append(data)

    def on_end(self) -> None:
        if self._streams:
            self._set(Streamed())
        else:
            self._set(Whole(status=self._status, content_type=self._type, body=b"".join(self._parts)))

    def on_lost(self, reason: str) -> None:
        self._set(Lost(reason=reason, connected=True))

    def _set(self, outcome: Outcome) -> None:
        if not self.done.done():
            self.done.set_result(outcome)


async def attempt(
    upstream: Upstream, head: bytes, body: bytes, relay: Relay | None, *, on_connected: Connected
) -> Outcome:
    """Ask `upstream` once. A kept connection that turns out to be dead is replaced by a new one."""
    loop = asyncio.get_running_loop()
    connection = upstream.idle(loop.time())
    asked = False  # if only over a kept connection that died: of this, for all we know
    while True:
        fresh = connection is None
        if connection is None:
            try:
                connection = await upstream.connect(loop)
            except OSError as exc:
                return Lost(reason=f"cannot connect to the engine: {exc.strerror or exc}", connected=asked)
        asked = True
        sink = Attempt(loop, relay)
        connection.send(head, body, sink)
        on_connected(connection, sink)
        try:
            outcome = await sink.done
        except asyncio.CancelledError:
            connection.close()
            raise
        if sink.diverged:
            connection.close()
        elif isinstance(outcome, Lost) and not fresh and connection.received == 0:
            connection = None
            continue
        return outcome


class Connected:
    """Called with the connection in use, so that its reading can be paused while the client is slow."""

    def __init__(self) -> None:
        self.connection: UpstreamConnection | None = None
        self.sink: Attempt | None = None
        self.paused = False

    def __call__(self, connection: UpstreamConnection, sink: Attempt) -> None:
        self.connection, self.sink = connection, sink
        if self.paused:
            self.pause(True)

    def pause(self, paused: bool) -> None:
        """The client reads too slowly, or again fast enough.

        The answer may be here already, and the connection with its next request: that is not this client's to stop.
        """
        self.paused = paused
        if self.connection is not None and self.connection.sink is self.sink:
            self.connection.pause(paused)
