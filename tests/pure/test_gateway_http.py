"""The edge of the gateway: what a client's bytes turn into, and what is refused. No socket: bytes are fed in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.gateway.headers import Request
from nemotron_ops.gateway.http import ClientConnection
from nemotron_ops.gateway.reader import Limits
from nemotron_ops.gateway.replies import Refusal

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


class Loop:
    """Time by hand, callbacks at once."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        callback(*args)


class Transport:
    """Remembers what was written."""

    def __init__(self) -> None:
        self.out = b""
        self.closed = self.eof = self.paused = False

    def get_extra_info(self, name: str) -> None:
        return None

    def write(self, data: bytes) -> None:
        self.out += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Owner:
    """Collects requests; answers at once if told to."""

    def __init__(self, *, answer: bool = True, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.requests: list[Request] = []
        self.refusals: list[Refusal] = []
        self.answer = answer

    def opened(self, connection: ClientConnection) -> None: ...

    def closed(self, connection: ClientConnection) -> None: ...

    def refused(self, connection: ClientConnection, refusal: Refusal) -> None:
        self.refusals.append(refusal)

    def asked(self, connection: ClientConnection, request: Request) -> None:
        self.requests.append(request)
        if self.answer:
            connection.reply(200, b"{}")


class Stand:
    """A connection with its surroundings."""

    def __init__(self, **owner: Any) -> None:
        self.loop, self.transport, self.owner = Loop(), Transport(), Owner(**owner)
        self.connection = ClientConnection(self.owner, self.loop)  # type: ignore[arg-type]
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def feed(self, *parts: bytes) -> Stand:
        for part in parts:
            if not self.transport.closed:
                self.connection.data_received(part)
        return self

    @property
    def statuses(self) -> list[int]:
        return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.transport.out)]


def test_a_request_is_handed_on_when_it_is_whole() -> None:
    stand = Stand().feed(POST, b"Content-Length: 4\r\n", b"\r\n", b"{", b"  ")
    assert stand.owner.requests == []
    stand.feed(b"}")
    (request,) = stand.owner.requests
    assert (request.method, request.path, request.body) == ("POST", "/v1/chat/completions", b"{  }")


def test_a_pipeline_is_answered_in_order_one_at_a_time() -> None:
    stand = Stand(answer=False).feed(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(3)))
    for n in range(3):
        assert [r.path for r in stand.owner.requests] == [f"/{m}" for m in range(n + 1)]
        stand.connection.reply(200, b"%d" % n)
    assert stand.statuses == [200, 200, 200]
    assert not stand.transport.closed


def test_what_comes_while_one_is_answered_waits_and_is_bounded() -> None:
    stand = Stand(answer=False).feed(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
    stand.feed(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert len(stand.owner.requests) == 1
    for _ in range(10):
        stand.feed(b"G" * 65536)
    assert stand.transport.paused
    stand.connection.reply(200, b"")
    assert [r.path for r in stand.owner.requests] == ["/1", "/2"]
    assert not stand.transport.paused


REFUSED = {
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "two equal lengths": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "length and chunks": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
    "unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "two codings": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "coding twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
    "signed length": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "hexadecimal length": (POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
    "spaced name": (POST + b"Content-Length : 3\r\n\r\nabc", 400),
    "folded header": (POST + b"X-A: b\r\n c\r\n\r\n", 400),
    "bare line feed": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "nul in a header": (POST + b"X-A: a\x00b\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "two keys": (POST + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400),
    "version 2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "version 0.9": (b"GET /\r\n\r\n", 505),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "strange method": (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "compressed": (POST + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", 415),
    "declared too large": (POST + b"Content-Length: 999999999999\r\n\r\n", 413),
    "length beyond 64 bits": (POST + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
    "long path": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "many headers": (POST + b"X-A: b\r\n" * 200 + b"\r\n", 431),
    "large header": (POST + b"X-A: " + b"b" * 40000 + b"\r\n\r\n", 431),
    "bad chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "chunk size with sign": (POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", 400),
    "tls to a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("step", [1, 7, 1 << 20], ids=["byte-by-byte", "in-sevens", "at-once"])
def test_what_two_servers_could_read_differently_is_refused(name: str, step: int) -> None:
    data, status = REFUSED[name]
    smuggled = data + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    stand = Stand().feed(*(smuggled[i : i + step] for i in range(0, len(smuggled), step)))
    assert stand.statuses == [status]
    assert stand.transport.eof, "the connection must not be used again"
    assert stand.owner.requests == []


def test_a_body_in_chunks_is_bounded() -> None:
    stand = Stand(limits=Limits(body_bytes=1000)).feed(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(20):
        stand.feed(b"64\r\n" + b"a" * 100 + b"\r\n")
    assert stand.statuses == [413]
    assert stand.owner.requests == []


def test_an_endless_header_line_is_bounded() -> None:
    stand = Stand().feed(POST + b"X-A: ")
    for _ in range(20):
        stand.feed(b"a" * 10000)
    assert stand.statuses == [431]


def test_a_slow_client_gets_408_and_an_idle_one_is_closed() -> None:
    slow = Stand().feed(POST)
    slow.connection.check_deadline(slow.loop.now + 5)
    assert slow.statuses == []
    for _ in range(10):  # a byte now and then does not help
        slow.loop.now += 3
        slow.feed(b"X")
    slow.connection.check_deadline(slow.loop.now)
    assert slow.statuses == [408]
    idle = Stand().feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    idle.connection.check_deadline(idle.loop.now + 60)
    assert not idle.transport.closed
    idle.connection.check_deadline(idle.loop.now + 80)
    assert idle.transport.closed
    assert idle.statuses == [200]


def test_a_slow_body_gets_408_only_when_it_stalls() -> None:
    stand = Stand().feed(POST + b"Content-Length: 100\r\n\r\n")
    for _ in range(20):
        stand.loop.now += 20
        stand.feed(b"a")
        stand.connection.check_deadline(stand.loop.now + 1)
    assert stand.statuses == []
    stand.connection.check_deadline(stand.loop.now + 40)
    assert stand.statuses == [408]


def test_expect_continue_is_answered_before_the_body() -> None:
    stand = Stand().feed(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert stand.transport.out == b"HTTP/1.1 100 Continue\r\n\r\n"
    stand.feed(b"{}")
    assert stand.statuses == [100, 200]


def test_an_upgrade_is_answered_as_http_and_closed() -> None:
    stand = Stand().feed(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert stand.statuses == [200]
    assert stand.transport.closed


def test_http_1_0_gets_its_answer_without_chunks_and_a_close() -> None:
    stand = Stand(answer=False).feed(b"GET / HTTP/1.0\r\n\r\n")
    stand.connection.begin(200, b"text/event-stream", [])
    stand.connection.send(b"data: 1\n\n")
    stand.connection.end()
    assert b"chunked" not in stand.transport.out
    assert stand.transport.out.endswith(b"\r\n\r\ndata: 1\n\n")
    assert stand.transport.closed


def test_an_aborted_answer_has_no_last_chunk() -> None:
    stand = Stand(answer=False).feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    stand.connection.begin(200, b"text/event-stream", [])
    stand.connection.send(b"data: 1\n\n")
    stand.connection.abort()
    assert stand.transport.closed
    assert not stand.transport.out.endswith(b"0\r\n\r\n")


def test_head_and_first_part_are_one_write_and_so_are_last_part_and_end() -> None:
    stand = Stand(answer=False).feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    stand.connection.begin(200, b"text/event-stream", [])
    assert stand.transport.out == b""
    stand.connection.send(b"data: 1\n\n")
    assert stand.transport.out.endswith(b"\r\n\r\n9\r\ndata: 1\n\n\r\n")
    stand.connection.send(b"data: 2\n\n", last=True)
    stand.connection.end()
    assert stand.transport.out.endswith(b"\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n")
    assert stand.transport.out.count(b"0\r\n\r\n") == 1


def test_an_empty_part_does_not_end_an_answer() -> None:
    stand = Stand(answer=False).feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    stand.connection.begin(200, b"text/event-stream", [])
    stand.connection.send(b"")
    assert b"0\r\n\r\n" not in stand.transport.out


def test_an_answer_without_parts_still_has_head_and_end() -> None:
    stand = Stand(answer=False).feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    stand.connection.begin(200, b"text/event-stream", [])
    stand.connection.end()
    assert stand.transport.out.startswith(b"HTTP/1.1 200 OK\r\n")
    assert stand.transport.out.endswith(b"\r\n\r\n0\r\n\r\n")


def test_head_gets_the_head_only() -> None:
    stand = Stand().feed(b"HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n")
    assert stand.transport.out.endswith(b"Content-Length: 2\r\n\r\n")


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=8))
def test_random_bytes_never_raise_and_never_become_two_requests_with_one_body(parts: list[bytes]) -> None:
    stand = Stand().feed(*parts)
    assert len(stand.statuses) == len(stand.owner.requests) + len(stand.owner.refusals)


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_a_body_arrives_as_it_was_sent_however_it_is_cut(body: bytes, step: int) -> None:
    data = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    stand = Stand().feed(*(data[i : i + step] for i in range(0, len(data), step)))
    assert [r.body for r in stand.owner.requests] == [body]
