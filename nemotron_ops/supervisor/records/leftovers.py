"""Stops the processes that a dead supervisor left behind, without a new supervisor. Disk, /proc, signals."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from nemotron_ops.paths import Layout
from nemotron_ops.processes import process
from nemotron_ops.supervisor.records import adopt, lock, record
from nemotron_ops.supervisor.records.record import Record

WAITS_S = (5.0, 2.0)  # after SIGTERM, after the second one; then SIGKILL
KILLED_S = 5.0  # until the kernel has freed their memory
POLL_S = 0.05
GATEWAY = "gateway"


def stop_leftovers(layout: Layout, *, waits_s: Sequence[float] = WAITS_S) -> list[str]:
    """Stop every recorded process that is still ours; returns their ids.

    Raises ControlError if a supervisor is running: then the processes are not left over.
    """
    held = lock.take(layout)
    try:
        found = [*_gateway(layout), *adopt.find(layout).alive]
        _stop(found, waits_s)
        for old in found:
            adopt.clean(layout, old)
        record.companion_path(layout, GATEWAY).unlink(missing_ok=True)
        layout.control_socket.unlink(missing_ok=True)
    finally:
        os.close(held)
    return [old.id for old in found]


def _gateway(layout: Layout) -> list[Record]:
    found = record.read_companion(layout, GATEWAY)
    return [found] if found and process.same(found.pid, found.started) else []


def _stop(found: Sequence[Record], waits_s: Sequence[float]) -> None:
    for wait_s in waits_s:
        for old in found:
            process.send(old.pid, old.started, signal.SIGTERM)
        _wait(found, wait_s)
    for old in found:
        process.send(old.pid, old.started, signal.SIGKILL, group=True)
    _wait(found, KILLED_S)


def _wait(found: Sequence[Record], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and any(process.same(o.pid, o.started) for o in found):
        time.sleep(POLL_S)
