"""`service install`: installs or updates the service, and shows the result. Prints, disk, systemctl."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option, progress_option
from nemotron_ops.cli.options import option, options_of
from nemotron_ops.cli.service_scope import agent_on_a_mac, scope_option, service_app

if TYPE_CHECKING:
    from nemotron_ops.operations.launchd_agent import Agent
    from nemotron_ops.operations.service import ServiceRequest
    from nemotron_ops.service.install import Installed
    from nemotron_ops.service.place import Place
    from nemotron_ops.service.spec import ServiceSpec


@dataclass(frozen=True, kw_only=True)
class InstallOptions:
    """What `service install` was asked for, besides the recipes."""

    profile: str = option("Profile whose values become the server's defaults.")
    host: str = option("Address to listen on. Beyond this machine, API keys are needed.")
    port: int | None = option("Port to listen on.", type=click.IntRange(1, 65535))
    keys: str = option(
        "Keys that clients must show; see `keys`. A system service gets a copy, as a credential.", "--api-keys",
        metavar="FILE",
    )  # fmt: skip
    gpu: str = option(
        "GPU to let through. auto: the current build's, or this machine's where there is none.", default="auto",
        type=click.Choice(["auto", "none", "cuda", "hip", "vulkan"]),
    )  # fmt: skip
    allow_from: tuple[str, ...] = option("Network that may connect (system service). Repeatable.", metavar="NET")
    memory_max: str = option("Memory limit of the whole service, in the format of MemoryMax=.")
    no_device_policy: bool = option("Allow all device nodes, for a GPU that is not found otherwise.")
    no_build: bool = option("Fail rather than build llama.cpp.")
    no_fetch: bool = option("Do not fetch models before the start.")
    no_start: bool = option("Install only.")
    ready_s: float = option("Seconds to wait until models are loaded.", "--ready-timeout", default=3600.0)
    options: tuple[str, ...] = option("Additional word for `serve`. Repeatable.", "--serve-option", metavar="WORD")
    take_over: bool = option("Replace the running program even if its units are up to date.")

    def request(self, recipes: tuple[str, ...]) -> ServiceRequest:
        """The service that the options mean. Raises UsageError if there is no such file of keys."""
        from nemotron_ops.operations.service import ServiceRequest, with_absolute_keys

        return with_absolute_keys(
            ServiceRequest(
                recipes=recipes,
                profile=self.profile,
                host=self.host,
                port=self.port,
                gpu=self.gpu,
                allow_from=self.allow_from,
                memory_max=self.memory_max,
                device_policy=not self.no_device_policy,
                options=self.options,
                keys=self.keys,
            )
        )


@click.command()
@click.argument("recipes", nargs=-1, required=True)
@scope_option
@options_of(InstallOptions)
@dry_run_option
@progress_option
@json_option
def install(
    recipes: tuple[str, ...], system: bool | None, wanted: InstallOptions, dry_run: bool, as_json: bool
) -> None:
    """Install the service for RECIPES, start it, and wait until it is ready.

    Builds llama.cpp and fetches the models first, if need be. A repeated run applies what is asked for now;
    loaded models that are still wanted stay loaded.
    """
    from nemotron_ops.cli.serve_words import serve_flags
    from nemotron_ops.operations.service import service_spec
    from nemotron_ops.service.granted import notes
    from nemotron_ops.service.place import place_for

    with service_app(system) as (app, scope):
        request = wanted.request(recipes)
        flags = serve_flags(recipes, wanted.options)
        spec = service_spec(request, scope, app.installation, serve_flags=flags)
        place = place_for(scope, app.layout, env=app.env)
        agent = agent_on_a_mac(app)
        for note in () if agent else notes(spec):
            app.ui.say(f"note: {note}")
        if dry_run:
            show_units(app, spec, place, agent, as_json=as_json)
            return
        prepare_service(app, wanted, spec, place, keys=request.keys, units=agent is None)
        if agent:
            agent.install(spec, place, start=not wanted.no_start, ready_s=wanted.ready_s)
            show_agent(app, agent, spec, started=not wanted.no_start, as_json=as_json)
            return
        from nemotron_ops.service import install as installing

        done = installing.install(
            spec, place, report=app.ui.report, start=not wanted.no_start, take_over=wanted.take_over,
            ready_s=wanted.ready_s,
        )  # fmt: skip
        show_installed(app, spec, done, as_json=as_json)


def prepare_service(
    app: App, wanted: InstallOptions, spec: ServiceSpec, place: Place, *, keys: str, units: bool
) -> None:
    """Everything the service needs before its start: root where units need it, keys, a build, models."""
    from nemotron_ops.operations.service import build_first, fetch_first
    from nemotron_ops.service import systemd
    from nemotron_ops.service.place import check_possible, install_keys

    if units:
        check_possible(spec, booted=systemd.booted(), uid=os.getuid())
    if keys and spec.system:
        install_keys(Path(keys), place)
    build_first(spec, place, app.installation, may_build=not wanted.no_build)
    app.ui.end_bars()
    if not wanted.no_fetch:
        fetch_first(spec, place, app.installation)


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


def show_agent(app: App, agent: Agent, spec: ServiceSpec, *, started: bool, as_json: bool) -> None:
    from nemotron_ops.service.words import address

    if as_json:
        app.ui.json(agent.status())
    elif started:
        app.ui.say(f"ready: http://{address(spec.host, spec.port)}/v1 (pid {agent.pid()})")
    else:
        app.ui.say(f"installed: {agent.path}")


def show_installed(app: App, spec: ServiceSpec, done: Installed, *, as_json: bool) -> None:
    from nemotron_ops.service import install as installing
    from nemotron_ops.service.commands import serve_argv
    from nemotron_ops.service.words import address

    lacks = installing.withheld(spec, done.status.pid) if done.status else ()
    for lack in lacks:
        app.ui.say(f"note: {lack}")
    if as_json:
        status = asdict(done.status) if done.status else None
        app.ui.json({"changed": done.changed, "status": status, "serve": serve_argv(spec), "withheld": lacks})
    elif done.status:
        app.ui.say(f"ready: http://{address(spec.host, spec.port)}/v1 (pid {done.status.pid})")
