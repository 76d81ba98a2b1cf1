"""Stops the processes that a dead supervisor left behind, without a new supervisor. Disk, /proc, signals."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress

from nemotron_ops.paths import Layout
from nemotron_ops.processes import process
from nemotron_ops.supervisor.records import adopt, lock, record, strays
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
        engines = adopt.find(layout)
        found = [*_gateways(layout), *engines.alive, *engines.strays]
        _stop(found, waits_s)
        for old in found:
            adopt.clean(layout, old)
        record.remove_companion(layout, GATEWAY)
        with suppress(OSError):
            layout.control_socket.unlink(missing_ok=True)
    finally:
        os.close(held)
    return [old.id for old in found]


def _gateways(layout: Layout) -> list[Record]:
    """The recorded gateway, found by its launch where its record has no pid yet, and any other that listens."""
    pids = strays.launched()
    found = {g.pid: g for g in strays.companions(layout, pids)}
    recorded = record.read_companion(layout, GATEWAY)
    if recorded and (living := adopt.identify(recorded, pids)):
        found[living.pid] = living
    return list(found.values())


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
