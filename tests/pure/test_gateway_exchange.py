"""One request in the middle of its gateway, without sockets: a client's bytes are fed in, an engine is played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from nemotron_ops.gateway.http import ClientConnection
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.replies import Refusal
from nemotron_ops.gateway.server import Gateway
from nemotron_ops.gateway.upstream import Upstream, UpstreamConnection
from nemotron_ops.supervisor.snapshot import InstanceView, ModelView, Snapshot, State

BODY = b'{"model":"m","messages":[],"max_tokens":1}'
ASK = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Transport:
    """One end of a connection: tells what was written."""

    def __init__(self, on_write: Callable[[bytes], None]) -> None:
        self.on_write = on_write
        self.out = b""
        self.closed = False

    def get_extra_info(self, name: str) -> None:
        return None

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.out += data
        self.on_write(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


class Scene:
    """A gateway with one ready instance and one client."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard: list[bytes] = []  # by the engine
        monkeypatch.setattr(Upstream, "connect", self._connect)
        self.gateway = Gateway(Options(control="/nonexistent", access_log=""), ring=None)
        view = InstanceView(
            name="m-0", model="m", state=State.READY, socket="/nonexistent", api_key_file="", slots=2, pid=1
        )
        self.gateway.pool.apply(
            Snapshot(models=(ModelView(name="m", names=("m",), queue_length=5),), instances=(view,))
        )
        self.transport = Transport(lambda data: None)
        self.client = ClientConnection(self.gateway, asyncio.get_running_loop())
        self.client.connection_made(self.transport)  # type: ignore[arg-type]  # as much of one as is needed

    async def _connect(self, *_: Any) -> UpstreamConnection:
        connection = UpstreamConnection(self.gateway.pool.upstreams["m-0"])
        connection.connection_made(Transport(self.heard.append))  # type: ignore[arg-type]
        return connection

    @property
    def causes(self) -> list[str]:
        return [line.cause for line, _, _ in self.gateway.books._ended]


def test_a_client_that_leaves_before_its_request_has_begun_costs_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        scene = Scene(monkeypatch)
        scene.client.data_received(ASK)
        assert len(scene.gateway.running) == 1
        scene.client.connection_lost(None)
        await asyncio.sleep(0.01)
        assert scene.heard == []
        assert (scene.gateway.running, scene.causes) == (set(), ["client_gone"])

    asyncio.run(play())


def test_a_request_that_is_cut_before_it_has_begun_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        scene = Scene(monkeypatch)
        scene.client.data_received(ASK)
        for exchange in scene.gateway.running:
            exchange.cut = Refusal(status=401, code="key_revoked", message="this API key has been revoked")
            exchange.stop()
        await asyncio.sleep(0.01)
        assert scene.heard == []
        assert scene.transport.out.startswith(b"HTTP/1.1 401 ")
        assert (scene.gateway.running, scene.causes) == (set(), ["key_revoked"])

    asyncio.run(play())


def test_a_client_that_leaves_while_an_engine_works_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        scene = Scene(monkeypatch)
        scene.client.data_received(ASK)
        await asyncio.sleep(0.01)
        (upstream,) = scene.gateway.pool.upstreams["m-0"].open
        assert len(scene.heard) == 1
        scene.client.connection_lost(None)
        await asyncio.sleep(0.01)
        assert upstream.closed
        assert (scene.gateway.running, scene.causes) == (set(), ["client_gone"])
        assert scene.gateway.pool.inflight() == {}

    asyncio.run(play())
