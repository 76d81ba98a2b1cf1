"""Connects to llama-server over its unix socket, and reuses connections. asyncio.

A connection carries one request at a time and passes the response to a `Sink`. After a whole (not streamed) response it
is kept for the next request, for less time than llama-server keeps it (5 s, cpp-httplib). After a stream llama-server
closes the connection although it announced keep-alive (v0.5.0), so it is not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol, cast

import httptools

from nemotron_ops.gateway.loop.read_turns import CHUNK_BYTES, Turns

KEEP_S = 4.0
CHUNK_END = b"\n\n\r\n"  # of a chunk of whole events; events contain no carriage return (JSON escapes it)
HIGH_WATER_BYTES = 1 << 20


class Sink(Protocol):
    """Receives a response. After `on_end` or `on_lost` nothing is called.

    `token` is a shortcut for an event that arrived by itself; it returns False for one that must go to `on_data`.
    """

    token: Callable[[bytes], bool] | None

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None: ...
    def on_data(self, data: bytes) -> None: ...
    def on_end(self) -> None: ...
    def on_lost(self, reason: str) -> None: ...


class UpstreamConnection(asyncio.BufferedProtocol):
    """One connection to one llama-server."""

    __slots__ = (  # makes a stream's token 5 % cheaper
        "_between", "_buffer", "_headers", "_keep_alive", "_of_events", "_parser", "_parts", "_streams", "_waits",
        "_whole", "idle_since", "paused", "received", "sink", "transport", "upstream", "used",
    )  # fmt: skip

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.transport: asyncio.Transport | None = None
        self.sink: Sink | None = None
        self.used = 0
        self.received = 0
        self.idle_since = 0.0
        self.paused = False  # because a client reads too slowly
        self._waits = False  # for its turn to read
        self._buffer = upstream.turns.chunk
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._whole = False
        self._keep_alive = False
        self._of_events = False  # the response is an event stream
        self._streams = False  # an event stream in chunks
        self._between = False  # the last read ended with a chunk of events

    def send(self, head: bytes, body: bytes, sink: Sink) -> None:
        """Send a request; its response goes to `sink`."""
        assert self.transport is not None
        self.sink = sink
        self.used += 1
        self.received = 0
        self._whole = self._streams = self._between = False
        self._headers = {}
        if len(body) < 65536:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)

    def pause(self, paused: bool) -> None:
        """Stop reading, or resume."""
        if not self.closed():
            self.paused = paused
            self._read_or_not()

    def take_turn(self) -> None:
        """Read the next chunk."""
        self._waits = False
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self.transport is None or self.closed():
            return
        if self.paused or self._waits:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def close(self) -> None:
        """Close at once, without a call to the sink; llama-server then cancels the request."""
        self.sink = None
        if self.transport is not None:
            self.transport.abort()

    def closed(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transport is not a subclass
        self.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self.upstream.open.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._buffer[:nbytes])
        if not (self._between and data.endswith(CHUNK_END) and self._pass_on(data)):
            self._take(data)
        if nbytes == CHUNK_BYTES and self.sink is not None and not self.closed():
            self._waits = True
            self._read_or_not()
            self.upstream.turns.wait(self)

    def _pass_on(self, data: bytes) -> bool:
        """Pass on exactly one chunk, the usual case, without the parser. False if `data` is anything else."""
        size, _, events = data.partition(b"\r\n")
        sink = self.sink
        if sink is None or size != b"%x" % (len(events) - 2):
            return False
        events = events[:-2]
        if sink.token is None or not sink.token(events):
            sink.on_data(events)
        return True

    def _take(self, data: bytes) -> None:
        if self.sink is None:
            self.close()  # data without a request
            return
        self.received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._lost(f"the engine sent an invalid HTTP response: {exc}")
            return
        if self._parts and self.sink is not None:
            parts, self._parts = self._parts, []
            self.sink.on_data(parts[0] if len(parts) == 1 else b"".join(parts))
        self._between = self._streams and data.endswith(CHUNK_END)
        if self._whole:
            self._end()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.upstream.forget(self)
        self._lost("the engine closed the connection" if exc is None else f"the connection broke: {exc}")
        self.transport = None

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        chunked = self._headers.get(b"transfer-encoding") == b"chunked"
        self._of_events = self._headers.get(b"content-type", b"").startswith(b"text/event-stream")
        self._streams = chunked and self._of_events
        if self.sink is not None:
            self.sink.on_head(self._parser.get_status_code(), self._headers)

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)

    def on_message_complete(self) -> None:
        self._whole = True
        self._keep_alive = self._parser.should_keep_alive()  # the parser knows this only within the callback

    def _end(self) -> None:
        sink, self.sink = self.sink, None
        if self._keep_alive and not self._of_events and not self.closed():
            self.upstream.keep(self)
        elif self.transport is not None:
            self.transport.abort()
        if sink is not None:
            sink.on_end()

    def _lost(self, reason: str) -> None:
        sink, self.sink = self.sink, None
        if self.transport is not None:
            self.transport.abort()
        if sink is None:
            return
        headers = self._headers
        if headers and b"content-length" not in headers and b"transfer-encoding" not in headers:
            reason = ""  # a body that ends with its connection looks like a broken one
        sink.on_lost(reason or "the engine closed the connection")


class Upstream:
    """One llama-server: its socket, its key, and the open connections to it."""

    def __init__(self, name: str, socket: str, key: str, turns: Turns | None = None) -> None:
        self.name = name
        self.socket = socket
        self.key = key
        self.turns = turns or Turns()
        self.loop = asyncio.get_running_loop()
        self.open: set[UpstreamConnection] = set()
        self.losses: Mapping[str, int] = {}  # of earlier processes of this instance, by cause
        self.loss: object = None  # the owner's: the requests that were here when the process was lost
        self.wedged = False  # the supervisor ends it because it is stuck
        self._idle: list[UpstreamConnection] = []

    def idle(self) -> UpstreamConnection | None:
        """A kept connection that is still usable, or None."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed() and self.loop.time() - connection.idle_since < KEEP_S:
                return connection
            connection.close()
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection. Raises OSError as the socket does."""
        _, connection = await self.loop.create_unix_connection(lambda: UpstreamConnection(self), self.socket)
        return connection

    def keep(self, connection: UpstreamConnection) -> None:
        if connection.paused:
            connection.pause(False)  # the last request had a slow client, the next one may not
        connection.idle_since = self.loop.time()
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        self.open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def retire(self) -> None:
        """Close idle connections, because no new request will come. Responses in progress continue."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def cut(self) -> None:
        """Close every connection; requests in progress are lost."""
        for connection in list(self.open):
            if connection.transport is not None:
                connection.transport.abort()
        self._idle.clear()
