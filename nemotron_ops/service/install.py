"""Installs, restarts and removes the service on this machine. Disk, systemctl.

Every step looks first and acts only where something is missing, so that installing twice is installing once, and an
interrupted installation is continued by the next one.
"""

from __future__ import annotations

import getpass
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from nemotron_ops.errors import ServiceError
from nemotron_ops.files import read_json, write_atomic, write_json
from nemotron_ops.paths import Layout
from nemotron_ops.proc import run, run_lines
from nemotron_ops.progress import Report, Step
from nemotron_ops.service import granted, systemd
from nemotron_ops.service.systemd import Manager, UnitStatus
from nemotron_ops.service.units import (
    CREDENTIALS,
    ENGINES,
    PREPARE,
    RESUME,
    SERVICE,
    SOCKET,
    USER,
    Scope,
    ServiceSpec,
    build_words,
    own_argv,
    sysusers_conf,
    unit_files,
)

SYSUSERS = Path("/etc/sysusers.d/nemotron-ops.conf")
ALL_UNITS = (SOCKET, SERVICE, ENGINES, PREPARE, RESUME)
INSTALL_EARLIER = (
    "this program stays as it is, the version before it is overwritten: install that one and run "
    "`nemotron-ops service upgrade` again, or use `deploy`, which keeps releases side by side and rolls back"
)
HIDDEN_FROM_SERVICES = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a service lives: systemd's scope, the folder of its units, its own folders."""

    scope: Scope
    units: Path
    layout: Layout

    @property
    def record(self) -> Path:
        """What was installed, so that an upgrade or an uninstall knows."""
        return self.layout.config / "service.json"


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What an installation did and found."""

    changed: tuple[str, ...]  # unit files written or removed
    status: UnitStatus | None


def place_for(scope: Scope, layout: Layout, *, env: Mapping[str, str]) -> Place:
    if scope is Scope.SYSTEM:
        return Place(scope=scope, units=Path("/etc/systemd/system"), layout=layout)
    config = Path(env.get("XDG_CONFIG_HOME") or Path(env["HOME"]) / ".config")
    return Place(scope=scope, units=config / "systemd/user", layout=layout)


def check_possible(spec: ServiceSpec, *, booted: bool, uid: int) -> None:
    """Raise ServiceError where this service cannot be installed here, with the way out."""
    if not booted:
        raise ServiceError(
            "cannot install a service: systemd does not run this machine",
            hint="let your own process supervisor run: nemotron-ops serve " + " ".join(spec.recipes)
            + " (it stays in the foreground, stops on SIGTERM, and says READY=1 to $NOTIFY_SOCKET)",
        )  # fmt: skip
    if spec.scope is Scope.SYSTEM and uid != 0:
        raise ServiceError(
            "cannot install a system service: that takes root",
            hint="run it with sudo, or install a user service with --user",
        )
    if spec.scope is Scope.SYSTEM and (f"{spec.program}/").startswith(HIDDEN_FROM_SERVICES):
        raise ServiceError(
            f"cannot install a system service that runs {spec.program}: the service's user cannot see that folder",
            hint="install nemotron-ops into /opt first: python3 -m venv /opt/nemotron-ops/venv && "
            "/opt/nemotron-ops/venv/bin/pip install nemotron-ops; or `nemotron-ops deploy root@localhost --system`",
        )


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

    A running service keeps its models: the new supervisor takes them over (with `take_over` also where no unit has
    changed, only the program). Raises ServiceError.
    """
    manager = Manager(scope=place.scope)
    before = manager.status()
    moved = _socket_moved(spec, place)
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
    """What the running service (`pid`) should have got by its unit and has not, in words."""
    try:
        return granted.withheld(spec, Path(f"/proc/{pid}/limits").read_text())
    except OSError:
        return ()  # it ended just now


def hand_over(scope: Scope, *, report: Report, ready_s: float = 3600.0) -> UnitStatus:
    """Replace the running supervisor by a new one that takes over its models; returns once that is up.

    The supervisor is killed, not asked: surviving that is what it is built and tested for, and nothing it could do
    on its way out is needed. systemd starts the next one at once, through whatever `current` points to by then.
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
    """Stop everything, models too, and start again. The socket stays open meanwhile."""
    manager = Manager(scope=scope)
    manager.must("restart", "--no-block", SERVICE)
    old = manager.status().invocation
    deadline = time.monotonic() + 180
    while manager.status().invocation == old and time.monotonic() < deadline:
        time.sleep(systemd.POLL_S)
    return manager.wait_up(report=report, timeout_s=ready_s)


def stop(scope: Scope) -> None:
    """Stop the service and everything it started; the socket too, or the next request would start it again."""
    manager = Manager(scope=scope)
    manager.ctl("stop", SOCKET, SERVICE, ENGINES, timeout_s=300)


def upgrade(spec: ServiceSpec, place: Place, *, report: Report, ready_s: float) -> UnitStatus:
    """Bring an installed service to `spec` and hand over to the program as it is now.

    If that does not come up, the units are put back to the letter, where they have changed, and started once more. The
    program cannot be: what was there before is overwritten. Raises ServiceError, which says so.
    """
    before, record = units_in(place), read_json(place.record)
    try:
        now = install(spec, place, report=report, take_over=True, ready_s=ready_s).status
    except ServiceError as exc:
        undone = ""
        if before != units_in(place):
            put_units(before, place)
            write_json(place.record, record)
            undone = _again(place.scope, report=report, ready_s=ready_s)
        raise ServiceError(exc.message, log_tail=exc.log_tail, hint=undone + INSTALL_EARLIER) from exc
    assert now
    return now


def _again(scope: Scope, *, report: Report, ready_s: float) -> str:
    """Start with the units that were put back; what came of it, in words."""
    try:
        hand_over(scope, report=report, ready_s=ready_s)
    except ServiceError:
        return "the units from before are back, and do not come up with this program either; "
    return "the units from before are back, and serve; "


def build(spec: ServiceSpec, place: Place, *, report: Report) -> None:
    """Build llama.cpp for the service, as the user whom it belongs to. Raises ServiceError."""
    prepare_folders(place)
    report(Step(what="build", note="building llama.cpp for the service"))
    argv = own_argv(spec, *build_words(spec))
    done = run_lines(argv, on_line=lambda line: report(Step(what="build", note=line)))
    if not done.ok:
        raise ServiceError(
            f"cannot build llama.cpp for the service: exit code {done.returncode}",
            hint=f"as the service's user: {' '.join(argv)}",
            log_tail=tuple(done.stdout.splitlines()[-15:]),
        )


def take_keys(keys: Path, place: Place) -> None:
    """Put a file of API keys where the system service's unit takes its credential from."""
    kept = Path(CREDENTIALS, "api-keys")
    if keys.resolve() != kept:
        prepare_folders(place)
        write_atomic(kept, keys.read_bytes(), mode=0o600)


def prepare(spec: ServiceSpec, place: Place, *, report: Report) -> None:
    """Run the prepare unit to its end: models fetched as the service's user. Raises ServiceError."""
    prepare_folders(place)
    manager = Manager(scope=place.scope)
    # this unit only: `install` must still see that the others have changed
    write_atomic(place.units / PREPARE, unit_files(spec)[PREPARE])
    manager.must("daemon-reload")
    report(Step(what="prepare", note="fetching models"))
    done = manager.ctl("start", PREPARE, timeout_s=None)
    if not done.ok:
        tail = manager.journal(unit=PREPARE, lines=25)
        raise ServiceError("cannot fetch the service's models: the prepare unit failed", log_tail=tail)


def uninstall(place: Place, *, purge: bool) -> tuple[str, ...]:
    """Remove the service; returns what was removed. Models and builds stay unless `purge`."""
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
    removed += _remove_folders(place, purge=purge)
    if place.scope is Scope.SYSTEM:
        removed += _remove_user(purge=purge)
    elif record.get("linger_enabled"):
        systemd.linger(getpass.getuser(), on=False)
    return tuple(removed)


def doomed(place: Place, *, purge: bool) -> tuple[str, ...]:
    """What `uninstall` would remove."""
    units = [place.units / u for u in ALL_UNITS if (place.units / u).exists()]
    return tuple(map(str, [*units, *_folders(place, purge=purge)]))


def write_units(spec: ServiceSpec, place: Place) -> tuple[str, ...]:
    """Write what differs, remove what `spec` no longer has; returns the names. Tells systemd if anything changed."""
    return put_units(unit_files(spec), place)


def units_in(place: Place) -> dict[str, str]:
    """The unit files as they are on the disk: name -> content."""
    return {name: (place.units / name).read_text() for name in ALL_UNITS if (place.units / name).exists()}


def put_units(wanted: Mapping[str, str], place: Place) -> tuple[str, ...]:
    """`write_units` for units that are rendered already."""
    current, manager = units_in(place), Manager(scope=place.scope)
    changed = []
    for name in ALL_UNITS:
        path = place.units / name
        if current.get(name) != wanted.get(name):
            changed.append(name)
            if name in wanted:
                write_atomic(path, wanted[name])
            else:
                manager.ctl("disable", name)  # its links too, which nothing would find without it
                path.unlink()
    if changed:
        manager.must("daemon-reload")
    return tuple(changed)


def recorded(place: Place) -> ServiceSpec | None:
    """The spec of the installed service, or None."""
    record = read_json(place.record)
    if not isinstance(record, dict) or "spec" not in record:
        return None
    value = {k: v for k, v in record["spec"].items() if k in ServiceSpec.__dataclass_fields__}
    lists = {k: tuple(value[k]) for k in ("recipes", "options", "allow_from")}
    return ServiceSpec(**{**value, **lists, "scope": Scope(value["scope"])})


def _socket_moved(spec: ServiceSpec, place: Place) -> bool:
    path = place.units / SOCKET
    return path.exists() and path.read_text() != unit_files(spec)[SOCKET]


def prepare_folders(place: Place) -> None:
    """The system service's user and its folders; a user's service needs none."""
    if place.scope is Scope.USER:
        return
    write_atomic(SYSUSERS, sysusers_conf())
    systemd.sysusers(SYSUSERS)
    for folder, mode, owner in (
        (place.layout.config, 0o755, "root"),
        (Path(CREDENTIALS), 0o700, "root"),
        (place.layout.data, 0o755, USER),
        (place.layout.cache, 0o755, USER),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
        shutil.chown(folder, owner, owner)


def _enable(spec: ServiceSpec, manager: Manager, place: Place, report: Report) -> bool:
    """Have the service started at boot; returns whether it is us who made this user's services linger."""
    ours = bool((read_json(place.record) or {}).get("linger_enabled"))
    if place.scope is Scope.USER and not systemd.lingers(getpass.getuser()):
        done = systemd.linger(getpass.getuser(), on=True)
        if not done.ok:
            cure = f"an administrator can change that: loginctl enable-linger {getpass.getuser()}"
            report(Step(what="install", note=f"the service will end when you log out; {cure}"))
        ours = done.ok
    resume = [RESUME] if RESUME in unit_files(spec) else []
    manager.must("enable", SOCKET, SERVICE, *resume)
    return ours


def _remove_folders(place: Place, *, purge: bool) -> list[str]:
    """Our own folders. Models and builds stay, and recipes that people wrote, unless `purge`."""
    layout = place.layout
    removed = []
    for path in _folders(place, purge=purge):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # a user's logs are inside the state folder, and gone with it
        removed.append(str(path))
    if layout.config.is_dir() and not any(layout.config.iterdir()):
        layout.config.rmdir()
    return removed


def _folders(place: Place, *, purge: bool) -> list[Path]:
    layout = place.layout
    found = [layout.state, layout.logs, layout.runtime]
    if purge:
        found += [layout.config, layout.data, layout.cache]
    elif place.scope is Scope.SYSTEM:
        found += [p for p in sorted(layout.config.glob("*")) if p != layout.user_recipes or not any(p.iterdir())]
    else:
        found.append(place.record)  # the rest of the folder is the user's own: recipes, keys
    return [p for p in found if p.exists()]


def _remove_user(*, purge: bool) -> list[str]:
    """The service's user goes only together with the models it owns: a uid without a name may be given away again."""
    removed = []
    if SYSUSERS.exists() and purge:
        SYSUSERS.unlink()
        run(("userdel", USER))
        removed += [str(SYSUSERS), f"user {USER}"]
    return removed
