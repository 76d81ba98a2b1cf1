"""A process that runs while its socket is used: started by a connection, let go, started again, stopped."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from nemotron_ops.paths import user_layout
from nemotron_ops.supervisor.journal import Journal
from nemotron_ops.supervisor.on_demand import OnDemand, OnDemandSpec, socket_path

pytestmark = pytest.mark.process
# Answers one connection with its pid, then ends: idle at once.
ANSWERS = """
import os, socket, sys
s = socket.socket(fileno=int(sys.argv[sys.argv.index("--listen-fd") + 1]))
s.setblocking(True)
c, _ = s.accept()
c.sendall(str(os.getpid()).encode())
"""
DIES = "raise SystemExit(3)"
STAYS = "import time; time.sleep(600)"


def made(folder: Path, code: str) -> tuple[OnDemand, Journal]:
    layout = user_layout({"NEMOTRON_OPS_HOME": str(folder)}, uid=os.getuid())
    journal = Journal(layout.logs / "events.jsonl")
    spec = OnDemandSpec(id="agent", argv=(sys.executable, "-c", code))
    one = OnDemand(spec, layout=layout, env=os.environ, journal=journal)
    one.open()
    return one, journal


async def asked(one: OnDemand) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(socket_path(one.layout, "agent")))
    try:
        return await reader.read()
    finally:
        writer.close()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


async def ended(task: asyncio.Task[bytes]) -> None:
    task.cancel()
    await asyncio.wait((task,))
    await asyncio.sleep(0)  # for its transport to close


def count(journal: Journal, kind: str) -> int:
    return [e.kind for e in journal.last(100)].count(kind)


def run(one: OnDemand, scenario: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(one.run())
            await scenario()
            await one.stop()

    asyncio.run(whole())


def test_a_connection_starts_it_and_the_next_one_starts_it_again(tmp_path: Path) -> None:
    one, journal = made(tmp_path, ANSWERS)

    async def scenario() -> None:
        assert count(journal, "agent-started") == 0
        first = await asked(one)
        assert first.isdigit()
        second = await asked(one)
        assert second.isdigit()
        assert first != second
        assert count(journal, "agent-died") == 0

    run(one, scenario)


def test_only_the_user_can_reach_the_socket(tmp_path: Path) -> None:
    one, _ = made(tmp_path, ANSWERS)
    path = socket_path(one.layout, "agent")
    assert path.stat().st_mode & 0o777 == 0o600

    async def scenario() -> None: ...

    run(one, scenario)
    assert not path.exists()


def test_one_that_dies_is_started_again_later_and_said(tmp_path: Path) -> None:
    one, journal = made(tmp_path, DIES)

    async def scenario() -> None:
        task = asyncio.create_task(asked(one))
        await until(lambda: count(journal, "agent-died") >= 2)
        await ended(task)

    run(one, scenario)


def test_a_stop_ends_a_running_one(tmp_path: Path) -> None:
    one, journal = made(tmp_path, STAYS)
    pids: list[int] = []

    async def scenario() -> None:
        task = asyncio.create_task(asked(one))
        await until(lambda: count(journal, "agent-started"))
        pids.append(int(journal.last(1)[0].message.removeprefix("pid ")))
        await ended(task)

    run(one, scenario)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
