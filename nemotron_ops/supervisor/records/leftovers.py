"""Stopping what a dead supervisor left behind, without starting a new one. Disk, /proc, signals."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.files import read_json
from nemotron_ops.paths import Layout
from nemotron_ops.processes import process
from nemotron_ops.supervisor.companion import record_path
from nemotron_ops.supervisor.records import adopt, lock, record
from nemotron_ops.supervisor.records.record import Record

WAITS_S = (5.0, 2.0)  # after SIGTERM, after the second one; then SIGKILL
KILLED_S = 5.0  # for the kernel to take back what they held
POLL_S = 0.05


def stop_leftovers(layout: Layout) -> list[str]:
    """Stop every process that is recorded and still ours; returns their ids.

    Raises ControlError if a supervisor is running after all: then they are not left over.
    """
    held = lock.take(layout)
    try:
        found = [*_gateway(layout), *adopt.find(layout).alive]
        _stop(found)
        for old in found:
            adopt.clean(layout, old)
        record_path(layout).unlink(missing_ok=True)
        layout.control_socket.unlink(missing_ok=True)
    finally:
        os.close(held)
    return [old.id for old in found]


def _gateway(layout: Layout) -> list[Record]:
    try:
        value = read_json(record_path(layout))
        found = record.from_json(value) if value else None
    except (NemotronOpsError, KeyError, TypeError, ValueError):
        return []
    return [found] if found and process.same(found.pid, found.started) else []


def _stop(found: Sequence[Record]) -> None:
    for wait_s in WAITS_S:
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
