"""Sends one streaming request and notes when each piece of its answer arrives. asyncio, httptools.

The arrival is taken as the bytes are read, and nothing is parsed but HTTP until the load is over: what a client
computes between two reads would count as the endpoint's time. Each request has a connection of its own; connecting is
not part of the time to the first token.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httptools
import msgspec

from nemotron_ops.errors import UsageError

CONNECT_S = 10.0
ERROR_BYTES = 400


@dataclass(frozen=True, kw_only=True)
class Target:
    """An endpoint: its base URL ending in /v1, or a unix socket; the public name of the model; a key."""

    url: str
    model: str
    api_key: str = field(default="", repr=False)
    socket: Path | None = None
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 900.0  # a queued request shows nothing until its slot starts


@dataclass(kw_only=True)
class Received:
    """What came back, raw. `error` is "" unless there is no complete HTTP response with status 200."""

    sent: float = 0.0  # perf_counter when the request was written
    chunks: list[tuple[float, bytes]] = field(default_factory=list)
    error: str = ""


class _Reader(asyncio.Protocol):
    """Reads one response; `done` is set at its end, or when the connection is lost."""

    def __init__(self) -> None:
        self.received = Received()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._whole = False
        self._now = 0.0

    def data_received(self, data: bytes) -> None:
        self._now = time.perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self.received.error = f"no valid HTTP response: {exc}"
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._whole:
            self.received.error = self.received.error or "the connection was lost"
        self._end()

    def on_body(self, body: bytes) -> None:
        self.received.chunks.append((self._now, body))

    def on_message_complete(self) -> None:
        self._whole = True
        if (status := self._parser.get_status_code()) != 200:
            self.received.error = f"HTTP {status}: {_message(self.received.chunks)}"
        self._end()

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def send(target: Target, body: bytes) -> Received:
    """One POST to /chat/completions, read to its end. Never raises for what the endpoint does."""
    try:
        transport, reader = await asyncio.wait_for(_connect(target), CONNECT_S)
    except (OSError, TimeoutError) as exc:
        now = time.perf_counter()
        return Received(sent=now, error=f"cannot connect: {str(exc) or 'no answer'}")
    try:
        reader.received.sent = time.perf_counter()
        transport.write(head(target, body) + body)
        await asyncio.wait_for(reader.done, target.timeout_s)
    except TimeoutError:
        reader.received.error = f"no end after {target.timeout_s:g} s"
    finally:
        transport.abort()
    return reader.received


def head(target: Target, body: bytes) -> bytes:
    """The head of the request. Raises UsageError where the URL is none."""
    parts = urlsplit(target.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"cannot use {target.url!r} as an endpoint", hint="for example http://127.0.0.1:8001/v1")
    lines = [
        f"POST {parts.path.rstrip('/')}/chat/completions HTTP/1.1",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *([f"Authorization: Bearer {target.api_key}"] if target.api_key else []),
        *(f"{name}: {value}" for name, value in target.headers),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _connect(target: Target) -> tuple[asyncio.Transport, _Reader]:
    loop = asyncio.get_running_loop()
    if target.socket is not None:
        transport, reader = await loop.create_unix_connection(_Reader, str(target.socket))
        return transport, reader
    parts = urlsplit(target.url)
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if tls else 80)
    transport, reader = await loop.create_connection(_Reader, parts.hostname or "", port, ssl=tls)
    return transport, reader


def _message(chunks: list[tuple[float, bytes]]) -> str:
    text = b"".join(data for _, data in chunks)
    try:
        return str(msgspec.json.decode(text)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return text[:ERROR_BYTES].decode(errors="replace") or "no reason given"
