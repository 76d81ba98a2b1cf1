"""`serve` under a service manager: what it tells it, and when."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from nemotron_ops.models import synthetic
from nemotron_ops.paths import user_layout
from nemotron_ops.supervisor.control import client
from tests.fakes.hub import Hub
from tests.stages.installation import Installation, interrupt

pytestmark = pytest.mark.real
REPO, FILE = "unsloth/Nemotron-3-Nano-30B-A3B-GGUF", "Nemotron-3-Nano-30B-A3B-UD-Q4_K_XL.gguf"
EXTEND = "EXTEND_TIMEOUT_USEC="


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
        for reload in (lambda: installation.run("reload"), lambda: served.send_signal(signal.SIGHUP)):
            reload()
            assert "MONOTONIC_USEC=" in told_until(manager, "RELOADING=1")[-1]
            assert not any(EXTEND in message for message in told_until(manager, "READY=1"))
        assert interrupt(served) == 0
        told_until(manager, "STOPPING=1")


def test_a_slow_load_says_how_far_it_is_and_buys_time_as_long_as_it_moves(
    installation: Installation, manager: socket.socket, free_port: Callable[[], int]
) -> None:
    hold_engines(installation)
    env = {"NOTIFY_SOCKET": manager.getsockname()}
    with installation.with_env(env).started("serve", "tiny", "--port", str(free_port())) as served:
        engine = held_engine(served)
        loading = told_until(manager, "STATUS=0 of 1 ready; loading tiny-0 ")
        assert any(EXTEND in m and "STATUS=" not in m for m in loading), loading  # no new state, but work goes on
        os.kill(engine, signal.SIGCONT)
        told_until(manager, "READY=1")
        assert interrupt(served) == 0


def test_a_reload_during_the_first_load_makes_nothing_ready(
    installation: Installation, manager: socket.socket, free_port: Callable[[], int], eventually: Callable[..., None]
) -> None:
    layout = user_layout(installation.env, uid=os.getuid())

    def reloads() -> int:
        return sum(e["kind"] == "reloaded" for e in client.request(layout, "events", count=100)["events"])

    hold_engines(installation)
    env = {"NOTIFY_SOCKET": manager.getsockname()}
    with installation.with_env(env).started("serve", "tiny", "--port", str(free_port())) as served:
        engine = held_engine(served)
        eventually(lambda: reloads() == 1)
        served.send_signal(signal.SIGHUP)
        eventually(lambda: reloads() == 2)
        manager.setblocking(False)
        before = told_so_far(manager)
        assert not any("READY=1" in message for message in before)
        assert not any("RELOADING=1" in message for message in before)
        manager.settimeout(60)
        os.kill(engine, signal.SIGCONT)
        told_until(manager, "READY=1")
        assert interrupt(served) == 0


def test_proving_the_models_after_a_power_cut_takes_the_time_it_takes(
    installation: Installation, manager: socket.socket, free_port: Callable[[], int], tmp_path: Path
) -> None:
    with Hub() as hub:
        hub.add(REPO, FILE, synthetic.ensure("moe", tmp_path))
        online = installation.with_env(hub.env)
        online.run("fetch", "30b")
    note = installation.home / "state" / "serving.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text('{"boot": "another boot"}')
    env = {"NOTIFY_SOCKET": manager.getsockname()}
    with installation.with_env(env).started("serve", "30b", "--offline", "--port", str(free_port())) as served:
        (first,) = told_until(manager, "STATUS=")
        assert first.startswith(f"STATUS=after a power cut: check {FILE}")
        assert EXTEND in first
        told_until(manager, "READY=1")
        assert interrupt(served) == 0


def hold_engines(installation: Installation) -> None:
    """From here on an engine stops itself before it loads, so that its load takes as long as a test wants."""
    builds = installation.home / "data" / "builds"
    (real,) = (p for p in builds.iterdir() if p.is_symlink())
    held = builds / "cpu-held"
    (held / "bin").mkdir(parents=True)
    for path in (real / "bin").iterdir():
        (held / "bin" / path.name).symlink_to(path.resolve())
    server = held / "bin" / "llama-server"
    server.unlink()
    stop = 'case "$*" in *--model*) kill -STOP $$ ;; esac'
    server.write_text(f'#!/bin/sh\n{stop}\nexec {real.resolve()}/bin/llama-server "$@"\n')
    server.chmod(0o755)
    manifest = json.loads((real / "manifest.json").read_text())
    (held / "manifest.json").write_text(json.dumps({**manifest, "id": held.name}))
    installation.run("builds", "use", held.name)


def held_engine(served: subprocess.Popen[str]) -> int:
    """The pid of the engine that has stopped itself."""
    supervisor, deadline = psutil.Process(served.pid), time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in supervisor.children():
            with contextlib.suppress(psutil.Error):
                if child.status() == psutil.STATUS_STOPPED:
                    return child.pid
        time.sleep(0.02)
    raise AssertionError("no engine was started")


def told_so_far(manager: socket.socket) -> list[str]:
    told: list[str] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            told.append(manager.recv(4096).decode())
    return told
