"""Fixtures of the real ring: a private installation with the shared build, and `serve tiny`. Processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes import ports
from tests.stages.installation import Installation, Served, installation_in, is_alive


@pytest.fixture
def installation(tmp_path: Path, llama_bin: Path) -> Installation:
    return installation_in(tmp_path / "home", llama_bin)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """The function that finds a port for a server (see tests/fakes/ports.py)."""
    return ports.free_port


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, llama_bin: Path, free_port: Callable[[], int]) -> Iterator[Served]:
    """`serve tiny --detach` for one module; at its end it is stopped, and no process may be left."""
    installation = installation_in(tmp_path_factory.mktemp("served") / "home", llama_bin)
    port = free_port()
    installation.run("serve", "tiny", "--detach", "--port", str(port))
    status = installation.json("status")
    yield Served(installation=installation, port=port)
    installation.run("stop")
    pids = [status["pid"], *(i["pid"] for i in status["instances"])]
    deadline = time.monotonic() + 30
    while alive := [p for p in pids if is_alive(p)]:
        assert time.monotonic() < deadline, f"still running after stop: {alive}"
        time.sleep(0.05)
