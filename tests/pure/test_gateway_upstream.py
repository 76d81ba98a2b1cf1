"""Connections to llama-server: whom a slow client may hold up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nemotron_ops.gateway.attempt import Attempt, Connected
from nemotron_ops.gateway.turns import AT_ONCE, CHUNK_BYTES, Turns
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

    def come(self, data: bytes) -> None:
        """The engine has sent `data`, read as a loop reads it."""
        while data:
            room = self.connection.get_buffer(-1)
            part, data = data[: len(room)], data[len(room) :]
            room[: len(part)] = part
            self.connection.buffer_updated(len(part))


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
        stand.come(ANSWER)
        assert stand.upstream.idle(asyncio.get_running_loop().time()) is stand.connection
        other = stand.ask()
        slow.pause(True)
        assert not stand.transport.paused
        other.pause(True)
        slow.pause(False)
        assert stand.transport.paused, "nor wake it"

    run(body)


def test_an_engine_that_fills_its_chunk_waits_for_its_turn() -> None:
    async def body() -> None:
        stand = Stand()
        stand.ask()
        stand.come(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n".ljust(CHUNK_BYTES, b"x"))
        assert stand.transport.paused
        await asyncio.sleep(0)
        assert not stand.transport.paused
        stand.come(b"x")
        assert not stand.transport.paused

    run(body)


def test_a_turn_does_not_read_for_a_client_that_is_slow() -> None:
    async def body() -> None:
        stand = Stand()
        client = stand.ask()
        stand.come(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n".ljust(CHUNK_BYTES, b"x"))
        client.pause(True)
        await asyncio.sleep(0)
        assert stand.transport.paused
        client.pause(False)
        assert not stand.transport.paused

    run(body)


def test_few_get_their_turn_at_once_and_everybody_gets_it() -> None:
    class Waiting:
        def __init__(self) -> None:
            self.turns = 0

        def take_turn(self) -> None:
            self.turns += 1

    async def body() -> None:
        turns, readers = Turns(), [Waiting() for _ in range(3 * AT_ONCE)]
        for reader in readers:
            turns.wait(reader)
        for done in (AT_ONCE, 2 * AT_ONCE, 3 * AT_ONCE):
            await asyncio.sleep(0)
            assert [r.turns for r in readers] == [1] * done + [0] * (len(readers) - done)

    run(body)
