"""One request inside its gateway, without sockets: a client's bytes are fed in, the engine is simulated."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from nemotron_ops.gateway.api.errors import Refusal
from nemotron_ops.gateway.client.connection import ClientConnection
from nemotron_ops.gateway.exchange.exchange import Exchange
from nemotron_ops.gateway.exchange.keepalive import send_comments
from nemotron_ops.gateway.loop import outbox
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.server import Gateway
from nemotron_ops.gateway.upstream.connection import Upstream, UpstreamConnection
from nemotron_ops.supervisor.snapshot import InstanceView, ModelView, Snapshot, State
from tests.fakes.transport import Transport

BODY = b'{"model":"m","messages":[],"max_tokens":1}'
ASK = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Scene:
    """A gateway with one ready instance, and a client that has just asked it something."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.transport, self.engine = Transport(), Transport()  # the ends of the client and of the engine
        monkeypatch.setattr(Upstream, "connect", self._connect)
        self.gateway = Gateway(Options(control="/nonexistent", access_log=""), ring=None)
        view = InstanceView(
            name="m-0", model="m", state=State.READY, socket="/nonexistent", api_key_file="", slots=2, pid=1
        )
        model = ModelView(name="m", names=("m",), queue_length=5)
        self.gateway.pool.apply(Snapshot(models=(model,), instances=(view,)))
        self.client = ClientConnection(self.gateway, asyncio.get_running_loop())
        self.client.connection_made(self.transport)  # type: ignore[arg-type]  # as much of one as is needed
        self.client.data_received(ASK)
        (self.exchange,) = self.gateway.running

    async def _connect(self, *_: Any) -> UpstreamConnection:
        connection = UpstreamConnection(self.gateway.pool.upstreams["m-0"])
        connection.connection_made(self.engine)  # type: ignore[arg-type]
        return connection

    async def ends(self, cause: str) -> None:
        """The request is over, because of `cause`, and nothing is left of it."""
        await asyncio.sleep(0.01)
        assert [finished.line.cause for finished in self.gateway.accounting._finished] == [cause]
        assert self.gateway.running == set()
        assert self.gateway.pool.inflight() == {}


def play(monkeypatch: pytest.MonkeyPatch, story: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    async def played() -> None:
        await story(Scene(monkeypatch))

    asyncio.run(played())


def among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done for a request is done in turns with that of others."""
    monkeypatch.setattr(outbox, "LONELY", 0)


@pytest.fixture(params=["alone", "among many"])
def company(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether other requests run."""
    if request.param == "among many":
        among_many(monkeypatch)


def test_a_client_that_leaves_before_its_request_has_begun_costs_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    among_many(monkeypatch)

    async def story(scene: Scene) -> None:
        scene.client.connection_lost(None)
        await scene.ends("client_gone")
        assert scene.engine.out == b""

    play(monkeypatch, story)


def test_a_request_that_is_cut_before_it_has_begun_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    among_many(monkeypatch)

    async def story(scene: Scene) -> None:
        scene.exchange.cut = Refusal(status=401, code="key_revoked", message="this API key has been revoked")
        scene.exchange.stop()
        await scene.ends("key_revoked")
        assert scene.engine.out == b""
        assert scene.transport.out.startswith(b"HTTP/1.1 401 ")

    play(monkeypatch, story)


@pytest.mark.usefixtures("company")
def test_a_client_that_leaves_while_an_engine_works_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scene: Scene) -> None:
        await asyncio.sleep(0.01)
        assert scene.engine.out.endswith(BODY)
        assert not scene.engine.closed
        scene.client.connection_lost(None)
        await scene.ends("client_gone")
        assert scene.engine.closed

    play(monkeypatch, story)


@pytest.mark.usefixtures("company")
def test_a_bug_in_the_way_a_request_ends_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    content = " ".join(["a", "word", "of", "it"])

    def broken(self: Exchange) -> None:
        raise ValueError(content)

    async def story(scene: Scene) -> None:
        monkeypatch.setattr(Exchange, "_estimate_usage", broken)
        scene.client.connection_lost(None)
        await scene.ends("client_gone")

    play(monkeypatch, story)
    said = capfd.readouterr().err
    assert "bug in the gateway" in said
    assert "ValueError" in said
    assert content not in said


STREAM = BODY[:-1] + b',"stream":true}'
EVENT = b'data: {"model":"m","choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
ANSWERS = {
    "whole": (BODY, HEAD % (b"application/json", 12, b'{"model":""}')),
    "stream": (STREAM, HEAD % (b"text/event-stream", len(EVENT), EVENT)),
}


@pytest.mark.usefixtures("company")
@pytest.mark.parametrize("how", ANSWERS)
def test_a_request_that_is_over_leaves_no_garbage(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    body, answer = ANSWERS[how]
    ask = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def story(scene: Scene) -> None:
        scene.client.connection_lost(None)
        await scene.ends("client_gone")
        del scene.exchange
        client = ClientConnection(scene.gateway, asyncio.get_running_loop())
        client.connection_made(scene.transport)  # type: ignore[arg-type]
        scene.gateway.accounting.settle()
        gc.collect()
        client.data_received(ask)
        await asyncio.sleep(0.01)
        (connection,) = (c for c in scene.gateway.pool.upstreams["m-0"].open if c.sink is not None)
        connection._take(answer)
        await asyncio.sleep(0.01)
        assert b" 200 OK" in scene.transport.out
        scene.gateway.accounting.settle()
        assert [o for o in gc.get_objects() if isinstance(o, Exchange)] == []

    gc.disable()
    try:
        play(monkeypatch, story)
    finally:
        gc.enable()


class Hashed(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]


def test_a_client_that_cannot_be_written_to_does_not_keep_comments_from_the_others(
    capfd: pytest.CaptureFixture[str],
) -> None:
    sent: list[bytes] = []

    def stream(send: Callable[[bytes], None]) -> Any:
        client = SimpleNamespace(answer=SimpleNamespace(began=True, send=send))
        relay = SimpleNamespace(complete=False, failed=False, last_at=0.0, outlet=client.answer)
        return Hashed(relay=relay, client=client, healing=None, conversion=None)

    def fail(_: bytes) -> None:
        sent.append(b"broken")
        raise OSError

    streams = (stream(fail), stream(sent.append))
    shared: Any = SimpleNamespace(waiting_since=dict.fromkeys(streams, 0.0), options=Options(keep_alive_s=10.0))
    send_comments(shared, 8.9)
    assert sent == []
    send_comments(shared, 9.0)
    assert sent == [b"broken", b":\n\n"]
    assert "OSError" in capfd.readouterr().err
    send_comments(shared, 17.9)
    assert len(sent) == 2
