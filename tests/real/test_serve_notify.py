"""`serve` under a service manager: what it tells it, and when."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.installation import Installation, interrupt

pytestmark = pytest.mark.real


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end of $NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(60)
        yield sock


def told_until(manager: socket.socket, word: str) -> list[str]:
    """All that is told until a message that contains `word`, which is the last."""
    told: list[str] = []
    while not told or word not in told[-1]:
        told.append(manager.recv(4096).decode())
    return told


def test_a_service_is_ready_when_its_models_are_and_says_when_it_reloads_and_stops(
    installation: Installation, manager: socket.socket, free_port: Callable[[], int]
) -> None:
    env = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "30000000"}
    with installation.with_env(env).started("serve", "tiny", "--port", str(free_port())) as served:
        starting = told_until(manager, "READY=1")
        assert any("STATUS=0 of 1 ready" in message for message in starting)
        assert "STATUS=1 of 1 ready" in starting[-1]
        assert installation.json("status")["ready"]
        told_until(manager, "WATCHDOG=1")
        installation.run("reload")
        assert "MONOTONIC_USEC=" in told_until(manager, "RELOADING=1")[-1]
        told_until(manager, "READY=1")
        assert interrupt(served) == 0
        told_until(manager, "STOPPING=1")
