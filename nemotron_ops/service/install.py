"""Installs, restarts and removes the service on this machine. Disk, systemctl.

Every step looks first and acts only where something is missing: installing twice changes nothing, and the next
installation continues an interrupted one.
"""

from __future__ import annotations

import getpass
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from nemotron_ops.errors import ServiceError
from nemotron_ops.files import read_json, write_atomic, write_json
from nemotron_ops.proc import run_lines
from nemotron_ops.progress import Report, Step
from nemotron_ops.service import granted, systemd
from nemotron_ops.service.commands import as_owner_argv, build_words
from nemotron_ops.service.place import (
    ALL_UNITS,
    Place,
    prepare_folders,
    put_units,
    remove_folders,
    remove_user,
    socket_changed,
    units_in,
    write_units,
)
from nemotron_ops.service.spec import ENGINES, PREPARE, RESUME, SERVICE, SOCKET, Scope, ServiceSpec
from nemotron_ops.service.systemd import Manager, UnitStatus
from nemotron_ops.service.units import unit_files

INSTALL_EARLIER = (
    "this program cannot be restored, its earlier version was overwritten: install that one and run "
    "`nemotron-ops service upgrade` again, or use `deploy`, which keeps releases side by side and rolls back"
)


@dataclass(frozen=True, kw_only=True)
class Installed:
    """The outcome of an installation."""

    changed: tuple[str, ...]  # unit files written or removed
    status: UnitStatus | None


def install(
    spec: ServiceSpec,
    place: Place,
    *,
    report: Report,
    start: bool = True,
    take_over: bool = False,
    ready_s: float = 3600.0,
) -> Installed:
    """Bring units, user, folders and the running service to what `spec` says; returns once it is up.

    A running service keeps its models: a new supervisor adopts them, if a unit has changed or `take_over` is set
    (because the program has). Raises ServiceError.
    """
    manager = Manager(scope=place.scope)
    before = manager.status()
    moved = socket_changed(spec, place)
    prepare_folders(place)
    changed = write_units(spec, place)
    lingering = _enable(spec, manager, place, report)
    write_json(place.record, {"spec": asdict(spec), "linger_enabled": lingering})
    if changed:
        report(Step(what="install", note=f"units written: {', '.join(changed)}"))
    if not start:
        return Installed(changed=changed, status=None)
    if before.up and moved:
        manager.must("stop", SERVICE, SOCKET, timeout_s=180)
        before = manager.status()
    if before.up and (changed or take_over):
        return Installed(changed=changed, status=hand_over(place.scope, report=report, ready_s=ready_s))
    manager.must("start", SOCKET, ENGINES)
    if not before.up:
        manager.ctl("reset-failed", SERVICE)
        manager.must("start", "--no-block", SERVICE)
    return Installed(changed=changed, status=manager.wait_up(report=report, timeout_s=ready_s))


def withheld(spec: ServiceSpec, pid: int) -> tuple[str, ...]:
    """What the unit of the running service (`pid`) asks for and the machine did not grant, in words."""
    try:
        return granted.withheld(spec, Path(f"/proc/{pid}/limits").read_text())
    except OSError:
        return ()  # the process has just ended


def hand_over(scope: Scope, *, report: Report, ready_s: float = 3600.0) -> UnitStatus:
    """Replace the running supervisor by a new one that adopts its models; returns once that is up.

    The supervisor is killed: it is built and tested to survive that, and no shutdown work of it is needed. systemd
    starts the next one at once, with the program that `current` points to by then.
    """
    manager = Manager(scope=scope)
    now = manager.status()
    if not now.up or not now.pid:
        manager.ctl("reset-failed", SERVICE)
        manager.must("start", "--no-block", SERVICE)
        return manager.wait_up(report=report, timeout_s=ready_s)
    manager.must("kill", "--kill-who=main", "--signal=SIGKILL", SERVICE)
    return manager.wait_up(report=report, timeout_s=ready_s, after_restarts=now.restarts)


def restart(scope: Scope, *, report: Report, ready_s: float = 3600.0) -> UnitStatus:
    """Stop the service with its models, and start it again. The socket stays open meanwhile."""
    manager = Manager(scope=scope)
    manager.must("restart", "--no-block", SERVICE)
    old = manager.status().invocation
    deadline = time.monotonic() + 180
    while manager.status().invocation == old and time.monotonic() < deadline:
        time.sleep(systemd.POLL_S)
    return manager.wait_up(report=report, timeout_s=ready_s)


def stop(scope: Scope) -> None:
    """Stop the service, its engines and its socket, because a request to the socket would start the service again."""
    manager = Manager(scope=scope)
    manager.ctl("stop", SOCKET, SERVICE, ENGINES, timeout_s=300)


def upgrade(spec: ServiceSpec, place: Place, *, report: Report, ready_s: float) -> UnitStatus:
    """Bring an installed service to `spec`, and hand over to the program as it is now.

    If that does not come up, units that have changed are restored and started again. The program cannot be restored,
    because its earlier version was overwritten; the ServiceError raised then says so.
    """
    before, record = units_in(place), read_json(place.record)
    try:
        now = install(spec, place, report=report, take_over=True, ready_s=ready_s).status
    except ServiceError as exc:
        undone = ""
        if before != units_in(place):
            put_units(before, place)
            write_json(place.record, record)
            undone = _restart_with_old_units(place.scope, report=report, ready_s=ready_s)
        raise ServiceError(exc.message, log_tail=exc.log_tail, hint=undone + INSTALL_EARLIER) from exc
    assert now
    return now


def _restart_with_old_units(scope: Scope, *, report: Report, ready_s: float) -> str:
    """Start with the restored units; the outcome, in words."""
    try:
        hand_over(scope, report=report, ready_s=ready_s)
    except ServiceError:
        return "the earlier units are restored, but do not come up with this program either; "
    return "the earlier units are restored and serve; "


def build(spec: ServiceSpec, place: Place, *, report: Report) -> None:
    """Build llama.cpp for the service, as its user. Raises ServiceError."""
    prepare_folders(place)
    report(Step(what="build", note="building llama.cpp for the service"))
    argv = as_owner_argv(spec, *build_words(spec))
    done = run_lines(argv, on_line=lambda line: report(Step(what="build", note=line)))
    if not done.ok:
        raise ServiceError(
            f"cannot build llama.cpp for the service: exit code {done.returncode}",
            hint=f"as the service's user: {' '.join(argv)}",
            log_tail=tuple(done.stdout.splitlines()[-15:]),
        )


def prepare(spec: ServiceSpec, place: Place, *, report: Report) -> None:
    """Run the prepare unit, which fetches models as the service's user, to its end. Raises ServiceError."""
    prepare_folders(place)
    manager = Manager(scope=place.scope)
    # only this unit: `install` must still find the others changed
    write_atomic(place.units / PREPARE, unit_files(spec)[PREPARE])
    manager.must("daemon-reload")
    report(Step(what="prepare", note="fetching models"))
    done = manager.ctl("start", PREPARE, timeout_s=None)
    if not done.ok:
        tail = manager.journal(unit=PREPARE, lines=25)
        raise ServiceError("cannot fetch the service's models: the prepare unit failed", log_tail=tail)


def uninstall(place: Place, *, purge: bool) -> tuple[str, ...]:
    """Remove the service; returns the names of what was removed. Models and builds stay unless `purge`."""
    manager = Manager(scope=place.scope)
    record = read_json(place.record) or {}
    present = [u for u in ALL_UNITS if (place.units / u).exists()]
    if present:
        stop(place.scope)
        manager.ctl("disable", *present)
    removed = [str(place.units / u) for u in present]
    for unit in present:
        (place.units / unit).unlink()
    if present:
        manager.must("daemon-reload")
        manager.ctl("reset-failed", *present)
    removed += remove_folders(place, purge=purge)
    if place.scope is Scope.SYSTEM:
        removed += remove_user(purge=purge)
    elif record.get("linger_enabled"):
        systemd.linger(getpass.getuser(), on=False)
    return tuple(removed)


def _enable(spec: ServiceSpec, manager: Manager, place: Place, report: Report) -> bool:
    """Enable the service at boot; returns whether this program enabled lingering for the user."""
    ours = bool((read_json(place.record) or {}).get("linger_enabled"))
    if place.scope is Scope.USER and not systemd.lingers(getpass.getuser()):
        done = systemd.linger(getpass.getuser(), on=True)
        if not done.ok:
            remedy = f"an administrator can change that: loginctl enable-linger {getpass.getuser()}"
            report(Step(what="install", note=f"the service will end when you log out; {remedy}"))
        ours = done.ok
    resume = [RESUME] if RESUME in unit_files(spec) else []
    manager.must("enable", SOCKET, SERVICE, *resume)
    return ours
