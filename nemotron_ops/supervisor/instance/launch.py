"""Starts one llama-server, and removes what an ended one leaves behind. Disk, subprocess, signals."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from nemotron_ops.engine.env import child_env
from nemotron_ops.paths import Layout
from nemotron_ops.processes import logfiles, process
from nemotron_ops.supervisor.instance.shrink import shrunk
from nemotron_ops.supervisor.records import record
from nemotron_ops.supervisor.records.lock import make_private
from nemotron_ops.supervisor.records.record import Record
from nemotron_ops.supervisor.spec import InstanceSpec


def log_path(layout: Layout, instance_id: str) -> Path:
    return layout.logs / f"{instance_id}.log"


def slots_dir(layout: Layout, spec: InstanceSpec) -> Path:
    return layout.state / "slots" / spec.name


def prepare(layout: Layout, instance_id: str, spec: InstanceSpec, *, halvings: int) -> Record:
    """The record of a process that is not started yet: its socket, key file and place in the log."""
    launch = secrets.token_hex(8)
    short = f"{instance_id[:20]}-{launch[:8]}"
    log = log_path(layout, instance_id)
    layout.logs.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # a full disk: the log goes on in its file
        logfiles.rotate_between(log)
    return Record(
        id=instance_id, launch=launch, socket=str(layout.runtime / f"{short}.sock"),
        key_file=str(layout.runtime / f"{short}.key"), log=str(log),
        log_offset=log.stat().st_size if log.exists() else 0, wall_s=time.time(), spec=spec,
        extra={"shrunk": halvings},
    )  # fmt: skip


def start(layout: Layout, new: Record, env: Mapping[str, str], *, halvings: int) -> Record:
    """Records, starts, records again; returns `new` with pid and start time. Raises OSError.

    No await in here: no other event can come between these steps.
    """
    assert new.spec
    home, slots = layout.state / "home", slots_dir(layout, new.spec)
    for folder in (home, slots):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    make_private(layout)
    Path(new.socket).unlink(missing_ok=True)  # llama-server never removes its socket and cannot bind over one
    _write_key(Path(new.key_file))
    record.write(layout, new)
    places = {"{socket}": new.socket, "{api_key_file}": new.key_file, "{slots_dir}": str(slots)}
    argv = [places.get(word, word) for word in shrunk(new.spec.argv, halvings)]
    child = child_env(env, home=home, extra={**new.spec.env, record.LAUNCH_VARIABLE: new.launch})
    pid = process.spawn(argv, env=child, log=Path(new.log))
    process.prefer_for_oom(pid)
    started = replace(new, pid=pid, started=process.started(pid) or "")
    record.write(layout, started)
    return started


def send(to: Record, sig: signal.Signals) -> None:
    """Signal the recorded process; SIGKILL goes to its whole group."""
    process.send(to.pid, to.started, sig, group=sig is signal.SIGKILL)


def clean(layout: Layout, ended: Record) -> None:
    """Remove what an ended process leaves behind: grandchildren, socket, key, record."""
    if ended.pid:
        send(ended, signal.SIGKILL)
    for name in (ended.socket, ended.key_file):
        with suppress(OSError):
            Path(name).unlink(missing_ok=True)
    record.remove(layout, ended.id)


def _write_key(path: Path) -> None:
    """A new key for one process, mode 0600."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(secrets.token_urlsafe(24) + "\n")
