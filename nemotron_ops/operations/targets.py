"""Connects to the targets of a command, asks for their state, runs commands there. SSH."""

from __future__ import annotations

import getpass
import shlex
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotron_ops.errors import NemotronOpsError, UsageError
from nemotron_ops.files import read_plain
from nemotron_ops.installation import Installation

if TYPE_CHECKING:
    from nemotron_ops.deploy.balancer.config import Balancer
    from nemotron_ops.deploy.remote.ssh import Connection
    from nemotron_ops.deploy.remote.targets import Group
    from nemotron_ops.deploy.steps.facts import Site, TargetFacts
    from nemotron_ops.service.spec import Scope


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The targets of one command: connections, the group they came from, and the scope of their services."""

    scope: Scope
    group: Group | None
    connections: tuple[Connection, ...]

    def look(self, connection: Connection) -> tuple[TargetFacts, Site, Connection]:
        """Facts, site, and the connection with sudo where that is needed."""
        from nemotron_ops.deploy.remote.prepare import look, with_sudo_if_needed

        facts, site = look(connection, self.scope)
        return facts, site, with_sudo_if_needed(connection, self.scope, facts)


@dataclass(frozen=True, kw_only=True)
class RemoteCommand:
    """A nemotron-ops command for the release that serves on a target; `why` goes into its lock and audit log."""

    words: tuple[str, ...]
    why: str
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class BalancerRequest:
    """The inputs of the balancer's configuration."""

    group: str
    bind: str = "127.0.0.1:8000"
    certificate: str = ""
    addresses: tuple[str, ...] = ()
    ssh_config: Path | None = None
    stats: str = "127.0.0.1:8404"
    path: Path = Path("/run/haproxy/admin.sock")


@contextmanager
def open_targets(
    words: tuple[str, ...], here: Installation, *, system: bool | None, config: Path | None
) -> Iterator[Targets]:
    """The targets that `words` name, with shared connections that end with the block."""
    from nemotron_ops.deploy.remote.ssh import Connection, ControlFolder
    from nemotron_ops.deploy.remote.targets import expand
    from nemotron_ops.service.spec import Scope

    names, group = expand(words, read_groups(here))
    scope = group.scope if group and system is None else Scope.SYSTEM if system else Scope.USER
    config = ssh_config_path(here, config)
    with ControlFolder() as control:
        connections = tuple(Connection(target=t, config=config, control=control) for t in names)
        try:
            yield Targets(scope=scope, group=group, connections=connections)
        finally:
            for connection in connections:
                connection.close()


def ssh_config_path(here: Installation, given: Path | None) -> Path | None:
    """ssh's configuration file: the one given, that of the environment, or None for the user's own."""
    named = here.env.get("NEMOTRON_OPS_SSH_CONFIG")
    return given or (Path(named) if named else None)


def read_groups(here: Installation) -> dict[str, Group]:
    """The groups of targets.toml, by name."""
    from nemotron_ops.deploy.remote.targets import parse_groups

    path = here.layout.config / "targets.toml"
    return parse_groups(_text(path), origin=str(path)) if path.exists() else {}


def _text(path: Path) -> str:
    try:
        return read_plain(path).decode()
    except (OSError, UnicodeError) as exc:
        raise UsageError(f"cannot read {path}: {getattr(exc, 'strerror', None) or 'not UTF-8 text'}") from exc


def target_status(connection: Connection, scope: Scope) -> dict[str, Any]:
    """One target for `deploy status`; a target that cannot be reached is a row too."""
    from nemotron_ops.deploy.remote.prepare import look
    from nemotron_ops.deploy.steps.scripts import prelude
    from nemotron_ops.service.spec import SERVICE, Scope
    from nemotron_ops.service.systemd import PROPERTIES, parse_status

    row = {"target": connection.target, "release": "", "service": "", "says": "", "previous": "", "lock": ""}
    try:
        facts, _ = look(connection, scope)
    except NemotronOpsError as exc:
        return {**row, "service": "unreachable", "says": exc.message}
    ctl = "systemctl" if scope is Scope.SYSTEM else "systemctl --user"
    status = parse_status(connection.sh(f"{prelude(scope)}{ctl} show --property {PROPERTIES} {SERVICE}\n").stdout)
    return {
        **row, "release": facts.current, "service": status.active, "says": status.text, "restarts": status.restarts,
        "previous": facts.previous, "lock": lock_of(facts), "lock_stale": bool(facts.lock and not facts.lock_alive),
        "good": list(facts.good), "bad": list(facts.bad),
    }  # fmt: skip


def lock_of(facts: TargetFacts) -> str:
    """The holder of a target's lock, in words; a deploy that was cut off holds none, and is explained."""
    from nemotron_ops.deploy.remote.session import describe_lock

    if facts.hold:
        return describe_lock(facts.hold)
    if facts.lock and not facts.lock_alive:
        return f"free; cut off: {describe_lock(facts.lock)} (doing it again continues it)"
    return describe_lock(facts.lock) if facts.lock else ""


def run_in_session(
    command: RemoteCommand, connection: Connection, targets: Targets, here: Installation, *,
    on_line: Callable[[str], None] | None = None,
) -> list[str]:  # fmt: skip
    """Run a command of the current release on a target, holding its lock; returns its lines.

    `on_line` gets each line as it comes. Raises DeployError if the command fails.
    """
    from nemotron_ops.deploy.remote.session import locked_session
    from nemotron_ops.deploy.steps.scripts import append_audit, claim_script, exec_script
    from nemotron_ops.errors import DeployError

    _, site, connection = targets.look(connection)
    why, person = command.why, operator(here)
    with locked_session(connection, site, force=command.force, verb=f"{why} on") as session:
        session.run(claim_script(site, who=person, now=now(), why=why))
        session.run(append_audit(site, who=person, now=now(), event=why, command=shlex.join(command.words)))
        code, lines = session.run(exec_script(site, command.words), on_line=on_line)
        session.run(f"rm -f {site.root}/LOCK.json")
    if code:
        shown = on_line is not None and len(targets.connections) == 1
        raise DeployError(
            f"cannot {why} on {connection.target}: exit code {code}", log_tail=() if shown else lines[-5:]
        )
    return list(lines)


def run_or_fail(connection: Connection, script: str) -> str:
    """Run a script on the target; returns its output. Raises DeployError if it fails."""
    from nemotron_ops.errors import DeployError

    done = connection.sh(script)
    if not done.ok:
        raise DeployError(f"cannot change {connection.target}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def operator(here: Installation) -> str:
    """The person or job that changes a target, for its lock and its audit log."""
    return here.env.get("NEMOTRON_OPS_WHO") or f"{getpass.getuser()}@{socket.gethostname()}"


def now() -> str:
    """The time for a lock or an audit log: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def balancer_of(request: BalancerRequest, here: Installation) -> Balancer:
    """The balancer for a group of targets.toml. Raises UsageError for a group or a target that is not in it."""
    from nemotron_ops.deploy.balancer.config import Balancer, Server, server_name
    from nemotron_ops.deploy.remote.ssh import address_of
    from nemotron_ops.service.words import address

    groups = read_groups(here)
    if request.group not in groups:
        known = ", ".join(groups) or "none"
        raise UsageError(f"cannot find group {request.group!r} in targets.toml (known: {known})")
    group, config = groups[request.group], ssh_config_path(here, request.ssh_config)
    named = named_addresses(request.addresses, group.targets)
    servers = tuple(
        Server(name=server_name(t), address=named.get(t) or address(address_of(t, config=config), group.port))
        for t in group.targets
    )
    return Balancer(
        servers=servers, slots=group.slots, bind=request.bind, certificate=request.certificate, stats=request.stats,
        socket=str(request.path.absolute()),
    )  # fmt: skip


def named_addresses(words: tuple[str, ...], targets: tuple[str, ...]) -> dict[str, str]:
    """`TARGET=HOST:PORT` words as a dict. Raises UsageError for a malformed word or an unknown target."""
    found = {}
    for word in words:
        target, sep, place = word.partition("=")
        host, colon, port = place.rpartition(":")
        if not (sep and host and colon and port.isdigit()):
            raise UsageError(f"cannot use --address {word}: expected TARGET=HOST:PORT", hint="gpu1=10.0.0.1:8001")
        if target not in targets:
            raise UsageError(f"cannot use --address {word}: the group has no {target} (it has {', '.join(targets)})")
        found[target] = place
    return found
