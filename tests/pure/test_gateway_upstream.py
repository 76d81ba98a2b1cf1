"""Connections to llama-server: whom a slow client may hold up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nemotron_ops.gateway.attempt import Attempt, Connected
from nemotron_ops.gateway.upstream import Upstream, UpstreamConnection

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Transport:
    """Remembers whether it is being read."""

    def __init__(self) -> None:
        self.paused = False

    def set_write_buffer_limits(self, **limits: int) -> None: ...

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Stand:
    """An upstream with one connection, and what clients do with it."""

    def __init__(self) -> None:
        self.upstream, self.transport = Upstream("m-0", "/x", ""), Transport()
        self.connection = UpstreamConnection(self.upstream)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def ask(self, *, paused: bool = False) -> Connected:
        connected = Connected()
        connected.paused = paused
        sink = Attempt(asyncio.get_running_loop(), None)
        self.connection.send(b"", b"", sink)
        connected(self.connection, sink)
        return connected


def run(body: Any) -> None:
    asyncio.run(body())


def test_a_slow_client_pauses_its_own_answer() -> None:
    async def body() -> None:
        stand = Stand()
        client = stand.ask()
        client.pause(True)
        assert stand.transport.paused
        client.pause(False)
        assert not stand.transport.paused
        assert stand.ask(paused=True).paused
        assert stand.transport.paused, "also one that begins while the client does not read"

    run(body)


@pytest.mark.parametrize("when", ["before the end", "after the end"])
def test_a_slow_client_does_not_pause_who_gets_its_connection_next(when: str) -> None:
    async def body() -> None:
        stand = Stand()
        slow = stand.ask()
        if when == "before the end":
            slow.pause(True)
        stand.connection.data_received(ANSWER)
        assert stand.upstream.idle(asyncio.get_running_loop().time()) is stand.connection
        other = stand.ask()
        slow.pause(True)
        assert not stand.transport.paused
        other.pause(True)
        slow.pause(False)
        assert stand.transport.paused, "nor wake it"

    run(body)
