"""A companion with rules of its own: it is restarted, given up loudly, started again by hand, and stopped."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nemotron_ops.paths import user_layout
from nemotron_ops.policy import Health, Restart
from nemotron_ops.processes.sockets import Address
from nemotron_ops.supervisor.companion import Companion, CompanionSpec
from nemotron_ops.supervisor.instance.state import Event, Rules
from nemotron_ops.supervisor.journal import Journal
from nemotron_ops.supervisor.snapshot import State

pytestmark = pytest.mark.process
RULES = Rules(
    restart=Restart(max_restarts=2, window_s=60, backoff_initial_s=0.01, backoff_max_s=0.02),
    health=Health(drain_s=0.2, stop_s=0.2),
    cut_s=0.0,
    second_term_s=0.0,
)
SERVES = "import time; time.sleep(600)"
IGNORES_TERM = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print('on', flush=True); time.sleep(600)"
DIES = "import sys; sys.exit('page: no index.html')"


def companion(folder: Path, code: str) -> tuple[Companion, Journal]:
    layout = user_layout({"NEMOTRON_OPS_HOME": str(folder)}, uid=os.getuid())
    journal = Journal(layout.logs / "events.jsonl")
    spec = CompanionSpec(
        id="page", argv=(sys.executable, "-c", code), at=Address(host="127.0.0.1", port=0), rules=RULES
    )
    made = Companion(spec, layout=layout, env=os.environ, journal=journal, beat_s=0.2)
    made.open(None)
    return made, journal


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


def kinds(journal: Journal) -> list[str]:
    return [e.kind for e in journal.last(100)]


def test_a_companion_that_keeps_dying_fails_loudly_until_someone_acts(tmp_path: Path) -> None:
    async def scenario() -> None:
        page, journal = companion(tmp_path, DIES)
        async with asyncio.TaskGroup() as group:
            group.create_task(page.run())
            await until(lambda: page.status.state is State.FAILED)
            assert kinds(journal).count("page-died") == RULES.restart.max_restarts
            last = journal.last(1)[0]
            assert (last.kind, last.level) == ("page-failed", "error")
            assert "exit code 1: page: no index.html; died 3 times within 60 s" in last.message
            page.tell(Event.START)
            await until(lambda: kinds(journal).count("page-died") > RULES.restart.max_restarts)
            await page.stop()
        assert page.status.state is State.STOPPED
        assert not (page.layout.state / "page.json").exists()

    asyncio.run(scenario())


@pytest.mark.parametrize("code", [SERVES, IGNORES_TERM])
def test_a_stopped_companion_ends_also_when_it_ignores_sigterm(tmp_path: Path, code: str) -> None:
    async def scenario() -> None:
        page, _ = companion(tmp_path, code)
        async with asyncio.TaskGroup() as group:
            group.create_task(page.run())
            await until(lambda: page.status.state is State.READY)
            if code is IGNORES_TERM:
                await until(lambda: page.log.read_text() == "on\n")
            await page.stop()
        assert (page.status.state, page.record, page.sock) == (State.STOPPED, None, None)

    asyncio.run(scenario())
