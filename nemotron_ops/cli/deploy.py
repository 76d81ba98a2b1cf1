"""`deploy …`: the same program on other machines, over SSH. Terminal, SSH."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotron_ops.cli.app import App, json_option, progress_option
from nemotron_ops.cli.deploy_run import run
from nemotron_ops.cli.deploy_view import show_outcomes
from nemotron_ops.cli.options import option, options_of
from nemotron_ops.cli.remote import BALANCER, Option, scope_option, show_lines, ssh_option, targets_argument
from nemotron_ops.errors import UsageError
from nemotron_ops.operations.deploying import hooks_for
from nemotron_ops.operations.targets import (
    RemoteCommand,
    now,
    open_targets,
    operator,
    run_in_session,
    run_or_fail,
    target_status,
)

if TYPE_CHECKING:
    from nemotron_ops.deploy.steps.facts import Site
    from nemotron_ops.operations.targets import Targets

force_option: Option = click.option("--force", is_flag=True, help="Proceed although a person holds the lock.")


class DeployGroup(click.Group):
    """`deploy gpu1` is `deploy run gpu1`: the first word is a target unless it is one of the verbs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=DeployGroup)
def deploy() -> None:
    """Put this version and your models on other machines, over SSH.

    TARGET is anything that `ssh TARGET` understands, or a group of targets.toml. A target needs
    Python 3.11 or newer and sshd, nothing else. `deploy TARGET...` is short for `deploy run TARGET...`.
    """


deploy.add_command(run)


@dataclass(frozen=True, kw_only=True)
class RollbackOptions:
    """What `deploy rollback` was asked for."""

    to: str = option("Release to go back to. [default: the previous good one]")
    why: str = option("Reason, for the lock and the audit log.")
    balancer: Path | None = option(BALANCER, metavar="SOCKET")
    force: bool = option("Proceed although a person holds the lock.")


@deploy.command()
@targets_argument
@options_of(RollbackOptions)
@scope_option
@ssh_option
@progress_option
@json_option
def rollback(
    targets: tuple[str, ...], wanted: RollbackOptions, system: bool | None, ssh_config: Path | None, as_json: bool
) -> None:
    """Bring back the previous good release, one target after another.

    It must become ready and answer a question; otherwise the current release serves again.
    """
    from nemotron_ops.deploy.remote.rollout import Rollback, roll_back_all

    with App() as app, open_targets(targets, app.installation, system=system, config=ssh_config) as reached:
        request = Rollback(
            scope=reached.scope,
            who=operator(app.installation),
            now=now(),
            to=wanted.to,
            why=wanted.why,
            force=wanted.force,
            hooks=hooks_for(wanted.balancer),
        )
        show_outcomes(app, *roll_back_all(reached.connections, request, report=app.ui.report), as_json=as_json)


@deploy.command()
@targets_argument
@scope_option
@ssh_option
@json_option
def status(targets: tuple[str, ...], system: bool | None, ssh_config: Path | None, as_json: bool) -> None:
    """Show what each target serves, its releases, and the holder of its lock."""
    with App() as app, open_targets(targets, app.installation, system=system, config=ssh_config) as reached:
        rows = [target_status(c, reached.scope) for c in reached.connections]
        if as_json:
            app.ui.json(rows)
            return
        table = [
            [r["target"], r["release"] or "-", r["service"], r["says"], r["previous"] or "-", r["lock"] or "-"]
            for r in rows
        ]
        app.ui.table(["TARGET", "RELEASE", "SERVICE", "SAYS", "PREVIOUS", "LOCK"], table)


@dataclass(frozen=True, kw_only=True)
class LogsOptions:
    """What `deploy logs` was asked for."""

    follow: bool = option("Keep showing new lines (one target only).", "-f", "--follow")
    lines: int = option("Lines to start with.", "-n", "--lines", default=50, show_default=True)
    audit: bool = option("The audit log of deploys instead of the service's journal.")


@deploy.command()
@targets_argument
@options_of(LogsOptions)
@scope_option
@ssh_option
@json_option
def logs(
    targets: tuple[str, ...], wanted: LogsOptions, system: bool | None, ssh_config: Path | None, as_json: bool
) -> None:
    """Show the service's journal on each target, or the audit log of its deploys (--audit)."""
    with App() as app, open_targets(targets, app.installation, system=system, config=ssh_config) as reached:
        if wanted.follow and len(reached.connections) > 1:
            raise UsageError("cannot follow the logs of several targets at once")
        found: dict[str, list[str]] = {}
        for c in reached.connections:
            _, site, connection = reached.look(c)
            argv = _logs_argv(wanted, reached, site)
            if wanted.follow:
                # a child process, because the shared connection's folder is removed when this one ends
                raise SystemExit(subprocess.call(connection.argv(*connection.as_root(*argv))))
            found[c.target] = connection.sh(" ".join(argv)).stdout.splitlines()
        if as_json:
            app.ui.json(found)
            return
        for name, printed in found.items():
            for line in printed:
                app.ui.data(f"{name}: {line}" if len(found) > 1 else line)


def _logs_argv(wanted: LogsOptions, targets: Targets, site: Site) -> tuple[str, ...]:
    from nemotron_ops.service.systemd import Manager

    if wanted.audit:
        return ("tail", "-n", str(wanted.lines), str(site.root / "deploy.log"))
    return Manager(scope=targets.scope).follow_argv(follow=wanted.follow, lines=wanted.lines)


@deploy.command()
@targets_argument
@click.option("--reload-models", is_flag=True, help="Stop the models too, and load them again.")
@force_option
@scope_option
@ssh_option
@json_option
def restart(
    targets: tuple[str, ...], reload_models: bool, force: bool, system: bool | None, ssh_config: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Restart the service's program, one target after another. Loaded models stay loaded."""
    words = ("service", "restart", *(("--reload-models",) if reload_models else ()))
    with App() as app, open_targets(targets, app.installation, system=system, config=ssh_config) as reached:
        scoped = (*words, f"--{reached.scope.value}")
        command = RemoteCommand(words=scoped, why="restart", force=force)
        printed = {
            c.target: run_in_session(
                command, c, reached, app.installation, on_line=None if as_json else show_lines(app, reached, c)
            )
            for c in reached.connections
        }
        if as_json:
            app.ui.json(printed)


@deploy.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@force_option
@scope_option
@ssh_option
@json_option
@click.argument("target")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
def exec_(
    target: str, words: tuple[str, ...], force: bool, system: bool | None, ssh_config: Path | None, as_json: bool
) -> None:
    """Run a nemotron-ops command with the release that serves on TARGET: `deploy exec gpu1 builds list`.

    Options of `deploy exec` itself come before TARGET. For a group, on each of its targets.
    """
    with App() as app, open_targets((target,), app.installation, system=system, config=ssh_config) as reached:
        command = RemoteCommand(words=words, why="exec", force=force)
        printed = {
            c.target: run_in_session(
                command, c, reached, app.installation, on_line=None if as_json else show_lines(app, reached, c)
            )
            for c in reached.connections
        }
        if as_json:
            app.ui.json(printed)


@deploy.command()
@targets_argument
@click.option("--why", "-m", required=True, help="Reason, shown to others who try to deploy.")
@scope_option
@ssh_option
@json_option
def lock(targets: tuple[str, ...], why: str, system: bool | None, ssh_config: Path | None, as_json: bool) -> None:
    """Keep others from deploying, and from rollback, restart and exec, until `unlock`."""
    from nemotron_ops.deploy.steps.scripts import hold_script

    with App() as app, open_targets(targets, app.installation, system=system, config=ssh_config) as reached:
        hold = {"who": operator(app.installation), "since": now(), "why": why}
        for c in reached.connections:
            _, site, connection = reached.look(c)
            run_or_fail(connection, hold_script(site, hold=hold, who=hold["who"], now=hold["since"]))
            app.ui.say(f"{c.target}: locked")
        if as_json:
            app.ui.json({c.target: hold for c in reached.connections})


@deploy.command()
@targets_argument
@click.option("--force", is_flag=True, help="Also end the session of a running or interrupted deploy there.")
@scope_option
@ssh_option
@json_option
def unlock(targets: tuple[str, ...], force: bool, system: bool | None, ssh_config: Path | None, as_json: bool) -> None:
    """Let others deploy again."""
    from nemotron_ops.deploy.steps.scripts import break_script, hold_script

    with App() as app, open_targets(targets, app.installation, system=system, config=ssh_config) as reached:
        for c in reached.connections:
            facts, site, connection = reached.look(c)
            run_or_fail(connection, hold_script(site, hold=None, who=operator(app.installation), now=now()))
            app.ui.say(f"{c.target}: unlocked" + (f" (was: {facts.hold})" if facts.hold else ""))
            if force:
                app.ui.say(f"{c.target}: {run_or_fail(connection, break_script(site)).strip()}")
        if as_json:
            app.ui.json({"unlocked": [c.target for c in reached.connections]})
