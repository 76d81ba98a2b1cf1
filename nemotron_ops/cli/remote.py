"""The targets of a command: named, reached, asked, changed. SSH.

Shared by every command that works on other machines.
"""

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

import click

from nemotron_ops.cli.app import App
from nemotron_ops.errors import NemotronOpsError

if TYPE_CHECKING:
    from nemotron_ops.deploy.remote.ssh import Connection
    from nemotron_ops.deploy.remote.targets import Group
    from nemotron_ops.deploy.steps.facts import Site, TargetFacts
    from nemotron_ops.service.spec import Scope

Option = Callable[[Callable[..., Any]], Callable[..., Any]]
ssh_option: Option = click.option(
    "--ssh-config", "-F", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="ssh's configuration file."
)
scope_option: Option = click.option(
    "--system/--user", "system", default=None, help="A system service (takes root there), or a user's. Default: user."
)
targets_argument: Option = click.argument("targets", nargs=-1, required=True, metavar="TARGET...")


@dataclass(frozen=True, kw_only=True)
class There:
    """The targets of one command: how to reach them, and as what."""

    scope: Scope
    group: Group | None
    connections: tuple[Connection, ...]

    def look(self, connection: Connection) -> tuple[TargetFacts, Site, Connection]:
        """Facts, site, and the connection with sudo where that is needed."""
        from nemotron_ops.deploy.remote.prepare import look, with_sudo_if_needed

        facts, site = look(connection, self.scope)
        return facts, site, with_sudo_if_needed(connection, self.scope, facts)


@contextmanager
def reach(app: App, words: tuple[str, ...], *, system: bool | None, config: Path | None) -> Iterator[There]:
    """The targets that `words` name, with shared connections that end with the block."""
    from nemotron_ops.deploy.remote.ssh import Connection, ControlFolder
    from nemotron_ops.deploy.remote.targets import expand
    from nemotron_ops.service.spec import Scope

    targets, group = expand(words, read_groups(app))
    scope = group.scope if group and system is None else Scope.SYSTEM if system else Scope.USER
    config = config_of(app, config)
    with ControlFolder() as control:
        connections = tuple(Connection(target=t, config=config, control=control) for t in targets)
        try:
            yield There(scope=scope, group=group, connections=connections)
        finally:
            for connection in connections:
                connection.close()


def config_of(app: App, given: Path | None) -> Path | None:
    """ssh's configuration file: the one given, that of the environment, or None for the user's own."""
    named = app.env.get("NEMOTRON_OPS_SSH_CONFIG")
    return given or (Path(named) if named else None)


def read_groups(app: App) -> dict[str, Group]:
    from nemotron_ops.deploy.remote.targets import parse_groups

    path = app.layout.config / "targets.toml"
    return parse_groups(path.read_text(encoding="utf-8"), origin=str(path)) if path.exists() else {}


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
    now_ = parse_status(connection.sh(f"{prelude(scope)}{ctl} show --property {PROPERTIES} {SERVICE}\n").stdout)
    return {**row, "release": facts.current, "service": now_.active, "says": now_.text, "restarts": now_.restarts,
            "previous": facts.previous, "lock": lock_of(facts), "lock_stale": bool(facts.lock and not facts.lock_alive),
            "good": list(facts.good), "bad": list(facts.bad)}  # fmt: skip


def lock_of(facts: TargetFacts) -> str:
    """Who holds a target's lock, in words; a deploy that was cut off holds none, and is explained."""
    from nemotron_ops.deploy.remote.session import describe_lock

    if facts.hold:
        return describe_lock(facts.hold)
    if facts.lock and not facts.lock_alive:
        return f"free; cut off: {describe_lock(facts.lock)} (doing it again continues it)"
    return describe_lock(facts.lock) if facts.lock else ""


def in_session(
    app: App, there: There, connection: Connection, words: tuple[str, ...], *, why: str, force: bool = False,
    quiet: bool = False,
) -> list[str]:  # fmt: skip
    """Run a command of the current release on a target, holding its lock; its lines, which are also shown."""
    from nemotron_ops.deploy.remote.session import locked_session
    from nemotron_ops.deploy.steps.scripts import append_audit, claim_script, exec_script
    from nemotron_ops.errors import DeployError

    _, site, connection = there.look(connection)
    many = len(there.connections) > 1
    with locked_session(connection, site, force=force, verb=f"{why} on") as session:
        session.run(claim_script(site, who=who(app), now=now(), why=why))
        session.run(append_audit(site, who=who(app), now=now(), event=why, command=shlex.join(words)))
        code, lines = session.run(
            exec_script(site, words),
            on_line=None if quiet else lambda x: app.ui.data(f"{connection.target}: {x}" if many else x),
        )
        session.run(f"rm -f {site.root}/LOCK.json")
    if code:
        raise DeployError(
            f"cannot {why} on {connection.target}: exit code {code}", log_tail=lines[-5:] if many or quiet else ()
        )
    return list(lines)


def must(connection: Connection, script: str) -> str:
    """Run a script there; its output. Raises DeployError if it fails."""
    from nemotron_ops.errors import DeployError

    done = connection.sh(script)
    if not done.ok:
        raise DeployError(f"cannot change {connection.target}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def who(app: App) -> str:
    return app.env.get("NEMOTRON_OPS_WHO") or f"{getpass.getuser()}@{socket.gethostname()}"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
