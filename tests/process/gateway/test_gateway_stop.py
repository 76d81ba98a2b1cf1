"""The gateway's end: what it has accepted is answered, what it has not is left to its successor."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nemotron_ops.supervisor.snapshot import ModelView
from tests.fakes.scripted_engine import ScriptedEngine, first_then, hangs_after, pauses_after, well
from tests.stages.gateway import Stage, gateway, open_request

pytestmark = pytest.mark.process
CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Say it"}]}
MODEL = ModelView(name="m", names=("m",), queue_wait_s=60.0)
WHOLE = b'{"model": "m", "messages": [{"role": "user", "content": "Say it"}]}'
HEAD = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
Eventually = Callable[..., None]


@contextmanager
def connected(stage: Stage) -> Iterator[socket.socket]:
    with socket.create_connection(stage.address, timeout=60) as s:
        yield s


def announce(s: socket.socket) -> None:
    """Send the head of a request, and wait until the gateway has read it."""
    s.sendall(HEAD % (CHAT.encode(), len(WHOLE)))
    assert s.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"


def answer_in(s: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of all that comes until the other side closes."""
    data = b""
    while part := s.recv(65536):
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def closed(stage: Stage) -> bool:
    """Whether the gateway accepts no more. (Nobody else holds the socket here, so the kernel refuses.)"""
    try:
        socket.create_connection(stage.address, timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


def test_requests_that_are_half_sent_when_it_ends_are_answered_on_new_and_on_kept_connections(
    tmp_path: Path, eventually: Eventually
) -> None:
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=well).start()
    with gateway(tmp_path) as stage, connected(stage) as fresh, connected(stage) as kept:
        stage.control.show(models=(MODEL,), instances=(engine.view(),))
        stage.settle()
        kept.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in kept.recv(65536)
        announce(fresh)
        announce(kept)
        stage.process.terminate()
        eventually(lambda: closed(stage))
        for s in (kept, fresh):
            s.sendall(WHOLE)
            head, body = answer_in(s)
            assert head.startswith(b"HTTP/1.1 200 OK")
            assert b"connection: close" in head.lower()
            assert b"The answer is four." in body
        assert stage.process.wait(60) == 0
    engine.stop()


def test_requests_that_wait_for_a_slot_when_it_ends_get_their_turn(tmp_path: Path, eventually: Eventually) -> None:
    go_on = threading.Event()
    play = first_then(pauses_after(3, go_on), well)
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=play, slots=1).start()
    with gateway(tmp_path) as stage:
        stage.control.show(models=(MODEL,), instances=(engine.view(),))
        stage.settle()
        with open_request(stage, CHAT, {**BODY, "stream": True}) as first:
            first.until(b" answer")
            with open_request(stage, CHAT, BODY) as second:
                eventually(lambda: waiting(stage) == 1)
                stage.process.terminate()
                eventually(lambda: closed(stage))
                go_on.set()
                assert first.rest().endswith(b"data: [DONE]\n\n")
                assert b"The answer is four." in second.rest()
                assert second.status == 200
        assert stage.process.wait(60) == 0
    engine.stop()


def test_what_outlasts_the_drain_ends_as_an_error_and_what_has_not_begun_as_503(
    tmp_path: Path, eventually: Eventually
) -> None:
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=hangs_after(3), slots=1).start()
    with gateway(tmp_path, "--drain-s", "0.2") as stage:
        stage.control.show(models=(MODEL,), instances=(engine.view(),))
        stage.settle()
        with open_request(stage, CHAT, {**BODY, "stream": True}) as first:
            first.until(b" answer")
            with open_request(stage, CHAT, BODY) as second:
                eventually(lambda: waiting(stage) == 1)
                assert stage.stop() == 0
                raw = first.rest()
                second.rest()
    assert first.broken
    assert b'"code":"stopping"' in raw.replace(b" ", b"")
    assert b"[DONE]" not in raw
    assert second.status == 503
    assert "retry-after: 5" in second.head.lower()
    engine.stop()


def test_an_idle_connection_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    with gateway(tmp_path, "--drain-s", "3600") as stage, connected(stage) as fresh, connected(stage) as kept:
        kept.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1" in kept.recv(65536)
        assert stage.stop() == 0
        assert (kept.recv(1), fresh.recv(1)) == (b"", b"")


def waiting(stage: Stage) -> float:
    """How many requests wait for a slot."""
    return stage.gauge('nemotron_ops_queue_length{model="m"}')
