"""Clients that read nothing, send too much, or come in too great a number: what the gateway does about them."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nemotron_ops.gateway.__main__ import detect_dead_clients
from nemotron_ops.gateway.client.connection import PACE_S
from tests.fakes.calls import BODY, CHAT, bearer, call, make, rss_mib, served
from tests.fakes.scripted_engine import (
    STREAM_HEAD,
    Heard,
    ScriptedEngine,
    chunk,
    events,
    hangs_after,
    read_request,
    well,
)
from tests.stages.gateway import open_request

pytestmark = pytest.mark.process
Eventually = Callable[..., None]


# clients that read slowly, or not


def test_a_slow_reader_of_a_large_answer_holds_up_nobody_else(tmp_path: Path, eventually: Eventually) -> None:
    """Its connection to the engine carries other requests when it has its answer."""
    large, small = b'{"data":"' + b"x" * 20_000_000 + b'"}', b'{"data":"small"}'
    answered = threading.Event()

    def play(s: socket.socket, request: Heard) -> None:
        heard: Heard | None = request
        while heard is not None:
            answer = large if heard.json.get("input") == "large" else small
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer))
            s.sendall(answer)
            answered.set()
            heard = read_request(s)

    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=play, slots=4)
    asked = {"model": "m", "input": "large"}
    with served(tmp_path, engine) as stage, open_request(stage, "/v1/embeddings", asked) as slow:
        assert answered.wait(30)
        eventually(lambda: stage.control.inflight == {})
        for _ in range(3):
            assert call(stage, "POST", "/v1/embeddings", {"model": "m", "input": "x"})[2] == small
        assert slow.rest() == large


def test_a_client_that_reads_nothing_loses_its_slot(tmp_path: Path, eventually: Eventually) -> None:
    def play(s: socket.socket, request: Heard) -> None:
        if b"endless" not in request.body:
            well(s, request)
            return
        s.sendall(STREAM_HEAD)
        while True:
            s.sendall(chunk(events("chat")[1] * 200))

    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=play, slots=1)
    with served(tmp_path, engine, "--write-stall-s", "1") as stage:
        endless = {**BODY, "stream": True, "messages": [{"role": "user", "content": "endless"}]}
        with open_request(stage, CHAT, endless) as answer:
            answer.until(b"data: ")
            assert call(stage, "POST", CHAT, BODY)[0] == 200, "the slot is free again"
        eventually(lambda: engine.left == 1)


def test_a_client_that_sends_much_ahead_and_leaves_is_noticed(tmp_path: Path, eventually: Eventually) -> None:
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=hangs_after(0))
    with served(tmp_path, engine) as stage:
        with open_request(stage, CHAT, BODY) as answer:
            eventually(lambda: stage.control.inflight == {"m-0": 1})
            answer.socket.sendall(b"x" * 400_000)
        eventually(lambda: stage.control.inflight == {})
        eventually(lambda: engine.left == 1)


def test_what_is_accepted_notices_a_client_that_vanished() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        detect_dead_clients(server, 60.0)
        with socket.create_connection(server.getsockname()) as client:
            accepted, _ = server.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert not client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


# clients that send much


def test_uploads_without_a_key_fill_no_memory(tmp_path: Path) -> None:
    make(tmp_path / "keys.json", "alice")
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=well)
    with served(tmp_path, engine, "--api-keys-file", str(tmp_path / "keys.json")) as stage:
        assert call(stage, "POST", CHAT, BODY)[0] == 401
        before = rss_mib(stage)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000000\r\n\r\n".encode()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(stage.address, timeout=30)) for _ in range(6)]
            for s in clients:
                s.sendall(head)
                with contextlib.suppress(ConnectionError):
                    for _ in range(20):
                        s.sendall(b"x" * 1_000_000)
                with contextlib.suppress(ConnectionError):
                    assert s.recv(65536).startswith(b"HTTP/1.1 401 ")
            assert rss_mib(stage) < before + 20


def test_large_bodies_that_come_at_once_share_a_bound(tmp_path: Path) -> None:
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=well)
    with served(tmp_path, engine, "--max-receiving-mib", "1") as stage:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n".encode()
        with socket.create_connection(stage.address, timeout=30) as s:
            s.sendall(head + b"x" * 2_000_000)
            answer = s.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"receiving_full" in answer
        assert b"Retry-After" in answer
        assert call(stage, "POST", CHAT, {**BODY, "user": "x" * 900_000})[0] == 200


def test_a_refusal_before_the_body_has_the_apis_shape_and_a_line_in_the_log(
    tmp_path: Path, eventually: Eventually
) -> None:
    make(tmp_path / "keys.json", "alice")
    log = tmp_path / "access.log"
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=well)
    flags = ("--api-keys-file", str(tmp_path / "keys.json"), "--access-log", str(log))
    with served(tmp_path, engine, *flags, "--allowed-origin", "https://app.example") as stage:
        head = "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example\r\n"
        expect = "Expect: 100-continue\r\nContent-Length: 90000000\r\n\r\n"
        status, answer = stage.raw((head + expect).encode())
        assert status == 401
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "error"
        assert b"Access-Control-Allow-Origin: https://app.example" in answer
        assert stage.raw(b"nonsense\r\n\r\n")[0] == 400
        eventually(lambda: log.exists() and log.read_text().count("\n") == 2)
        refused, raw = (json.loads(line) for line in log.read_text().splitlines())
    assert (refused["path"], refused["status"], refused["cause"]) == ("/v1/messages", 401, "invalid_api_key")
    assert (raw["path"], raw["status"], raw["cause"]) == ("", 400, "bad_request")


def test_a_connection_too_many_gets_503(tmp_path: Path, eventually: Eventually) -> None:
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=well)
    with served(tmp_path, engine, "--max-connections", "2") as stage, contextlib.ExitStack() as stack:
        for _ in range(2):
            s = stack.enter_context(socket.create_connection(stage.address, timeout=30))
            s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert s.recv(65536).startswith(b"HTTP/1.1 200 ")
        status, answer = stage.raw(b"")
        assert status == 503
        assert b"too_many_connections" in answer
        stack.close()
        eventually(lambda: call(stage, "GET", "/health")[0] == 200)


def test_slow_bodies_make_room_for_others(tmp_path: Path) -> None:
    """Takes the five seconds after which a body counts as slow."""
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=well)
    with served(tmp_path, engine, "--max-receiving-mib", "1") as stage, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(stage.address, timeout=30)) for _ in range(2)]
        for s in slow:
            s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n")
            s.sendall(b"a" * 500_000)
        time.sleep(PACE_S + 0.5)
        body = json.dumps({**BODY, "user": "u" * 300_000}).encode()
        with socket.create_connection(stage.address, timeout=30) as s:
            s.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            s.sendall(body)
            assert s.recv(65536).startswith(b"HTTP/1.1 200 ")
        ended, _, _ = select.select(slow, [], [], 10)
        assert ended
        assert all(b"receiving_full" in s.recv(65536) for s in ended)


def test_a_key_that_holds_most_of_the_room_makes_room_for_another(tmp_path: Path) -> None:
    """Also where its bodies come fast."""
    keys = tmp_path / "keys.json"
    greedy, other = (bearer(make(keys, name))["Authorization"] for name in ("greedy", "other"))
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=well)
    flags = ("--api-keys-file", str(keys), "--max-receiving-mib", "1")
    with served(tmp_path, engine, *flags) as stage, contextlib.ExitStack() as stack:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nContent-Length: {}\r\n\r\n"
        )
        held = [stack.enter_context(socket.create_connection(stage.address, timeout=30)) for _ in range(2)]
        for s in held:
            s.sendall(head.format(greedy, 900_000).encode())
            s.sendall(b"a" * 500_000)
        time.sleep(0.3)
        body = json.dumps({**BODY, "user": "u" * 300_000}).encode()
        with socket.create_connection(stage.address, timeout=30) as s:
            s.sendall(head.format(other, len(body)).encode())
            s.sendall(body)
            assert s.recv(65536).startswith(b"HTTP/1.1 200 ")
        ended, _, _ = select.select(held, [], [], 10)
        assert len(ended) == 1
        assert b"receiving_full" in ended[0].recv(65536)


def test_a_key_at_its_limit_is_told_before_its_body_is_received(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    limited = bearer(make(keys, "limited", requests_per_minute=1))
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=well)
    with served(tmp_path, engine, "--api-keys-file", str(keys)) as stage:
        assert call(stage, "POST", CHAT, BODY, **limited)[0] == 200
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {limited['Authorization']}\r\n"
        status, answer = stage.raw(f"{head}Expect: 100-continue\r\nContent-Length: 90000000\r\n\r\n".encode())
        assert status == 429
        assert b"requests_per_minute" in answer
        assert b"100 Continue" not in answer
