"""Many requests of all kinds, good and bad: every one is answered, and nothing is left behind. And TLS."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.supervisor.snapshot import ModelView
from tests.fakes.certificates import self_signed
from tests.fakes.scripted_engine import ScriptedEngine, dies_after, says, well
from tests.stages.gateway import Stage, gateway, open_request

pytestmark = pytest.mark.process
CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Say it"}]}
CLIENTS, ROUNDS = 6, 500
LARGE_SHARE = 0.02  # of requests are half a megabyte: as many as the others, they would be all that there is to see
KINDS = (
    "whole", "stream", "light", "leaves", "half", "half chunked", "garbage", "bad json", "bad text", "unknown",
    "upgrade", "trailer", "pipeline",
)  # fmt: skip
ALLOWED = {"leaves", "half", "chunked", "garbage", "200", "400", "404", "405", "502"}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with gateway(tmp_path) as found:
        yield found


def fds(stage: Stage) -> int:
    return len(os.listdir(f"/proc/{stage.process.pid}/fd"))


def rss_mib(stage: Stage) -> float:
    status = Path(f"/proc/{stage.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def raw_request(kind: str, dice: random.Random) -> bytes:
    """A request, or a part of one, that a client of ours would not make."""
    body = json.dumps(BODY).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n".encode()
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    match kind:
        case "leaves":
            return head + length + body
        case "half":
            return head + length + body[:9]
        case "half chunked":
            return head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"
        case "upgrade":
            return head + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n" + length + body
        case "trailer":
            start = head + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            return start + b"%x\r\n%b\r\n0\r\nHost: elsewhere\r\n\r\n" % (len(body), body)
        case "pipeline":
            return (head + length + body) * 2 + head + b"Connection: close\r\n" + length + body
        case _:
            return dice.randbytes(200)


def one(stage: Stage, dice: random.Random) -> str:
    """One request of some kind; returns what became of it."""
    kind = "large" if dice.random() < LARGE_SHARE else dice.choice(KINDS)
    if kind in ("leaves", "half", "half chunked", "garbage"):
        with socket.create_connection(stage.address, timeout=30) as s:
            s.sendall(raw_request(kind, dice))
        return kind
    if kind in ("upgrade", "trailer", "pipeline"):
        status, data = stage.raw(raw_request(kind, dice), timeout_s=60)
        assert data.count(b"HTTP/1.1 ") <= (3 if kind == "pipeline" else 1)
        return f"{kind} {status}"
    path, body = CHAT, json.dumps(BODY).encode()
    if kind == "stream":
        body = json.dumps({**BODY, "stream": True}).encode()
    elif kind == "light":
        path, body = "/tokenize", b'{"content":"x"}'
    elif kind == "bad json":
        body = b"{" + dice.randbytes(50)
    elif kind == "bad text":
        body = body.replace(b"Say it", b"Say \xff\xc3")
    elif kind == "large":
        body = json.dumps({**BODY, "messages": [{"role": "user", "content": "x" * 500_000}]}).encode()
    elif kind == "unknown":
        path = "/" + "".join(dice.choices("abc/", k=9))
    with open_request(stage, path, body, timeout_s=60) as answer:
        answer.rest()
    return f"{kind} {answer.status}"


def crowd(stage: Stage, rounds: int, seed: int) -> Counter[str]:
    """What became of the requests of CLIENTS at once."""
    found: Counter[str] = Counter()
    lock = threading.Lock()

    def client(dice: random.Random) -> None:
        for _ in range(rounds):
            what = one(stage, dice)
            with lock:
                found[what] += 1

    threads = [threading.Thread(target=client, args=(random.Random(seed + n),)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.timeout(300)
def test_thousands_of_mixed_requests_leave_nothing_behind(
    stage: Stage, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    chance = random.Random(4711)
    ways = [*[well] * 30, dies_after(0), dies_after(3), says(b"")]
    engines = [
        ScriptedEngine(name=f"m-{n}", path=tmp_path / f"{n}.sock", play=lambda s, r: chance.choice(ways)(s, r)).start()
        for n in range(2)
    ]
    stage.control.show(models=(ModelView(name="m", names=("m",)),), instances=tuple(e.view() for e in engines))
    stage.settle()
    crowd(stage, ROUNDS // 5, seed=100)  # caches and pools are full from here on
    eventually(lambda: stage.control.inflight == {})
    before = fds(stage), rss_mib(stage), stage.gauge("nemotron_ops_tasks")
    found = crowd(stage, ROUNDS, seed=0)
    assert sum(found.values()) == CLIENTS * ROUNDS
    assert {what.split()[-1] for what in found} <= ALLOWED, found
    assert all(found[f"{kind} 200"] for kind in ("whole", "stream", "light", "upgrade", "trailer", "pipeline")), found
    eventually(lambda: stage.control.inflight == {})
    eventually(lambda: fds(stage) <= before[0] + 3)  # a kept connection or two
    eventually(lambda: stage.gauge("nemotron_ops_tasks") <= before[2])
    eventually(lambda: stage.gauge("nemotron_ops_client_connections") == 1)
    assert stage.gauge('nemotron_ops_queue_length{model="m"}') == 0
    assert rss_mib(stage) < before[1] + 12, "4 KiB per request would be as much"
    for engine in engines:
        engine.stop()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_large_bodies_leave_no_memory_behind(stage: Stage, tmp_path: Path, eventually: Callable[..., None]) -> None:
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=well).start()
    stage.control.show(models=(ModelView(name="m", names=("m",)),), instances=(engine.view(),))
    stage.settle()
    before = rss_mib(stage)
    body = {**BODY, "stream": True, "messages": [{"role": "user", "content": "x" * 8_000_000}]}
    for _ in range(6):
        with open_request(stage, CHAT, body, timeout_s=60) as answer:
            assert b"[DONE]" in answer.rest()
    eventually(lambda: rss_mib(stage) < before + 40)
    engine.stop()


def test_idle_connections_are_cheap(stage: Stage) -> None:
    stage.settle()
    before = rss_mib(stage)
    connections = [socket.create_connection(stage.address, timeout=30) for _ in range(500)]
    last = connections[-1]
    last.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert last.recv(100).startswith(b"HTTP/1.1 ")
    assert rss_mib(stage) < before + 30
    for connection in connections:
        connection.close()


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize"]
)
def test_any_json_to_any_route_is_answered_in_json(stage: Stage, tmp_path: Path, path: str) -> None:
    """Values of every type in every field that the route's own description names."""
    engine = ScriptedEngine(name="m-0", path=tmp_path / "e.sock", play=says(b"")).start()
    answer = b'HTTP/1.1 400 Bad Request\r\nContent-Length: 26\r\n\r\n{"error":{"message":"no"}}'
    engine.play = says(answer)
    stage.control.show(models=(ModelView(name="m", names=("m",)),), instances=(engine.view(),))
    stage.settle()
    connection = http.client.HTTPConnection("127.0.0.1", stage.port, timeout=30)
    connection.request("GET", "/openapi.json")
    described = json.loads(connection.getresponse().read())
    schema = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fields = described["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]["properties"]
    values: tuple[Any, ...] = (None, True, -1, 1e300, "", "x", [], [[]], {}, {"type": "image_url"}, [{"content": [3]}])
    dice = random.Random(path)
    for name in fields:
        connection.request("POST", path, body=json.dumps({"model": "m", name: dice.choice(values)}))
        response = connection.getresponse()
        body = response.read()
        assert response.status in (400, 404), (name, body)
        assert "error" in json.loads(body)
    connection.close()
    engine.stop()


def test_tls_is_spoken_and_a_new_certificate_taken_over(tmp_path: Path, eventually: Callable[..., None]) -> None:
    certificate, key = tmp_path / "tls.pem", tmp_path / "key.pem"
    self_signed(certificate, key, organisation="first")

    def subject(stage: Stage) -> str:
        context = ssl.create_default_context(cafile=certificate)
        with (
            socket.create_connection(stage.address, timeout=30) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as s,
        ):
            s.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert s.recv(1000).startswith(b"HTTP/1.1 200")
            found = s.getpeercert()
            assert found is not None
            return str(found["subject"])

    def renewed(stage: Stage) -> bool:
        try:
            return "renewed" in subject(stage)
        except ssl.SSLError:
            return False

    with gateway(tmp_path, "--tls-cert", str(certificate), "--tls-key", str(key)) as stage:
        assert "first" in subject(stage)
        plain = stage.raw(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert plain == (0, b"")
        self_signed(certificate, key, organisation="renewed")
        eventually(lambda: renewed(stage))
