"""kill -9 of gateway, agent, sandbox and MCP server at random moments leaves no process, mount or session. About 40 s.

The moments are drawn from the time of one answer, by a seed that a failure shows.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from tests.stages.mcp_agent import NEVER, Served, mcp_agent

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.skipif(sys.platform != "linux", reason="Linux")]
CODE = {"type": "code_interpreter", "container": {"type": "auto"}}
BUSY = "import subprocess, time\nsubprocess.Popen(['sleep', '600'])\ntime.sleep(1)"
WANTED: list[tuple[str, dict[str, Any]]] = [("code_interpreter", {"code": BUSY}), ("notes__sleep", {"seconds": 1})]
LONGEST_S = 4.0  # an answer takes about this long


def mounts_of(folder: Path) -> list[str]:
    """Mounts of this machine that a sandbox of `folder` has left; others come and go with other programs."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if str(folder) in line or "/newroot" in line or "/oldroot" in line]


def tree(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def asks(served: Served) -> None:
    """One answer that runs code and an MCP tool; a part of it may be killed."""
    with contextlib.suppress(openai.OpenAIError):
        served.ask(*WANTED, tools=[CODE, NEVER])


@pytest.mark.parametrize("victim", ["gateway", "agent", "child"])
def test_a_part_that_is_killed_at_a_random_moment_leaves_nothing(
    victim: str, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    seed = random.SystemRandom().getrandbits(32)
    chance = random.Random(seed)
    with mcp_agent(tmp_path / "stage", code_ok=(0, -signal.SIGKILL)) as served:
        served.configure(allow=["sleep"], sends=[])
        asking = threading.Thread(target=asks, args=(served,))
        asking.start()
        seen: dict[int, psutil.Process] = {}
        ends_at = time.monotonic() + chance.uniform(0.2, LONGEST_S)
        while time.monotonic() < ends_at:
            seen |= {p.pid: p for p in served.children()}
            time.sleep(0.01)
        below = served.children()
        assert served.stage.process is not None
        pid = {"gateway": served.stage.process.pid, "agent": served.agent.pid}.get(victim)
        if pid is None and below:
            pid = chance.choice(below).pid
        seen |= {p.pid: p for p in below}
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        asking.join(60)
        assert not asking.is_alive(), f"seed {seed}"
        eventually(lambda: [p for p in seen.values() if runs(p)] == [] and len(tree(served.agent.pid)) <= 1)
        assert mounts_of(tmp_path) == [], f"seed {seed}"
        if victim == "child":  # the agent goes on
            assert served.ask(tools=[CODE]).status == "completed", f"seed {seed}"
