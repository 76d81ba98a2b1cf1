"""`deploy run`: the first target alone, and the others once it serves. Terminal, SSH."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotron_ops.addresses import LOOPBACK
from nemotron_ops.cli.app import App, dry_run_option, json_option, progress_option
from nemotron_ops.cli.deploy_view import show_outcomes, show_plan
from nemotron_ops.cli.options import choice, option, options_of
from nemotron_ops.cli.remote import BALANCER, scope_option, ssh_option, targets_argument
from nemotron_ops.errors import UsageError
from nemotron_ops.operations.deploying import (
    compile_bytes,
    hooks_for,
    local_build,
    local_model,
    own_recipes,
    write_balancer_config,
)
from nemotron_ops.operations.targets import now, open_targets, operator

if TYPE_CHECKING:
    from nemotron_ops.deploy.remote.prepare import Job
    from nemotron_ops.deploy.steps.release import Request
    from nemotron_ops.installation import Installation
    from nemotron_ops.operations.targets import Targets


@dataclass(frozen=True, kw_only=True)
class DeployOptions:
    """What `deploy run` was asked for; empty fields mean the values of the group."""

    recipes: tuple[str, ...] = option("What to serve there. Repeatable. [default: the group's]", "--recipe", "-r")
    profile: str = option("Profile whose values become the server's defaults.")
    host: str = option("Address to listen on there [default: 127.0.0.1].")
    port: int | None = option("Port to listen on there [default: 8001].", type=click.IntRange(1, 65535))
    backend: str | None = choice(cuda="Build for NVIDIA GPUs there.", cpu="Build for the CPU there.")
    build: str = option(
        "Build llama.cpp there, or send this machine's current build; auto sends it where it fits.",
        default="auto",
        type=click.Choice(["auto", "there", "send"]),
        show_default=True,
    )
    send_models: bool = option("Send the models of this machine, instead of fetching them there.")
    in_place: bool = option("Do not try the new release beside the old one first.")
    keys: Path | None = option(
        "File of keys that clients must show, as `keys create` makes it; sent with the release.",
        "--api-keys",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
    )
    serve_options: tuple[str, ...] = option(
        "Additional word for `serve`. Repeatable.", "--serve-option", metavar="WORD"
    )
    balancer: Path | None = option(BALANCER, metavar="SOCKET")
    parallel: int = option("Targets at once, after the first has succeeded.", default=4, show_default=True)
    why: str = option("Reason, for the lock and the audit log.")
    force: bool = option("Deploy although it is there already, or although a person holds the lock.")
    yes: bool = option("Do not ask for confirmation.", "--yes", "-y")
    ready_s: int = option("Seconds to wait until models are loaded.", "--ready-timeout", default=3600)


@click.command()
@targets_argument
@options_of(DeployOptions)
@scope_option
@ssh_option
@dry_run_option
@progress_option
@json_option
def run(
    targets: tuple[str, ...], wanted: DeployOptions, system: bool | None, ssh_config: Path | None, dry_run: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Deploy to TARGETs: the first one alone, and the others once it serves.

    Until the new release has answered a question beside the old one, the serving release is not touched; if the new
    one fails after that, the old release is restored. A repeated run continues an interrupted one.
    """
    from nemotron_ops.deploy.remote.prepare import prepare_target
    from nemotron_ops.deploy.remote.rollout import roll_out

    with App() as app, open_targets(targets, app.installation, system=system, config=ssh_config) as reached:
        job = job_for(wanted, reached, app.installation)
        readies = [prepare_target(c, job, report=app.ui.report) for c in reached.connections]
        show_plan(app, readies, scripts=dry_run, as_json=as_json)
        if dry_run:
            return
        if not wanted.yes:
            click.confirm("Continue?", abort=True, err=True)
        outcomes, errors = roll_out(readies, job, parallel=wanted.parallel, report=app.ui.report)
        show_outcomes(app, outcomes, errors, as_json=as_json)
        if path := write_balancer_config(reached.group, app.installation, ssh_config=ssh_config):
            app.ui.say(f"{path.name}, beside targets.toml, makes HAProxy one endpoint for them: nemotron-ops balancer")


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
    from nemotron_ops.cli.serve_words import check_serve_options
    from nemotron_ops.deploy.steps.release import Request

    check_serve_options(wanted.serve_options)
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
