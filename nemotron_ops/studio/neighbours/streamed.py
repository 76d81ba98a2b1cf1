"""A streamed answer over a connection of its own, read in gulps. asyncio, httptools.

An answer comes token by token, and a read for each would cost the page more than all else. So after each read the
connection is left alone until shortly before the next tick, and what has gathered in the kernel meanwhile is read at
once. All connections are read at the same moments, so that the process wakes once for all of them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

import httptools

from nemotron_ops.studio.neighbours.beat import Beat

CONNECT_S = 5.0
MOST_WAITING = 8 << 20  # bytes that nobody has taken; above it nothing is read


class Broken(Exception):
    """The connection ended before the answer did, or what came is no HTTP."""


class Unreachable(Broken):
    """Nobody listens there."""


class Streamed(asyncio.Protocol):
    """One answer. `status` and `headers` (lower case) are there when `begun` has returned."""

    def __init__(self, wait_s: float, beat: Beat) -> None:
        self._beat = beat
        self.status = 0
        self.headers: dict[str, str] = {}
        self._wait_s = wait_s  # the longest silence
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._moved = asyncio.Event()
        self._head = self._whole = self._lost = False
        self._cause = ""

    async def begun(self) -> None:
        """Wait for the head. Raises Broken, TimeoutError."""
        while not self._head:
            self._check()
            await self._move()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, in gulps. Raises Broken, TimeoutError."""
        while True:
            if self._pieces:
                gulp, self._pieces, self._waiting = b"".join(self._pieces), [], 0
                yield gulp
            elif self._whole:
                return
            else:
                self._check()
                await self._move()

    async def body(self, most: int) -> bytes:
        """The first `most` bytes of the body. Raises Broken, TimeoutError."""
        found = bytearray()
        async for gulp in self.chunks():
            found += gulp
            if len(found) >= most:
                break
        return bytes(found[:most])

    def close(self) -> None:
        """Close the connection; the endpoint then stops what it does for it."""
        if self._transport is not None:
            self._transport.abort()

    def _check(self) -> None:
        if self._lost:
            raise Broken(self._cause or "it was closed early")

    async def _move(self) -> None:
        self._moved.clear()
        async with asyncio.timeout(self._wait_s):
            await self._moved.wait()

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._lost, self._cause = True, f"it sent no HTTP: {exc}"
            self.close()
        else:
            self._rest()
        self._moved.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost, self._cause = True, self._cause or str(exc or "")
        self._moved.set()

    def _rest(self) -> None:
        """Read nothing for a while."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(self._beat.until_reading_s(), self._go_on)

    def _go_on(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._waiting > MOST_WAITING:
            self._rest()
        else:
            self._transport.resume_reading()

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status, self._head = self._parser.get_status_code(), True

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._waiting += len(body)

    def on_message_complete(self) -> None:
        self._whole = True


@asynccontextmanager
async def posted(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    context: ssl.SSLContext | None,
    wait_s: float,
    beat: Beat,
) -> AsyncIterator[Streamed]:
    """POST `body` as JSON; the answer's head has come. `wait_s` bounds each silence.

    `context` is for addresses with https; `beat` tells when to read. Raises Unreachable, Broken, TimeoutError.
    """
    place = urlsplit(url)
    secure = context if place.scheme == "https" else None
    port = place.port or (443 if secure else 80)
    opening = asyncio.get_running_loop().create_connection(
        lambda: Streamed(wait_s, beat), place.hostname or "", port, ssl=secure
    )  # fmt: skip
    try:
        transport, answer = await asyncio.wait_for(opening, CONNECT_S)
    except OSError as exc:
        raise Unreachable(str(exc)) from exc
    try:
        head = {"Host": place.netloc, "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        lines = [f"POST {place.path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        transport.write("\r\n".join(lines).encode("latin-1") + body)
        await answer.begun()
        yield answer
    finally:
        answer.close()
