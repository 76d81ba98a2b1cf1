"""The edge of the gateway: what a client's bytes turn into, and what is refused. No socket: bytes are fed in."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.client.connection import ClientConnection
from nemotron_ops.gateway.client.heads import Request
from nemotron_ops.gateway.client.phase import AT_DEADLINE, FOLLOWS, AtDeadline, Phase
from nemotron_ops.gateway.client.reader import Limits, RequestReader
from nemotron_ops.gateway.loop.outbox import FEW, Outbox
from tests.fakes.transport import Loop, Transport

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


class Owner:
    """Collects requests; answers at once if told to. Wants no body where the path is /closed."""

    def __init__(self, *, answer: bool = True, limits: Limits | None = None, room: int = 1 << 30) -> None:
        self.limits = limits or Limits()
        self.outbox = Outbox(Loop())  # type: ignore[arg-type]
        self.requests: list[Request] = []
        self.refusals: list[Refusal] = []
        self.heads: list[Request | None] = []  # of what was refused
        self.answer = answer
        self.room = room

    def opened(self, connection: ClientConnection) -> None: ...

    def closed(self, connection: ClientConnection) -> None: ...

    def welcome(self, connection: ClientConnection, request: Request) -> int:
        if request.path == "/closed":
            raise Refusal(status=401, code="invalid_api_key", message="no")
        return 10 if request.path == "/small" else self.limits.body_bytes

    def receiving(self, connection: ClientConnection, more: int) -> bool:
        del connection
        self.room -= more
        return self.room >= 0

    def refused(self, connection: ClientConnection, request: Request | None, refusal: Refusal) -> None:
        self.refusals.append(refusal)
        self.heads.append(request)
        connection.reply(refusal.status, b"{}")

    def asked(self, connection: ClientConnection, request: Request) -> None:
        self.requests.append(request)
        if self.answer:
            connection.reply(200, b"{}")


class Watched(ClientConnection):
    """A connection whose phases may only follow each other as the table says."""

    __slots__ = ("_phase",)

    @property
    def phase(self) -> Phase:
        return self._phase

    @phase.setter
    def phase(self, phase: Phase) -> None:
        before = getattr(self, "_phase", phase)
        assert phase is before or phase in FOLLOWS[before], f"{before} -> {phase}"
        self._phase = phase


class Stand:
    """A connection with its surroundings."""

    def __init__(self, **owner: Any) -> None:
        self.loop, self.transport, self.owner = Loop(), Transport(), Owner(**owner)
        self.connection = Watched(self.owner, self.loop)  # type: ignore[arg-type]
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
    stand.connection.reply(200, b"")
    assert [r.path for r in stand.owner.requests] == ["/1", "/2"]
    stand.feed(b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
    stand.feed(POST + b"Content-Length: 1000000\r\n\r\n")
    for _ in range(10):
        stand.feed(b"a" * 65536)
    assert not stand.transport.paused, "who does not read does not see the client leave"
    stand.connection.reply(200, b"")
    stand.connection.reply(200, b"")
    assert [r.path for r in stand.owner.requests] == ["/1", "/2", "/3"]
    assert stand.statuses == [200, 200, 200, 400]
    assert stand.owner.refusals[0].code == "sent_ahead"
    assert stand.transport.eof


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
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 400),
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


@pytest.mark.parametrize("line", [b"1;", b"0\r\nX: "], ids=["an extension of a chunk", "a trailer"])
def test_an_endless_line_after_the_head_is_bounded(line: bytes) -> None:
    stand = Stand().feed(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + line)
    for _ in range(20):
        stand.feed(b"a" * 10000)
    assert stand.statuses == [431]
    assert stand.owner.requests == []


def test_a_body_in_the_smallest_chunks_is_no_endless_line() -> None:
    stand = Stand().feed(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(20000):
        stand.feed(b"1\r\na\r\n")
    stand.feed(b"0\r\n\r\n")
    assert [len(r.body) for r in stand.owner.requests] == [20000]


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


def test_a_body_that_stalls_gets_408() -> None:
    stand = Stand().feed(POST + b"Content-Length: 100000\r\n\r\n", b"a" * 50000)
    stand.connection.check_deadline(stand.loop.now + 29)
    assert stand.statuses == []
    stand.connection.check_deadline(stand.loop.now + 31)
    assert stand.statuses == [408]


@pytest.mark.parametrize(("part_bytes", "statuses"), [(1, [408]), (20 * 400, [408]), (20 * 600, [])])
def test_a_body_may_be_slow_but_not_a_trickle(part_bytes: int, statuses: list[int]) -> None:
    """A part every 20 seconds: at 400 bytes/s it is too slow in the end, at 600 it is not."""
    stand = Stand().feed(POST + b"Content-Length: 1000000\r\n\r\n")
    for _ in range(20):
        stand.loop.now += 20
        stand.feed(b"a" * part_bytes)
        stand.connection.check_deadline(stand.loop.now + 1)
    assert stand.statuses == statuses


def test_expect_continue_is_answered_before_the_body() -> None:
    stand = Stand().feed(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert stand.transport.out == b"HTTP/1.1 100 Continue\r\n\r\n"
    stand.feed(b"{}")
    assert stand.statuses == [100, 200]


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"  # as Java's client
OFFERED = {
    "no body": (b"GET /1 HTTP/1.1\r\nHost: a\r\n" + OFFER + b"\r\n", b""),
    "length": (POST + OFFER + b"Content-Length: 4\r\n\r\n{  }", b"{  }"),
    "chunks": (POST + OFFER + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{ \r\n2\r\n }\r\n0\r\n\r\n", b"{  }"),
}


@pytest.mark.parametrize("name", OFFERED)
@pytest.mark.parametrize("step", [1, 7, 40, 1 << 20])
def test_an_offer_to_upgrade_is_answered_as_http_with_its_body(name: str, step: int) -> None:
    data, body = OFFERED[name]
    data = data + data + b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
    stand = Stand().feed(*(data[i : i + step] for i in range(0, len(data), step)))
    assert stand.statuses == [200, 200, 200]
    assert [r.body for r in stand.owner.requests] == [body, body, b""]
    assert stand.owner.requests[-1].path == "/2"
    assert not stand.transport.closed


def test_what_stands_behind_a_body_is_no_header() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    stand = Stand().feed(head + b"Authorization: Bearer key\r\nHost: b\r\n\r\n")
    (request,) = stand.owner.requests
    assert request.body == b"abc"
    assert request.headers[b"host"] == b"a"
    assert b"authorization" not in request.headers
    endless = Stand().feed(head)
    for _ in range(50):
        endless.feed(b"X: " + b"y" * 1000 + b"\r\n")
    assert endless.statuses == [431]


# phases


def test_every_phase_has_followers_and_a_deadline_and_only_answering_has_none() -> None:
    assert FOLLOWS.keys() == AT_DEADLINE.keys() == set(Phase)
    assert [phase for phase, then in AT_DEADLINE.items() if then is AtDeadline.WAIT] == [Phase.ANSWERING]
    assert [phase for phase, followers in FOLLOWS.items() if not followers] == [Phase.CLOSING]


def test_a_connection_goes_through_all_phases() -> None:
    stand, seen = Stand(answer=False), []
    for data in (b"", POST, b"Content-Length: 2\r\n\r\n", b"{}"):
        stand.feed(*([data] if data else []))
        seen.append(stand.connection.phase)
    stand.connection.reply(200, b"")
    seen.append(stand.connection.phase)
    stand.feed(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n")
    seen.append(stand.connection.phase)
    stand.connection.connection_lost(None)
    seen.append(stand.connection.phase)
    assert [str(phase) for phase in seen] == ["idle", "head", "body", "answering", "idle", "lingering", "closing"]


# bodies that are on their way


def test_who_is_not_let_in_is_told_before_the_body() -> None:
    head = b"POST /closed HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 90000000\r\n\r\n"
    stand = Stand().feed(head)
    assert stand.statuses == [401], "and nobody said: continue"
    found = stand.owner.heads[0]
    assert found is not None
    assert found.path == "/closed"
    assert stand.transport.eof
    for _ in range(20):
        stand.feed(b"a" * 100_000)
    assert stand.statuses == [401]
    assert stand.owner.room == 1 << 30
    assert stand.connection._reader.body_bytes == 0


def test_a_path_may_bound_its_body() -> None:
    head = b"POST /small HTTP/1.1\r\nHost: a\r\n"
    assert Stand().feed(head + b"Content-Length: 11\r\n\r\n").statuses == [413]
    assert Stand().feed(head + b"Content-Length: 3\r\n\r\n", b"abc").statuses == [200]
    assert Stand().feed(head + b"Transfer-Encoding: chunked\r\n\r\n", b"b\r\nabc", b"defghijk").statuses == [413]


def test_a_request_is_not_judged_before_the_one_ahead_of_it_is_answered() -> None:
    stand = Stand(answer=False)
    stand.feed(POST + b"Content-Length: 2\r\n\r\n{", b"}POST /closed HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
    assert stand.statuses == []
    stand.connection.reply(200, b"")
    assert stand.statuses == [200, 401]


def test_all_bodies_on_their_way_share_a_bound_and_give_it_back() -> None:
    stand = Stand(room=1000).feed(POST + b"Content-Length: 5000\r\n\r\n", b"a" * 900)
    assert (stand.statuses, stand.owner.room) == ([], 100)
    stand.feed(b"a" * 900)
    assert stand.statuses == [503]
    assert stand.owner.refusals[0].retry_after_s
    assert stand.owner.room == 1000
    whole = Stand(room=1000).feed(POST + b"Content-Length: 500\r\n\r\n", b"a" * 400, b"a" * 100)
    assert (whole.statuses, whole.owner.room) == ([200], 1000)
    left = Stand(room=1000).feed(POST + b"Content-Length: 500\r\n\r\n", b"a" * 400)
    left.connection.connection_lost(None)
    assert left.owner.room == 1000


def test_a_body_in_tiny_chunks_is_kept_in_few_pieces() -> None:
    reader = RequestReader(Limits())
    reader.feed(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(200):
        reader.feed(b"1\r\na\r\n" * 1000)
    assert len(reader._body) < 10
    reader.feed(b"0\r\n\r\n")
    assert reader.requests[0].body == b"a" * 200_000
    assert type(reader.requests[0].body) is bytes


# clients that read slowly, or not


def stuck(bytes_left: int) -> Stand:
    stand = Stand(answer=False).feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    stand.connection.begin(200, b"text/event-stream", [])
    stand.connection.answer.send(b"x" * 1000)
    stand.transport.stuck = bytes_left
    stand.connection.check_deadline(stand.loop.now)
    return stand


def test_a_client_that_takes_nothing_of_its_answer_is_cut_off() -> None:
    stand = stuck(500)
    stand.connection.check_deadline(stand.loop.now + 59)
    assert not stand.transport.closed
    stand.connection.check_deadline(stand.loop.now + 61)
    assert stand.transport.closed


def test_a_client_that_takes_a_little_now_and_then_is_not() -> None:
    stand = stuck(500)
    for n in range(10):
        stand.loop.now += 50
        stand.transport.stuck = 499 - n
        stand.connection.check_deadline(stand.loop.now)
    stand.transport.stuck = 0
    stand.connection.check_deadline(stand.loop.now + 100)
    assert not stand.transport.closed


def test_an_attempt_that_begins_while_the_client_does_not_read_begins_paused() -> None:
    stand = Stand(answer=False).feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    told: list[bool] = []
    stand.connection.watch(told.append)
    stand.connection.pause_writing()
    again: list[bool] = []
    stand.connection.watch(again.append)
    stand.connection.resume_writing()
    assert (told, again) == ([True], [True, False])


def test_a_connection_too_many_hears_why() -> None:
    stand = Stand()
    stand.connection.turn_away(Refusal(status=503, code="too_many_connections", message="no"))
    assert stand.statuses == [503]
    assert stand.transport.eof


def test_http_1_0_gets_its_answer_without_chunks_and_a_close() -> None:
    stand = Stand(answer=False).feed(b"GET / HTTP/1.0\r\n\r\n")
    stand.connection.begin(200, b"text/event-stream", [])
    stand.connection.answer.send(b"data: 1\n\n")
    stand.connection.end()
    assert b"chunked" not in stand.transport.out
    assert stand.transport.out.endswith(b"\r\n\r\ndata: 1\n\n")
    assert stand.transport.closed


def test_an_aborted_answer_has_no_last_chunk() -> None:
    stand = Stand(answer=False).feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    stand.connection.begin(200, b"text/event-stream", [])
    stand.connection.answer.send(b"data: 1\n\n")
    stand.connection.abort()
    assert stand.transport.closed
    assert not stand.transport.out.endswith(b"0\r\n\r\n")


def test_head_and_first_part_are_one_write_and_so_are_last_part_and_end() -> None:
    stand = Stand(answer=False).feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    stand.connection.begin(200, b"text/event-stream", [])
    assert stand.transport.out == b""
    stand.connection.answer.send(b"data: 1\n\n")
    assert stand.transport.out.endswith(b"\r\n\r\n9\r\ndata: 1\n\n\r\n")
    stand.connection.answer.send(b"data: 2\n\n", last=True)
    stand.connection.end()
    assert stand.transport.out.endswith(b"\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n")
    assert stand.transport.out.count(b"0\r\n\r\n") == 1


class Later(Loop):
    """Callbacks when told to, as at the end of a loop's round."""

    def __init__(self) -> None:
        super().__init__()
        self.due: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        self.due.append(partial(callback, *args))

    def go_on(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


def two_in_a_round() -> tuple[Later, list[Stand]]:
    """Two clients whose first parts have come in the same round of the loop."""
    later, stands = Later(), [Stand(answer=False).feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(2)]
    outbox = Outbox(later)  # type: ignore[arg-type]
    outbox.runs(FEW + 1)
    for n, stand in enumerate(stands):
        stand.connection.answer.outbox = outbox
        stand.connection.begin(200, b"text/event-stream", [])
        stand.connection.answer.send(b"data: %d\n\n" % n)
    assert len(later.due) == 1
    return later, stands


def test_what_comes_in_one_round_is_written_together_at_its_end() -> None:
    later, stands = two_in_a_round()
    stands[0].connection.answer.send(b"data: 2\n\n")
    assert [stand.transport.out for stand in stands] == [b"", b""]
    later.go_on()
    assert stands[0].transport.out.endswith(b"9\r\ndata: 0\n\n\r\n9\r\ndata: 2\n\n\r\n")
    assert stands[1].transport.out.endswith(b"9\r\ndata: 1\n\n\r\n")
    stands[1].connection.answer.send(b"data: 3\n\n")
    later.go_on()
    assert stands[1].transport.out.endswith(b"9\r\ndata: 3\n\n\r\n")


@pytest.mark.parametrize("how", ["end", "abort"])
def test_an_end_does_not_overtake_what_waits_and_nothing_is_written_twice(how: str) -> None:
    later, stands = two_in_a_round()
    getattr(stands[0].connection, how)()
    out = stands[0].transport.out
    assert out.endswith(b"9\r\ndata: 0\n\n\r\n" + (b"0\r\n\r\n" if how == "end" else b""))
    stands[1].transport.abort()
    stands[1].connection.connection_lost(None)
    later.go_on()
    assert [stand.transport.out for stand in stands] == [out, b""]


def test_who_cannot_be_written_to_does_not_hold_up_the_others() -> None:
    later, stands = two_in_a_round()
    told: list[dict[str, Any]] = []
    later.call_exception_handler = told.append  # type: ignore[attr-defined]
    broken = OSError("broken")

    def fail(data: bytes) -> None:
        raise broken

    stands[0].transport.write = fail  # type: ignore[method-assign]
    later.go_on()
    assert stands[1].transport.out.endswith(b"9\r\ndata: 1\n\n\r\n")
    assert [context["exception"] for context in told] == [broken]


def test_an_empty_part_does_not_end_an_answer() -> None:
    stand = Stand(answer=False).feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    stand.connection.begin(200, b"text/event-stream", [])
    stand.connection.answer.send(b"")
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


BODIES = st.one_of(
    st.binary(max_size=60), st.sampled_from([b'{"model":"\xff\xfe","messages":[]}', b'{"a":"\xc3', b"\xf8"])
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A request that is well-formed as HTTP, whatever its body says, and that body."""
    body = draw(BODIES)
    offer = draw(st.sampled_from([b"", OFFER, b"Expect: 100-continue\r\n"]))
    if draw(st.booleans()):
        return POST + offer + b"Content-Length: %d\r\n\r\n" % len(body) + body, body
    cut = draw(st.integers(0, len(body)))
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:cut], body[cut:]) if part)
    trailers = draw(st.sampled_from([b"", b"X-A: b\r\n", b"Authorization: Bearer x\r\nHost: b\r\n"]))
    return POST + offer + b"Transfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n" + trailers + b"\r\n", body


@settings(deadline=None)
@given(st.lists(requests(), min_size=1, max_size=4), st.integers(1, 400))
def test_requests_with_offers_trailers_and_broken_text_arrive_whole(sent: list[tuple[bytes, bytes]], step: int) -> None:
    data = b"".join(raw for raw, _ in sent)
    stand = Stand().feed(*(data[i : i + step] for i in range(0, len(data), step)))
    assert [r.body for r in stand.owner.requests] == [body for _, body in sent]
    assert all(r.headers[b"host"] == b"localhost" and b"authorization" not in r.headers for r in stand.owner.requests)
    assert not stand.owner.refusals


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


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"http://evil/health", b"evil"),
        (b"http://user@Evil:81/health?a=b", b"Evil:81"),
        (b"http://[::1]:8001/health", b"[::1]:8001"),
        (b"/health?to=http://evil/", b"localhost"),
        (b"//evil/health", b"localhost"),
    ],
)
def test_the_authority_of_an_absolute_target_is_the_host(target: bytes, host: bytes) -> None:
    stand = Stand()
    stand.feed(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
    assert stand.owner.requests[0].headers[b"host"] == host


@pytest.mark.parametrize("space", [b" ", b"  ", b"\t", b" \t "])
def test_space_after_a_length_is_no_part_of_it(space: bytes) -> None:
    stand = Stand()
    stand.feed(POST + b"Content-Length: 2%b\r\n\r\n{}" % space)
    assert [request.body for request in stand.owner.requests] == [b"{}"]


def test_a_burst_earns_a_trickle_no_time() -> None:
    stand = Stand().feed(POST + b"Content-Length: 9000000\r\n\r\n", b"a" * 5_000_000)
    for _ in range(4):
        stand.loop.now += 20
        stand.feed(b"a")
        stand.connection.check_deadline(stand.loop.now + 1)
    stand.connection.check_deadline(stand.loop.now + 11)
    assert stand.statuses == [408]


def test_the_pace_of_a_body_is_that_of_its_last_seconds() -> None:
    stand = Stand().feed(POST + b"Content-Length: 9000000\r\n\r\n", b"a" * 1_000_000)
    assert stand.connection.pace(stand.loop.now) == 1_000_000
    assert stand.connection.pace(stand.loop.now + 5) == 0
    for _ in range(3):
        stand.loop.now += 4
        stand.feed(b"a")
    assert stand.connection.pace(stand.loop.now + 4) < 10
