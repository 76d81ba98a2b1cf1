"""`service install`: brings the service to what is asked for, and says what came of it. Prints, disk, systemctl."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.cli.service_scope import agent_on_a_mac, scope_option, service_app

if TYPE_CHECKING:
    from nemotron_ops.operations.launchd_agent import Agent
    from nemotron_ops.service.install import Installed
    from nemotron_ops.service.place import Place
    from nemotron_ops.service.units import ServiceSpec


@click.command()
@click.argument("recipes", nargs=-1, required=True)
@scope_option
@click.option("--profile", default="", help="Profile whose values become the server's defaults.")
@click.option("--host", default="", help="Address to listen on. Beyond this machine, API keys are needed.")
@click.option("--port", type=click.IntRange(1, 65535), default=None, help="Port to listen on.")
@click.option(
    "--api-keys", "keys", default="", metavar="FILE",
    help="Keys that clients must show; see `keys`. A system service gets a copy, as a credential.",
)  # fmt: skip
@click.option(
    "--gpu", type=click.Choice(["auto", "none", "cuda", "hip", "vulkan"]), default="auto",
    help="GPU to let through. auto: the current build's, or this machine's where there is none.",
)  # fmt: skip
@click.option(
    "--allow-from", multiple=True, metavar="NET", help="Network that may connect (system service). Repeatable."
)
@click.option("--memory-max", default="", help="Memory limit of the whole service, as MemoryMax= wants it.")
@click.option(
    "--no-device-policy", is_flag=True, help="Leave all device nodes open, where a GPU is not found otherwise."
)
@click.option("--no-build", is_flag=True, help="Fail rather than build llama.cpp.")
@click.option("--no-fetch", is_flag=True, help="Do not fetch models before the start.")
@click.option("--no-start", is_flag=True, help="Install only.")
@click.option("--ready-timeout", "ready_s", type=float, default=3600.0, help="Seconds to wait until models are loaded.")
@click.option("--serve-option", "options", multiple=True, metavar="WORD", help="Further word for `serve`. Repeatable.")
@click.option("--take-over", is_flag=True, help="Replace the running program even if its units are as they should be.")
@dry_run_option
@json_option
def install(
    recipes: tuple[str, ...], system: bool | None, profile: str, host: str, port: int | None, keys: str, gpu: str,
    allow_from: tuple[str, ...], memory_max: str, no_device_policy: bool, no_build: bool, no_fetch: bool,
    no_start: bool, ready_s: float, options: tuple[str, ...], take_over: bool, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Install the service for RECIPES, start it, and wait until it is ready.

    Builds llama.cpp and fetches the models first, if need be. Doing it again brings the service to what is asked for
    now; loaded models that stay wanted stay loaded.
    """
    from nemotron_ops.cli.serve_words import serve_flags
    from nemotron_ops.operations.service import (
        ServiceRequest,
        build_first,
        fetch_first,
        service_spec,
        with_absolute_keys,
    )
    from nemotron_ops.service import install as installing
    from nemotron_ops.service import systemd
    from nemotron_ops.service.place import check_possible, place_for, take_keys
    from nemotron_ops.service.units import notes

    with service_app(system) as (app, scope):
        request = with_absolute_keys(ServiceRequest(
            recipes=recipes, profile=profile, host=host, port=port, gpu=gpu, allow_from=allow_from,
            memory_max=memory_max, device_policy=not no_device_policy, options=options, keys=keys,
        ))  # fmt: skip
        spec = service_spec(request, scope, app.installation, serve_flags=serve_flags(recipes, options))
        place = place_for(scope, app.layout, env=app.env)
        agent = agent_on_a_mac(app)
        for note in () if agent else notes(spec):
            app.ui.say(f"note: {note}")
        if dry_run:
            show_units(app, spec, place, agent, as_json=as_json)
            return
        if not agent:
            check_possible(spec, booted=systemd.booted(), uid=os.getuid())
        if keys and spec.system:
            take_keys(Path(request.keys), place)
        build_first(spec, place, app.installation, may_build=not no_build)
        app.ui.end_bars()
        if not no_fetch:
            fetch_first(spec, place, app.installation)
        if agent:
            agent.install(spec, place, start=not no_start, ready_s=ready_s)
            tell_agent(app, agent, spec, started=not no_start, as_json=as_json)
            return
        done = installing.install(
            spec, place, report=app.ui.report, start=not no_start, take_over=take_over, ready_s=ready_s
        )
        tell_installed(app, spec, done, as_json=as_json)


def show_units(app: App, spec: ServiceSpec, place: Place, agent: Agent | None, *, as_json: bool) -> None:
    from nemotron_ops.service.units import unit_files

    if agent:
        files = {str(agent.path): agent.plist(spec)}
    else:
        files = {str(place.units / name): text for name, text in unit_files(spec).items()}
    if as_json:
        app.ui.json(files)
    for path, text in {} if as_json else files.items():
        app.ui.data(f"# {path}\n{text}")


def tell_agent(app: App, agent: Agent, spec: ServiceSpec, *, started: bool, as_json: bool) -> None:
    from nemotron_ops.service.words import address

    if as_json:
        app.ui.json(agent.status())
    elif started:
        app.ui.say(f"ready: http://{address(spec.host, spec.port)}/v1 (pid {agent.pid()})")
    else:
        app.ui.say(f"installed: {agent.path}")


def tell_installed(app: App, spec: ServiceSpec, done: Installed, *, as_json: bool) -> None:
    from nemotron_ops.service import install as installing
    from nemotron_ops.service.units import serve_argv
    from nemotron_ops.service.words import address

    lacks = installing.withheld(spec, done.status.pid) if done.status else ()
    for lack in lacks:
        app.ui.say(f"note: {lack}")
    if as_json:
        status = asdict(done.status) if done.status else None
        app.ui.json({"changed": done.changed, "status": status, "serve": serve_argv(spec), "withheld": lacks})
    elif done.status:
        app.ui.say(f"ready: http://{address(spec.host, spec.port)}/v1 (pid {done.status.pid})")
