"""The control socket: half an answer, acknowledgements of gateways, and a socket whose file was removed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from nemotron_ops.errors import ControlError
from nemotron_ops.gateway.queue.snapshots import Follower
from nemotron_ops.paths import Layout, user_layout
from nemotron_ops.supervisor.control import client as control
from nemotron_ops.supervisor.control.server import ControlServer
from nemotron_ops.supervisor.snapshot import InstanceView, Snapshot, State

pytestmark = pytest.mark.process


@contextmanager
def dying(folder: Path, last_words: bytes) -> Iterator[Layout]:
    """A supervisor that says no more than `last_words`."""
    layout = user_layout({"NEMOTRON_OPS_HOME": str(folder)}, uid=os.getuid())
    layout.runtime.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(layout.control_socket))
        door.listen()

        def answer() -> None:
            client, _ = door.accept()
            with client:
                client.recv(1000)
                client.sendall(last_words)

        thread = Thread(target=answer)
        thread.start()
        yield layout
        thread.join(10)


@pytest.mark.parametrize("last_words", [b"", b'{"events": [{"kind": "rea', b'{"events": []}'])
def test_half_an_answer_is_none(tmp_path: Path, last_words: bytes) -> None:
    with (
        dying(tmp_path, last_words) as layout,
        pytest.raises(ControlError, match="cannot events: the supervisor ended before it answered"),
    ):
        control.request(layout, "events")


def test_a_whole_line_is_an_answer(tmp_path: Path) -> None:
    with dying(tmp_path, b'{"events": []}\n') as layout:
        assert control.request(layout, "events") == {"events": []}


# ---- gateways acknowledge


def picture(serial: int, state: State) -> Snapshot:
    one = InstanceView(name="a-0", model="a", state=state, socket="", api_key_file="")
    return Snapshot(serial=serial, instances=(one,))


async def read_until(reader: asyncio.StreamReader, serial: int) -> None:
    while json.loads(await reader.readline())["snapshot"]["serial"] < serial:
        pass


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


def test_a_drain_is_acknowledged_once_every_gateway_has_seen_it(tmp_path: Path) -> None:
    layout = user_layout({"NEMOTRON_OPS_HOME": str(tmp_path)}, uid=os.getuid())

    async def play() -> None:
        server = ControlServer(layout, changed=lambda: None)
        await server.start({})
        server.publish(picture(1, State.READY))
        gateways = [Follower(str(layout.control_socket), lambda snapshot: None, lambda: {"a-0": 0}) for _ in range(2)]
        tasks = [asyncio.create_task(g.run()) for g in gateways]
        await until(lambda: server.inflight("a-0") == 0 and server.following == 2)
        assert not server.acknowledged("a-0"), "it is ready"
        server.publish(picture(2, State.STOPPING))
        assert not server.acknowledged("a-0"), "told, not yet heard"
        await until(lambda: server.acknowledged("a-0"))
        server.publish(picture(3, State.READY))
        assert not server.acknowledged("a-0")
        reader, writer = await asyncio.open_unix_connection(str(layout.control_socket))
        writer.write(b'{"verb": "follow"}\n{"inflight": {}}\n')  # a gateway of an earlier version
        server.publish(picture(4, State.STOPPING))
        await read_until(reader, 4)
        assert not server.acknowledged("a-0"), "one gateway has not said that it has seen it"
        writer.close()
        await until(lambda: server.acknowledged("a-0"))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.close(unlink=True)

    asyncio.run(play())


def test_a_control_socket_that_was_removed_comes_back_and_open_connections_stay(tmp_path: Path) -> None:
    layout = user_layout({"NEMOTRON_OPS_HOME": str(tmp_path)}, uid=os.getuid())

    async def play() -> None:
        server = ControlServer(layout, changed=lambda: None)
        await server.start({})
        reader, writer = await asyncio.open_unix_connection(str(layout.control_socket))
        writer.write(b'{"verb": "follow"}\n')
        await until(lambda: server.following == 1)
        assert not await server.restore(), "nothing is wrong"
        shutil.rmtree(layout.runtime)
        assert await server.restore()
        assert stat.S_IMODE(layout.runtime.stat().st_mode) == 0o700
        server.publish(picture(7, State.READY))
        await read_until(reader, 7)
        again, other = await asyncio.open_unix_connection(str(layout.control_socket))
        other.write(b'{"verb": "follow"}\n')
        await read_until(again, 7)
        for w in (writer, other):
            w.close()
        await server.close(unlink=True)

    asyncio.run(play())
