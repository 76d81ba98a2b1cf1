"""The end of a supervisor on a passed socket: the gateway ends first, and new clients wait in the backlog."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.stages.supervisor import QUICK_HEALTH, Stage, alive, staged

pytestmark = pytest.mark.process


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made, socket.create_server(("127.0.0.1", 0)) as listening:
        made.listening = listening
        yield made


def test_who_comes_while_it_stops_is_answered_by_the_next_one(stage: Stage) -> None:
    stage.configure(stage.fake("a-0", "--ignore-term", health=replace(QUICK_HEALTH, stop_s=1.5)))
    supervisor = stage.up()
    stage.ready("a-0")
    gateway = int(stage.connect())
    supervisor.send_signal(signal.SIGTERM)
    stage.until(lambda: stage.one("a-0")["state"] == "stopping")
    assert not alive(gateway)  # before any engine was told to stop
    with socket.create_connection(("127.0.0.1", stage.port), timeout=60) as waiting:
        waiting.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert supervisor.wait(60) == 0
        stage.up()
        successor = waiting.makefile("rb").read().decode().rpartition("\r\n")[2]
    assert successor == stage.connect() != str(gateway)


def test_a_gateway_that_does_not_end_is_not_waited_for_after_a_second_signal(stage: Stage) -> None:
    stage.settings["gateway_stop_s"] = 0.5
    stage.configure(stage.fake("a-0", health=replace(QUICK_HEALTH, drain_s=3600)))
    supervisor = stage.up()
    stage.ready("a-0")
    with socket.create_connection(("127.0.0.1", stage.port), timeout=60) as s:
        s.sendall(b"GET / HTT")  # the stand-in waits for the rest of it
        stage.connect()  # and has accepted it before this one
        supervisor.send_signal(signal.SIGTERM)
        stage.until(lambda: stage.events("gateway-draining"))
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(60) == 0
    assert stage.running() == []
