"""`deploy …`: the same program on other machines, over SSH. Terminal, SSH."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotron_ops.addresses import LOOPBACK
from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.cli.deploy_view import show_outcomes, show_plan
from nemotron_ops.cli.options import choice, option, options_of
from nemotron_ops.cli.remote import Option, scope_option, show_lines, ssh_option, targets_argument
from nemotron_ops.errors import UsageError
from nemotron_ops.operations.deploying import (
    compile_bytes,
    hooks_for,
    local_build,
    local_model,
    own_recipes,
    write_balancer_config,
)
from nemotron_ops.operations.targets import now, open_targets, operator, run_in_session, run_or_fail, target_status

if TYPE_CHECKING:
    from nemotron_ops.deploy.remote.prepare import Job
    from nemotron_ops.deploy.steps.release import Request
    from nemotron_ops.installation import Installation
    from nemotron_ops.operations.targets import Targets

BALANCER = "HAProxy's runtime socket: each target is drained there while it switches, one at a time."
force_option: Option = click.option("--force", is_flag=True, help="Although a person holds the lock.")


class DeployGroup(click.Group):
    """`deploy gpu1` is `deploy run gpu1`: the first word is a target unless it is one of the verbs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=DeployGroup)
def deploy() -> None:
    """Put this version and your models on other machines, over SSH.

    TARGET is anything that `ssh TARGET` understands, or a group of targets.toml. Nothing has to be installed there but
    Python 3.11 or newer and sshd. `deploy TARGET...` is short for `deploy run TARGET...`.
    """


@dataclass(frozen=True, kw_only=True)
class DeployOptions:
    """What `deploy run` was asked for; empty fields mean what the group says."""

    recipes: tuple[str, ...] = option("What to serve there. Repeatable. [default: the group's]", "--recipe", "-r")
    profile: str = option("Profile whose values become the server's defaults.")
    host: str = option("Address to listen on there [default: 127.0.0.1].")
    port: int | None = option("Port to listen on there [default: 8001].", type=click.IntRange(1, 65535))
    backend: str | None = choice(cuda="Build for NVIDIA GPUs there.", cpu="Build for the CPU there.")
    build: str = option(
        "llama.cpp: built there, or this machine's current build sent; auto sends it where it is the right one.",
        default="auto",
        type=click.Choice(["auto", "there", "send"]),
        show_default=True,
    )
    send_models: bool = option("Send the models of this machine, instead of fetching them there.")
    in_place: bool = option("Do not try the new release beside the old one first.")
    keys: Path | None = option(
        "File of keys that clients must show, as `keys create` makes it; travels with the release.",
        "--api-keys",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
    )
    serve_options: tuple[str, ...] = option("Further word for `serve`. Repeatable.", "--serve-option", metavar="WORD")
    balancer: Path | None = option(BALANCER, metavar="SOCKET")
    parallel: int = option("Targets at once, after the first has gone well.", default=4, show_default=True)
    why: str = option("Reason, for the lock and the audit log.")
    force: bool = option("Deploy although it is there already, or although a person holds the lock.")
    yes: bool = option("Do not ask.", "--yes", "-y")
    ready_s: int = option("Seconds to wait until models are loaded.", "--ready-timeout", default=3600)


@deploy.command()
@targets_argument
@options_of(DeployOptions)
@scope_option
@ssh_option
@dry_run_option
@json_option
def run(
    targets: tuple[str, ...], wanted: DeployOptions, system: bool | None, ssh_config: Path | None, dry_run: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Deploy to TARGETs: the first one alone, and the others once it serves.

    Up to the moment when the new release has answered a question beside the old one, nothing that serves is touched;
    if it fails after that, the old release is put back. Running it again continues what was interrupted.
    """
    from nemotron_ops.deploy.remote.prepare import make_ready
    from nemotron_ops.deploy.remote.rollout import roll_out

    with App() as app, open_targets(targets, app.installation, system=system, config=ssh_config) as reached:
        job = job_for(wanted, reached, app.installation)
        readies = [make_ready(c, job, report=app.ui.report) for c in reached.connections]
        show_plan(app, readies, scripts=dry_run, as_json=as_json)
        if dry_run:
            return
        if not wanted.yes:
            click.confirm("Go on?", abort=True, err=True)
        outcomes, errors = roll_out(readies, job, parallel=wanted.parallel, report=app.ui.report)
        show_outcomes(app, outcomes, errors, as_json=as_json)
        if path := write_balancer_config(reached.group, app.installation, ssh_config=ssh_config):
            app.ui.say(f"{path.name}, beside targets.toml, makes HAProxy one door for them: nemotron-ops balancer")


def job_for(wanted: DeployOptions, targets: Targets, here: Installation) -> Job:
    """The deploy's job: the options, completed from the group. Raises UsageError."""
    from nemotron_ops.deploy.remote.prepare import Job

    recipes = wanted.recipes or (targets.group.recipes if targets.group else ())
    if not recipes:
        raise UsageError("cannot deploy: no recipe named", hint="--recipe 30b")
    job = Job(
        request=request_for(wanted, recipes, targets, here),
        cache=here.layout.cache / "bundles",
        who=operator(here),
        now=now(),
        why=wanted.why,
        force=wanted.force,
        build=None if wanted.build == "there" else local_build(here),
        must_send=wanted.build == "send",
        hooks=hooks_for(wanted.balancer),
        compile_bytes=compile_bytes(),
        keys=wanted.keys,
        models=tuple(local_model(r, here) for r in recipes) if wanted.send_models else (),
    )
    if job.must_send and job.build is None:
        raise UsageError("cannot send a build: this machine has none that is current", hint="nemotron-ops build")
    return job


def request_for(wanted: DeployOptions, recipes: tuple[str, ...], targets: Targets, here: Installation) -> Request:
    """What is to be served there."""
    from nemotron_ops.deploy.steps.release import Request

    group = targets.group
    return Request(
        scope=targets.scope,
        recipes=recipes,
        profile=wanted.profile or (group.profile if group else ""),
        host=wanted.host or (group.host if group and group.host else LOOPBACK),
        port=wanted.port or (group.port if group else 8001),
        own_recipes=own_recipes(recipes, here),
        serve_options=wanted.serve_options,
        backend=wanted.backend or "",
        candidate=not wanted.in_place,
        ready_s=wanted.ready_s,
    )


@dataclass(frozen=True, kw_only=True)
class RollbackOptions:
    """What `deploy rollback` was asked for."""

    to: str = option("Release to go back to. [default: the previous good one]")
    why: str = option("Reason, for the lock and the audit log.")
    balancer: Path | None = option(BALANCER, metavar="SOCKET")
    force: bool = option("Although a person holds the lock.")


@deploy.command()
@targets_argument
@options_of(RollbackOptions)
@scope_option
@ssh_option
@json_option
def rollback(
    targets: tuple[str, ...], wanted: RollbackOptions, system: bool | None, ssh_config: Path | None, as_json: bool
) -> None:
    """Make the previous good release serve again, one target after another.

    It must be at rest and answer a question; if it does not, the release of now serves again.
    """
    from nemotron_ops.deploy.remote.rollout import Wish, roll_back_all

    with App() as app, open_targets(targets, app.installation, system=system, config=ssh_config) as reached:
        wish = Wish(
            scope=reached.scope,
            who=operator(app.installation),
            now=now(),
            to=wanted.to,
            why=wanted.why,
            force=wanted.force,
            hooks=hooks_for(wanted.balancer),
        )
        show_outcomes(app, *roll_back_all(reached.connections, wish, report=app.ui.report), as_json=as_json)


@deploy.command()
@targets_argument
@scope_option
@ssh_option
@json_option
def status(targets: tuple[str, ...], system: bool | None, ssh_config: Path | None, as_json: bool) -> None:
    """What each target serves, since which release, and who holds its lock."""
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


@deploy.command()
@targets_argument
@click.option("-f", "--follow", is_flag=True, help="Go on showing lines as they come (one target).")
@click.option("-n", "--lines", default=50, show_default=True, help="Lines to begin with.")
@click.option("--audit", is_flag=True, help="The audit log of deploys instead of the service's journal.")
@scope_option
@ssh_option
@json_option
def logs(
    targets: tuple[str, ...], follow: bool, lines: int, audit: bool, system: bool | None, ssh_config: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """The service's journal on each target, or who deployed what (--audit)."""
    from nemotron_ops.service.systemd import Manager

    with App() as app, open_targets(targets, app.installation, system=system, config=ssh_config) as reached:
        if follow and len(reached.connections) > 1:
            raise UsageError("cannot follow the logs of several targets at once")
        found: dict[str, list[str]] = {}
        for c in reached.connections:
            _, site, connection = reached.look(c)
            if audit:
                argv: tuple[str, ...] = ("tail", "-n", str(lines), str(site.root / "deploy.log"))
            else:
                argv = Manager(scope=reached.scope).follow_argv(follow=follow, lines=lines)
            if follow:
                # a child, not in our place: the shared connection's folder is removed when it ends
                raise SystemExit(subprocess.call(connection.argv(*connection.as_root(*argv))))
            found[c.target] = connection.sh(" ".join(argv)).stdout.splitlines()
        if as_json:
            app.ui.json(found)
            return
        for name, said in found.items():
            for line in said:
                app.ui.data(f"{name}: {line}" if len(found) > 1 else line)


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
    """Start the service's program afresh, one target after another. Loaded models stay loaded."""
    words = ("service", "restart", *(("--reload-models",) if reload_models else ()))
    with App() as app, open_targets(targets, app.installation, system=system, config=ssh_config) as reached:
        said = {
            c.target: run_in_session(
                (*words, f"--{reached.scope.value}"), c, reached, app.installation, why="restart", force=force,
                on_line=None if as_json else show_lines(app, reached, c),
            )
            for c in reached.connections
        }  # fmt: skip
        if as_json:
            app.ui.json(said)


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
        said = {
            c.target: run_in_session(
                words, c, reached, app.installation, why="exec", force=force,
                on_line=None if as_json else show_lines(app, reached, c),
            )
            for c in reached.connections
        }  # fmt: skip
        if as_json:
            app.ui.json(said)


@deploy.command()
@targets_argument
@click.option("--why", "-m", required=True, help="Reason, shown to whoever wants to deploy.")
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
@click.option(
    "--force", is_flag=True, help="Also end the session of a deploy that is under way, or was cut off, there."
)
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
