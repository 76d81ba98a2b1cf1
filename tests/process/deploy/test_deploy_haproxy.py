"""A real HAProxy with our configuration, in front of small servers that fail on demand."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nemotron_ops.deploy.balancer import haproxy
from nemotron_ops.deploy.balancer.config import Balancer, Server, parse_stat, render, waiting
from nemotron_ops.errors import DeployError
from nemotron_ops.progress import silent
from tests.fakes.ports import free_port
from tests.fakes.programs import need

pytestmark = pytest.mark.process
Eventually = Callable[..., None]


@dataclass(kw_only=True)
class Upstream:
    """A stand-in for one host's gateway."""

    name: str
    ready: bool = True
    dies: bool = False  # closes the connection instead of answering
    gate: threading.Event = field(default_factory=threading.Event)  # responses wait for it
    asked: int = 0
    running: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        upstream = self
        upstream.gate.set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status = 200 if upstream.ready or self.path != "/health" else 503
                self.answer(status, {"host": upstream.name})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                if upstream.dies:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                with upstream.lock:
                    upstream.asked += 1
                    upstream.running += 1
                    upstream.most = max(upstream.most, upstream.running)
                upstream.gate.wait(30)
                with upstream.lock:
                    upstream.running -= 1
                self.answer(200, {"host": upstream.name})

            def answer(self, status: int, value: Any) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def handle(self) -> None:
                with suppress(ConnectionError):  # HAProxy closes connections that it no longer needs
                    super().handle()

            def log_message(self, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def address(self) -> str:
        assert self.server
        return f"127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        assert self.server
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


@dataclass(kw_only=True)
class Door:
    """A running HAProxy."""

    port: int
    runtime: Path
    upstreams: dict[str, Upstream]
    pid: int

    def ask_quietly(self, text: str, **more: Any) -> str:
        """`ask`, once no request is running."""
        self.quiet()
        return self.ask(text, **more)

    def quiet(self) -> None:
        """Wait until HAProxy has finished every earlier request, so that load does not decide the choice of host."""
        deadline = time.monotonic() + 30
        while self.held():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def held(self) -> int:
        """Requests in HAProxy, at hosts or queued."""
        answer = haproxy.ask(self.runtime, "show stat")
        return sum(s.running for s in parse_stat(answer)) + waiting(answer)

    def ask(self, text: str, *, headers: dict[str, str] | None = None, fields: dict[str, Any] | None = None) -> str:
        """The host that answers a conversation that begins with `text`."""
        status, answer = self.post({"messages": [{"role": "user", "content": text}], **(fields or {})}, headers or {})
        assert status == 200, answer
        return str(json.loads(answer)["host"])

    def post(self, value: Any, headers: dict[str, str]) -> tuple[int, str]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as c:
            c.request(
                "POST", "/v1/chat/completions", json.dumps(value), {"Content-Type": "application/json", **headers}
            )
            response = c.getresponse()
            return response.status, response.read().decode()

    def is_open(self) -> bool:
        """Whether HAProxy answers: its sockets exist earlier, and not all at once."""
        with suppress(DeployError):
            return haproxy.states(self.runtime) != ()
        return False

    def state(self, name: str) -> str:
        return {s.name: s.status for s in haproxy.states(self.runtime)}[name]


@pytest.fixture
def started(tmp_path: Path, eventually: Eventually) -> Iterator[Callable[..., Door]]:
    """Starts HAProxy in front of three upstreams."""
    need("haproxy")
    children: list[subprocess.Popen[bytes]] = []
    upstreams = {name: Upstream(name=name) for name in ("a", "b", "c")}

    def start(*more: Server, **shape: Any) -> Door:
        for upstream in upstreams.values():
            upstream.start()
        servers = (*(Server(name=u.name, address=u.address) for u in upstreams.values()), *more)
        port, runtime = free_port(), tmp_path / "admin.sock"
        shaped = Balancer(
            servers=servers, bind=f"127.0.0.1:{port}", socket=str(runtime), **{"check_ms": 100, "stats": "", **shape}
        )
        config = tmp_path / "haproxy.cfg"
        config.write_text(render(shaped))
        haproxy.check(config)
        log = (tmp_path / "log").open("wb")
        children.append(subprocess.Popen(["haproxy", "-db", "-f", config], stdout=log, stderr=log))
        log.close()
        door = Door(port=port, runtime=runtime, upstreams=upstreams, pid=children[-1].pid)
        eventually(door.is_open)
        return door

    yield start
    for child in children:
        child.kill()
        child.wait()
    for upstream in upstreams.values():
        if upstream.server:
            upstream.close()


@pytest.fixture
def door(started: Callable[..., Door]) -> Door:
    return started()


def test_a_conversation_stays_on_one_host_and_conversations_spread(door: Door) -> None:
    homes = {text: {door.ask_quietly(text) for _ in range(3)} for text in map(str, range(24))}
    assert all(len(hosts) == 1 for hosts in homes.values())
    assert set.union(*homes.values()) == {"a", "b", "c"}


def test_a_longer_turn_of_the_same_conversation_goes_where_it_is_warm(door: Door) -> None:
    first = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    longer = [*first, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "and now?"}]
    homes = set()
    for i, messages in enumerate([first, longer]):
        door.quiet()
        homes.add(json.loads(door.post({"messages": messages, "max_tokens": i}, {})[1])["host"])
    assert len(homes) == 1


def test_a_session_header_and_a_cache_key_count_more_than_the_words(door: Door) -> None:
    assert len({door.ask_quietly(f"q{i}", headers={"X-Session-Id": "s1"}) for i in range(8)}) == 1
    assert len({door.ask_quietly(f"q{i}", fields={"prompt_cache_key": "k1"}) for i in range(8)}) == 1


def test_a_body_that_is_no_chat_is_routed_by_its_beginning(door: Door) -> None:
    assert len({door.ask_quietly("", fields={"messages": [], "prompt": "once upon a time"}) for _ in range(4)}) == 1


def test_a_host_that_is_not_ready_gets_nothing_until_it_is(door: Door, eventually: Eventually) -> None:
    door.upstreams["b"].ready = False
    eventually(lambda: door.state("b") == "DOWN")
    before = door.upstreams["b"].asked
    assert {door.ask(f"q{i}") for i in range(24)} == {"a", "c"}
    assert door.upstreams["b"].asked == before
    door.upstreams["b"].ready = True
    eventually(lambda: door.state("b") == "UP")
    assert {door.ask(f"q{i}") for i in range(24)} == {"a", "b", "c"}


def test_a_host_that_dies_before_its_answer_begins_costs_no_request(door: Door) -> None:
    door.upstreams["a"].dies = True
    assert {door.ask(f"q{i}") for i in range(24)} == {"b", "c"}


def test_a_host_that_is_gone_costs_no_request_before_its_check_notices_even_if_only_one_is_left(
    started: Callable[..., Door],
) -> None:
    """With few hosts left, bounded load could send a refused request to the same host again."""
    door = started(check_ms=60_000, slots=1)
    door.upstreams["a"].close()
    haproxy.take_out(door.runtime, "b", report=silent)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(door.ask, (f"q{i}" for i in range(80)))) == {"c"}


def one_by_one(door: Door, pool: ThreadPoolExecutor, eventually: Eventually, texts: Iterable[str]) -> list[Future[str]]:
    """Ask once HAProxy has the previous request: two of its threads could pick the same free host at once."""
    answers: list[Future[str]] = []
    for text in texts:
        answers.append(pool.submit(door.ask, text))
        eventually(lambda: door.held() == len(answers))
    return answers


def test_a_host_takes_as_many_requests_as_it_has_slots_and_the_rest_waits(
    started: Callable[..., Door], eventually: Eventually
) -> None:
    door = started(slots=2)
    for upstream in door.upstreams.values():
        upstream.gate.clear()
    with ThreadPoolExecutor(12) as pool:
        answers = one_by_one(door, pool, eventually, (f"q{i}" for i in range(12)))
        eventually(lambda: sum(u.running for u in door.upstreams.values()) == 6)
        eventually(lambda: waiting(haproxy.ask(door.runtime, "show stat")) == 6)
        for upstream in door.upstreams.values():
            upstream.gate.set()
        assert len([a.result() for a in answers]) == 12
    assert max(u.most for u in door.upstreams.values()) == 2


def test_one_busy_conversation_does_not_bury_its_host(started: Callable[..., Door], eventually: Eventually) -> None:
    """Without bounded load, equal prompts would all go to one host."""
    door = started(slots=8)
    for upstream in door.upstreams.values():
        upstream.gate.clear()
    with ThreadPoolExecutor(12) as pool:
        answers = one_by_one(door, pool, eventually, ["the same question"] * 12)
        eventually(lambda: sum(u.running for u in door.upstreams.values()) == 12)
        for upstream in door.upstreams.values():
            upstream.gate.set()
        hosts = [a.result() for a in answers]
    assert len(set(hosts)) > 1
    assert max(hosts.count(h) for h in set(hosts)) <= 5


def test_a_client_that_leaves_before_its_answer_frees_its_slot(door: Door, eventually: Eventually) -> None:
    for upstream in door.upstreams.values():
        upstream.gate.clear()
    with socket.create_connection(("127.0.0.1", door.port)) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}")
        eventually(lambda: sum(u.running for u in door.upstreams.values()) == 1)
    eventually(lambda: sum(s.running for s in haproxy.states(door.runtime)) == 0)
    assert sum(u.running for u in door.upstreams.values()) == 1  # the host still works on an abandoned request


def test_draining_lets_requests_end_and_sends_no_new_ones(door: Door, eventually: Eventually) -> None:
    home = door.ask_quietly("q")
    door.upstreams[home].gate.clear()
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(door.ask_quietly, "q")
        eventually(lambda: door.upstreams[home].running == 1)
        drained = pool.submit(haproxy.take_out, door.runtime, home, report=silent)
        eventually(lambda: "DRAIN" in door.state(home))
        assert door.ask("q") != home
        assert not drained.done()
        door.upstreams[home].gate.set()
        drained.result(30)
        assert running.result(30) == home
    haproxy.put_back(door.runtime, home)
    eventually(lambda: door.state(home) == "UP")
    assert door.ask_quietly("q") == home


def test_tls_is_ended_at_the_door(started: Callable[..., Door], tmp_path: Path) -> None:
    pem = tmp_path / "door.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key", "-out", pem],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(cafile=str(pem))
    pem.write_text(pem.read_text() + (tmp_path / "key").read_text())
    door = started(certificate=str(pem))
    c = http.client.HTTPSConnection("localhost", door.port, timeout=30, context=context)
    c.request("GET", "/v1/models")
    assert c.getresponse().status == 200
    c.close()


def test_a_host_whose_name_nobody_knows_stops_nobody_else(started: Callable[..., Door], eventually: Eventually) -> None:
    door = started(Server(name="d", address="nosuch.invalid:8001"), Server(name="e", address="localhost:1"))
    assert "MAINT" in door.state("d")
    eventually(lambda: door.state("e") == "DOWN")  # a name that resolves, to a host without a server
    assert {door.ask(f"q{i}") for i in range(24)} == {"a", "b", "c"}


def test_statistics_are_for_people_and_for_prometheus(started: Callable[..., Door]) -> None:
    port = free_port()
    door = started(stats=f"127.0.0.1:{port}")
    door.ask("q")

    def get(path: str) -> str:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as c:
            c.request("GET", path)
            response = c.getresponse()
            assert response.status == 200
            return response.read().decode()

    assert "Statistics Report" in get("/")
    assert 'haproxy_server_status{proxy="models",server="a",state="UP"} 1' in get("/metrics")


def test_as_a_service_it_gives_up_root_and_can_still_be_told_to_drain(started: Callable[..., Door]) -> None:
    if os.geteuid():
        pytest.skip("only root has something to give up")
    door = started(user=haproxy.USER, chroot=haproxy.CHROOT)
    assert door.ask("q") in door.upstreams
    assert Path(f"/proc/{door.pid}").stat().st_uid == pwd.getpwnam("haproxy").pw_uid
    assert Path(f"/proc/{door.pid}/root").readlink() == Path(haproxy.CHROOT)
    haproxy.take_out(door.runtime, "a", report=silent)
    assert "DRAIN" in door.state("a")


def test_a_configuration_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text("global\n    # hand-made\n")
    with pytest.raises(DeployError, match="is not ours"):
        haproxy.install("x", config=config)
    assert "hand-made" in config.read_text()


def test_haproxys_own_words_explain_a_wrong_configuration(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text("defaults\n    mode nonsense\n")
    with pytest.raises(DeployError, match="haproxy refuses it") as caught:
        haproxy.check(config)
    assert any("nonsense" in line for line in caught.value.log_tail)
