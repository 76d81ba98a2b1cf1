"""Connections to llama-server: slow clients pause only their own, and streams survive any split into reads."""

from __future__ import annotations

import asyncio
import errno
import os
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.loop.eager_task import EagerTask
from nemotron_ops.gateway.loop.outbox import Outbox
from nemotron_ops.gateway.loop.read_turns import AT_ONCE, CHUNK_BYTES, Turns
from nemotron_ops.gateway.upstream.attempt import Attempt
from nemotron_ops.gateway.upstream.connection import Upstream, UpstreamConnection

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = (
    b"data: 1\n\n",
    b"data: " + b"2" * 300 + b"\n\n",
    b": a comment\n\ndata: 3\n\n",
    b"data: half an ",
    b"event\n\n",
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Transport:
    """Remembers whether it is being read."""

    def __init__(self) -> None:
        self.paused = False

    def set_write_buffer_limits(self, **limits: int) -> None: ...

    def write(self, data: bytes) -> None: ...

    def abort(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Heard:
    """A sink that keeps what it hears. Of what comes by itself it takes the shortest events the short way."""

    def __init__(self) -> None:
        self.data, self.ended, self.lost = b"", 0, ""
        self.tokens = 0

    def token(self, event: bytes) -> bool:
        if len(event) > len(EVENTS[0]):
            return False
        self.data += event
        self.tokens += 1
        return True

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None: ...

    def on_data(self, data: bytes) -> None:
        self.data += data

    def on_end(self) -> None:
        self.ended += 1

    def on_lost(self, reason: str) -> None:
        self.lost = reason


async def heard_by(attempt: Attempt) -> None:
    await attempt.ask(b"", b"")


class Stand:
    """An upstream with one connection, and what clients do with it."""

    def __init__(self) -> None:
        self.upstream, self.transport = Upstream("m-0", "/x", ""), Transport()
        self.connection = UpstreamConnection(self.upstream)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def ask(self, *, paused: bool = False) -> Attempt:
        self.upstream.keep(self.connection)
        attempt = Attempt(self.upstream)
        attempt.pause(paused)
        EagerTask(heard_by(attempt), Outbox(asyncio.get_running_loop()), lambda bug: None).go()
        assert self.connection.sink is attempt
        return attempt

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
        stand.ask(paused=True)
        assert stand.transport.paused, "also one that begins while the client does not read"

    run(body)


@pytest.mark.parametrize("when", ["before the end", "after the end"])
def test_a_slow_client_does_not_pause_the_next_request_on_its_connection(when: str) -> None:
    async def body() -> None:
        stand = Stand()
        slow = stand.ask()
        if when == "before the end":
            slow.pause(True)
        stand.come(ANSWER)
        assert stand.upstream.idle() is stand.connection
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


def test_a_turn_does_not_read_for_a_slow_client() -> None:
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


def test_few_connections_get_a_turn_at_once_and_all_get_one() -> None:
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


@given(
    events=st.lists(st.sampled_from(EVENTS), max_size=8),
    cuts=st.lists(st.integers(0, 2000)),
    size=st.sampled_from([b"%x", b"0%X"]),
)
def test_a_stream_is_the_same_however_it_is_cut_into_reads(events: list[bytes], cuts: list[int], size: bytes) -> None:
    chunks = [size % len(event) + b"\r\n" + event + b"\r\n" for event in events]
    whole = b"".join([STREAM, *chunks, b"0\r\n\r\n"])
    seams = [len(STREAM)]
    for chunk in chunks:
        seams.append(seams[-1] + len(chunk))  # a read per chunk, as it comes from an engine, and cuts anywhere
    edges = sorted({0, len(whole), *seams, *(cut for cut in cuts if cut < len(whole))})

    async def body() -> None:
        stand, heard = Stand(), Heard()
        stand.connection.send(b"", b"", heard)  # type: ignore[arg-type]  # its `token` is a method
        for begin, end in pairwise(edges):
            stand.come(whole[begin:end])
        assert (heard.data, heard.ended, heard.lost) == (b"".join(events), 1, "")

    run(body)


@pytest.mark.parametrize("bad", [b"9\r\ndata: 22\n\n\r\n", b"x\r\ndata: 2\n\n\r\n", b"data: 2\n\n\r\n"])
def test_a_chunk_that_lies_about_its_size_is_the_end_of_the_stream(bad: bytes) -> None:
    async def body() -> None:
        stand, heard = Stand(), Heard()
        stand.connection.send(b"", b"", heard)  # type: ignore[arg-type]  # its `token` is a method
        for part in (STREAM, b"9\r\ndata: 1\n\n\r\n", b"9\r\ndata: 1\n\n\r\n", bad):
            stand.come(part)
        assert heard.tokens == 1
        assert heard.lost.startswith("the engine sent an invalid HTTP response")
        assert heard.data.startswith(b"data: 1\n\n")
        assert heard.ended == 0

    run(body)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_lack_of_descriptors_is_no_fault_of_the_engine(number: int) -> None:
    async def body() -> None:
        class Full(Upstream):
            async def connect(self) -> UpstreamConnection:
                raise OSError(number, os.strerror(number))

        with pytest.raises(Refusal) as caught:
            await Attempt(Full("m-0", "/x", "")).ask(b"", b"")
        assert caught.value.code == "out_of_descriptors"
        assert "Too many open files" not in caught.value.message

    run(body)
