"""Where a service lives on this machine: its folders, unit files, user and record. Disk, systemctl."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nemotron_ops.errors import ServiceError
from nemotron_ops.files import read_json, write_atomic
from nemotron_ops.paths import Layout
from nemotron_ops.proc import run
from nemotron_ops.service import systemd
from nemotron_ops.service.spec import (
    CREDENTIALS,
    ENGINES,
    PREPARE,
    RESUME,
    SERVICE,
    SOCKET,
    USER,
    Scope,
    ServiceSpec,
    sysusers_conf,
)
from nemotron_ops.service.systemd import Manager
from nemotron_ops.service.units import unit_files

SYSUSERS = Path("/etc/sysusers.d/nemotron-ops.conf")
ALL_UNITS = (SOCKET, SERVICE, ENGINES, PREPARE, RESUME)
HIDDEN_FROM_SERVICES = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")


@dataclass(frozen=True, kw_only=True)
class Place:
    """The places of a service: systemd's scope, the folder of its units, its own folders."""

    scope: Scope
    units: Path
    layout: Layout

    @property
    def record(self) -> Path:
        """The record of what was installed, for upgrade and uninstall."""
        return self.layout.config / "service.json"


def place_for(scope: Scope, layout: Layout, *, env: Mapping[str, str]) -> Place:
    if scope is Scope.SYSTEM:
        return Place(scope=scope, units=Path("/etc/systemd/system"), layout=layout)
    config = Path(env.get("XDG_CONFIG_HOME") or Path(env["HOME"]) / ".config")
    return Place(scope=scope, units=config / "systemd/user", layout=layout)


def check_possible(spec: ServiceSpec, *, booted: bool, uid: int) -> None:
    """Raise ServiceError, with a hint, if this service cannot be installed on this machine."""
    if not booted:
        raise ServiceError(
            "cannot install a service: systemd does not run this machine",
            hint=f"let your own process supervisor run: nemotron-ops serve {' '.join(spec.recipes)} (it stays in the "
            "foreground, stops on SIGTERM, and sends READY=1 to $NOTIFY_SOCKET)",
        )
    if spec.scope is Scope.SYSTEM and uid != 0:
        raise ServiceError(
            "cannot install a system service: root is needed",
            hint="run it with sudo, or install a user service with --user",
        )
    if spec.scope is Scope.SYSTEM and (f"{spec.program}/").startswith(HIDDEN_FROM_SERVICES):
        raise ServiceError(
            f"cannot install a system service that runs {spec.program}: the service's user cannot see that folder",
            hint="install nemotron-ops into /opt first: python3 -m venv /opt/nemotron-ops/venv && "
            "/opt/nemotron-ops/venv/bin/pip install nemotron-ops; or `nemotron-ops deploy root@localhost --system`",
        )


def installed_spec(place: Place) -> ServiceSpec | None:
    """The spec of the installed service, or None."""
    record = read_json(place.record)
    if not isinstance(record, dict) or "spec" not in record:
        return None
    value = {k: v for k, v in record["spec"].items() if k in ServiceSpec.__dataclass_fields__}
    lists = {k: tuple(value[k]) for k in ("recipes", "options", "allow_from")}
    return ServiceSpec(**{**value, **lists, "scope": Scope(value["scope"])})


def units_in(place: Place) -> dict[str, str]:
    """The unit files as they are on the disk: name -> content."""
    return {name: (place.units / name).read_text() for name in ALL_UNITS if (place.units / name).exists()}


def socket_changed(spec: ServiceSpec, place: Place) -> bool:
    """Whether the installed socket differs from that of `spec`, so that systemd has to reopen it."""
    path = place.units / SOCKET
    return path.exists() and path.read_text() != unit_files(spec)[SOCKET]


def write_units(spec: ServiceSpec, place: Place) -> tuple[str, ...]:
    """Write units that differ, remove those that `spec` no longer has; returns the names. Reloads systemd if needed."""
    return put_units(unit_files(spec), place)


def put_units(wanted: Mapping[str, str], place: Place) -> tuple[str, ...]:
    """`write_units` for rendered units."""
    current, manager = units_in(place), Manager(scope=place.scope)
    changed = []
    for name in ALL_UNITS:
        path = place.units / name
        if current.get(name) != wanted.get(name):
            changed.append(name)
            if name in wanted:
                write_atomic(path, wanted[name])
            else:
                manager.ctl("disable", name)  # also removes its links, which systemd could not find later
                path.unlink()
    if changed:
        manager.must("daemon-reload")
    return tuple(changed)


def prepare_folders(place: Place) -> None:
    """Create the system service's user and folders; a user's service needs none."""
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


def install_keys(keys: Path, place: Place) -> None:
    """Copy a file of API keys to where the system service's unit reads its credential."""
    credential = Path(CREDENTIALS, "api-keys")
    if keys.resolve() != credential:
        prepare_folders(place)
        write_atomic(credential, keys.read_bytes(), mode=0o600)


def removed_by_uninstall(place: Place, *, purge: bool) -> tuple[str, ...]:
    """The paths that `uninstall` would remove."""
    units = [place.units / u for u in ALL_UNITS if (place.units / u).exists()]
    return tuple(map(str, [*units, *_folders(place, purge=purge)]))


def remove_folders(place: Place, *, purge: bool) -> list[str]:
    """Remove our own folders. Models, builds and the operator's recipes stay, unless `purge`."""
    layout = place.layout
    removed = []
    for path in _folders(place, purge=purge):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # a user's logs lie in the state folder and are removed with it
        removed.append(str(path))
    if layout.config.is_dir() and not any(layout.config.iterdir()):
        layout.config.rmdir()
    return removed


def remove_user(*, purge: bool) -> list[str]:
    """Remove the service's user, but only together with the models it owns: its uid could be assigned again."""
    removed = []
    if SYSUSERS.exists() and purge:
        SYSUSERS.unlink()
        run(("userdel", USER))
        removed += [str(SYSUSERS), f"user {USER}"]
    return removed


def _folders(place: Place, *, purge: bool) -> list[Path]:
    layout = place.layout
    found = [layout.state, layout.logs, layout.runtime]
    if purge:
        found += [layout.config, layout.data, layout.cache]
    elif place.scope is Scope.SYSTEM:
        found += [p for p in sorted(layout.config.glob("*")) if p != layout.user_recipes or not any(p.iterdir())]
    else:
        found.append(place.record)  # all else in the folder is the user's own: recipes, keys
    return [p for p in found if p.exists()]
