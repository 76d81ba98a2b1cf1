"""A connection's cached authentication is reused while headers and key ring are unchanged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from nemotron_ops.gateway.api.routes import Scope
from nemotron_ops.gateway.client.connection import ClientConnection
from nemotron_ops.gateway.keys.ring import Key, KeyRing, hash_key, key_text
from nemotron_ops.gateway.options import Options
from nemotron_ops.gateway.server import Gateway
from nemotron_ops.supervisor.snapshot import ModelView, Snapshot
from tests.fakes.transport import Transport

TEXT = {name: key_text(name, "secret") for name in ("a", "b")}
KEYS = {name: Key(id=name, sha256=hash_key(text)) for name, text in TEXT.items()}


class Door:
    """A gateway with keys, and one connection to it."""

    def __init__(self, *keys: Key, allowed_host: tuple[str, ...] = ()) -> None:
        options = Options(control="/nonexistent", access_log="", allowed_host=allowed_host)
        self.gateway = Gateway(options, ring=ring(*keys) if keys else None)
        self.gateway.pool.apply(Snapshot(models=(ModelView(name="m", names=("m",)),)))
        self.transport = Transport()
        self.client = ClientConnection(self.gateway, asyncio.get_running_loop())
        self.client.connection_made(self.transport)  # type: ignore[arg-type]  # as much of one as is needed

    def ask(self, key: str = "", *, path: str = "/v1/models", host: str = "localhost", origin: str = "") -> int:
        """The status of the answer to a GET."""
        self.transport.out = b""
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}"]
        lines += [f"Authorization: Bearer {key}"] if key else []
        lines += [f"Origin: {origin}"] if origin else []
        self.client.data_received("\r\n".join([*lines, "", ""]).encode())
        return int(self.transport.out.split()[1])


def ring(*keys: Key) -> KeyRing:
    return KeyRing(keys={key.id: key for key in keys})


def at(door: Callable[[], Door], story: Callable[[Door], None]) -> None:
    async def played() -> None:
        story(door())

    asyncio.run(played())


def test_only_what_was_let_in_is_let_in_again() -> None:
    def story(door: Door) -> None:
        assert [door.ask(TEXT["a"]) for _ in range(3)] == [200, 200, 200]
        assert door.ask(TEXT["b"]) == 401
        assert door.ask(TEXT["a"] + "x") == 401
        assert door.ask() == 401
        assert door.ask(TEXT["a"]) == 200
        assert door.ask(TEXT["a"], origin="http://elsewhere") == 403
        assert door.ask(TEXT["a"], path="/metrics") == 403, "a scope that it lacks"

    at(lambda: Door(KEYS["a"]), story)


def test_a_key_that_is_gone_is_not_let_in_again() -> None:
    def story(door: Door) -> None:
        assert door.ask(TEXT["a"]) == 200
        door.gateway.watch.ring = ring(replace(KEYS["a"], revoked_at=1.0), KEYS["b"])
        assert door.ask(TEXT["a"]) == 401

    at(lambda: Door(KEYS["a"], KEYS["b"]), story)


def test_a_key_that_expires_is_looked_at_each_time() -> None:
    def story(door: Door) -> None:
        assert door.ask(TEXT["a"]) == 200
        while time.time() < soon.expires_at:
            time.sleep(0.01)
        assert door.ask(TEXT["a"]) == 401

    soon = replace(KEYS["a"], expires_at=time.time() + 2.0, scopes=(Scope.INFERENCE,))
    at(lambda: Door(soon), story)


def test_where_there_are_keys_now_they_are_asked_for_also_of_who_was_here_before() -> None:
    def story(door: Door) -> None:
        assert door.ask() == 200
        door.gateway.watch.ring = ring(KEYS["a"])
        assert door.ask() == 401

    at(Door, story)


def test_another_host_is_not_let_in_because_one_was() -> None:
    def story(door: Door) -> None:
        assert door.ask(host="localhost:8000") == 200
        assert door.ask(host="rebound.example") == 403
        assert door.ask(host="localhost:8000") == 200

    at(Door, story)
