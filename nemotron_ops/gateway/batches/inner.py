"""Sends one request through the gateway, without a socket: exchange, queue and rights are a client's. asyncio.

The connection is a client's; only its transport is ours. A closed transport cancels the request, as with any client.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
import msgspec

from nemotron_ops.gateway.client.connection import ClientConnection

HOST = b"localhost"


class Answer(msgspec.Struct):
    """A whole answer."""

    status: int
    body: bytes


class Lost(Exception):
    """The connection was closed before the answer was complete."""


async def ask(connection: ClientConnection, path: str, body: bytes, name: str) -> Answer:
    """The answer to a request with the id `name`. Raises Lost; cancelled, it cancels the request."""
    transport = InnerTransport(connection)
    connection.connection_made(transport)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST.decode()}\r\nX-Request-Id: {name}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    try:
        connection.data_received(head.encode() + body)
        return await transport.answer
    finally:
        transport.close()


class InnerTransport(asyncio.Transport):
    """Reads what the gateway writes."""

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__()
        self.answer: asyncio.Future[Answer] = connection.loop.create_future()
        self._connection = connection
        self._closing = False
        self._body: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)

    def write(self, data: Any) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._fail(Lost(str(exc)))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._connection.loop.call_soon(self._closed)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def on_body(self, data: bytes) -> None:
        """httptools: a part of the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """httptools: the answer is whole."""
        if (status := self._parser.get_status_code()) >= 200 and not self.answer.done():
            self.answer.set_result(Answer(status=status, body=b"".join(self._body)))

    def _closed(self) -> None:
        self._connection.connection_lost(None)
        self._fail(Lost("the connection was closed"))

    def _fail(self, exc: Lost) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)
            self.answer.exception()  # it is read here, for the case that nobody waits any more
