"""`service …`: nemotron-ops under systemd or launchd. Disk, systemctl."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.errors import HostError, ServiceError, UsageError

if TYPE_CHECKING:
    from nemotron_ops.cli.service_agent import Agent
    from nemotron_ops.service.install import Installed, Place
    from nemotron_ops.service.units import Scope, ServiceSpec

scope_option = click.option(
    "--system/--user",
    "system",
    default=None,
    help="The machine's service or this user's. Default: as root the machine's.",
)

ON_A_MAC = platform.system() == "Darwin"


@click.group()
def service() -> None:
    """Install, watch and remove nemotron-ops as a service.

    A user service needs no root and goes on without a login; a system service runs as its own user in a sandbox.
    """


@service.command()
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
    from nemotron_ops.cli.service_spec import Asked, build_first, composed, fetch_first, with_absolute_keys
    from nemotron_ops.service import install as installing
    from nemotron_ops.service import systemd
    from nemotron_ops.service.units import notes

    with service_app(system) as (app, scope):
        asked = with_absolute_keys(Asked(
            recipes=recipes, profile=profile, host=host, port=port, gpu=gpu, allow_from=allow_from,
            memory_max=memory_max, device_policy=not no_device_policy, options=options, keys=keys,
        ))  # fmt: skip
        spec = composed(app, scope, asked)
        place = installing.place_for(scope, app.layout, env=app.env)
        agent = agent_on_a_mac(app)
        for note in () if agent else notes(spec):
            app.ui.say(f"note: {note}")
        if dry_run:
            show_units(app, spec, place, agent, as_json=as_json)
            return
        if not agent:
            installing.check_possible(spec, booted=systemd.booted(), uid=os.getuid())
        if keys and spec.system:
            installing.take_keys(Path(asked.keys), place)
        build_first(app, spec, place, may_build=not no_build)
        if not no_fetch:
            fetch_first(app, spec, place)
        if agent:
            agent.install(spec, place, start=not no_start, ready_s=ready_s)
            tell_agent(app, agent, spec, started=not no_start, as_json=as_json)
            return
        done = installing.install(
            spec, place, report=app.ui.report, start=not no_start, take_over=take_over, ready_s=ready_s
        )
        tell_installed(app, spec, done, as_json=as_json)


@service.command()
@scope_option
@json_option
def status(system: bool | None, as_json: bool) -> None:
    """What the service manager says of the service. Exit code 1 if it is not up."""
    from nemotron_ops.service import install as installing
    from nemotron_ops.service.systemd import Manager

    with service_app(system) as (app, scope):
        if agent := agent_on_a_mac(app):
            said = agent.status()
            app.ui.json(said) if as_json else app.ui.table(["WHAT", "VALUE"], [[k, str(v)] for k, v in said.items()])
            raise SystemExit(0 if said["up"] else 1)
        manager = Manager(scope=scope)
        manager.check()
        now = manager.status()
        spec = installing.recorded(installing.place_for(scope, app.layout, env=app.env))
        lacks = installing.withheld(spec, now.pid) if spec and now.up else ()
        if as_json:
            app.ui.json({"scope": scope.value, **asdict(now), "up": now.up, "withheld": lacks})
        else:
            rows: list[list[object]] = [["state", f"{now.active} ({now.sub})"], ["says", now.text], ["pid", now.pid],
                    ["restarts", now.restarts], ["at boot", now.enabled or "-"]]  # fmt: skip
            app.ui.table(["WHAT", "VALUE"], [*rows, *(["withheld", lack] for lack in lacks)])
        if not now.up:
            raise SystemExit(1)


@service.command()
@scope_option
@click.option("-f", "--follow", is_flag=True, help="Go on showing lines as they come.")
@click.option("-n", "--lines", default=100, show_default=True, help="Lines to begin with.")
@json_option
def logs(system: bool | None, follow: bool, lines: int, as_json: bool) -> None:
    """The service's journal; with --json one object per line, as journald has it."""
    from nemotron_ops.service.systemd import Manager

    with service_app(system) as (app, scope):
        if agent := agent_on_a_mac(app):
            argv = agent.logs_argv(follow=follow, lines=lines)
        else:
            manager = Manager(scope=scope)
            manager.check()
            argv = manager.follow_argv(follow=follow, lines=lines, as_json=as_json)
        os.execvp(argv[0], argv)


@service.command()
@scope_option
@click.option("--reload-models", is_flag=True, help="Stop the models too, and load them again.")
@click.option("--ready-timeout", "ready_s", type=float, default=3600.0, help="Seconds to wait until it is ready.")
@json_option
def restart(system: bool | None, reload_models: bool, ready_s: float, as_json: bool) -> None:
    """Start the service's program afresh. Loaded models stay loaded, and no connection is refused meanwhile."""
    from nemotron_ops.service import install as installing
    from nemotron_ops.service.systemd import Manager

    with service_app(system) as (app, scope):
        if agent := agent_on_a_mac(app):
            agent.restart(reload_models=reload_models, ready_s=ready_s)
            app.ui.json(agent.status()) if as_json else app.ui.say(f"ready (pid {agent.pid()})")
            return
        Manager(scope=scope).check()
        needs_units(app, scope)
        act = installing.restart if reload_models else installing.hand_over
        now = act(scope, report=app.ui.report, ready_s=ready_s)
        app.ui.json(asdict(now)) if as_json else app.ui.say(f"ready (pid {now.pid})")


@service.command()
@scope_option
@json_option
def stop(system: bool | None, as_json: bool) -> None:
    """Drain and stop the service, its models and its socket. It starts again at the next boot."""
    from nemotron_ops.service import install as installing
    from nemotron_ops.service.systemd import Manager

    with service_app(system) as (app, scope):
        if agent := agent_on_a_mac(app):
            agent.stop()
        else:
            Manager(scope=scope).check()
            needs_units(app, scope)
            installing.stop(scope)
        app.ui.json({"stopped": True}) if as_json else app.ui.say("stopped")


@service.command()
@scope_option
@click.option("--ready-timeout", "ready_s", type=float, default=3600.0, help="Seconds to wait until it is ready.")
@json_option
def upgrade(system: bool | None, ready_s: float, as_json: bool) -> None:
    """After this program was upgraded: bring the units up to date and hand over to the new version.

    What recipes, settings, keys and builds say now is looked up again. If the new version does not come up, the units
    are put back as they were; the program itself stays the new one (`deploy` keeps releases side by side).
    """
    from nemotron_ops.cli.service_spec import asked_before, build_first, composed
    from nemotron_ops.service import install as installing
    from nemotron_ops.service.systemd import Manager

    with service_app(system) as (app, scope):
        agent = agent_on_a_mac(app)
        if not agent:
            Manager(scope=scope).check()
        old = needs_service(app, scope)
        spec = composed(app, scope, asked_before(old))
        place = installing.place_for(scope, app.layout, env=app.env)
        build_first(app, spec, place, may_build=False)
        if agent:
            agent.install(spec, place, start=False, ready_s=ready_s)
            agent.restart(reload_models=False, ready_s=ready_s)
            app.ui.json(agent.status()) if as_json else app.ui.say(f"ready (pid {agent.pid()})")
            return
        now = installing.upgrade(spec, place, report=app.ui.report, ready_s=ready_s)
        app.ui.json(asdict(now)) if as_json else app.ui.say(f"ready (pid {now.pid})")


@service.command()
@scope_option
@click.option("--purge", is_flag=True, help="Remove models, builds, recipes and the service's user too.")
@dry_run_option
@json_option
def uninstall(system: bool | None, purge: bool, dry_run: bool, as_json: bool) -> None:
    """Stop the service and remove it. Models and builds stay, unless --purge."""
    from nemotron_ops.service import install as installing
    from nemotron_ops.service.systemd import Manager

    with service_app(system) as (app, scope):
        place = installing.place_for(scope, app.layout, env=app.env)
        agent = agent_on_a_mac(app)
        if not agent:
            Manager(scope=scope).check()
        removed: tuple[str, ...] = ()
        if agent:
            removed = ((str(agent.path),) if agent.installed else ()) if dry_run else agent.uninstall()
        removed += installing.doomed(place, purge=purge) if dry_run else installing.uninstall(place, purge=purge)
        app.ui.json({"removed": removed}) if as_json else app.ui.data("\n".join(removed) or "nothing was installed")


@service.command("check-gpu")
@click.argument("kind", type=click.Choice(["cuda", "hip", "vulkan"]))
@click.option("--within", "within_s", type=float, default=0.0, help="Seconds to wait for it.")
@json_option
def check_gpu(kind: str, within_s: float, as_json: bool) -> None:
    """Fail if llama-server does not see the GPU that the service is meant for (yet).

    Units run this before each start, as the service's user and in its sandbox: device nodes first, then what the
    current build lists.
    """
    from nemotron_ops.cli.gpu_sight import look_for_gpu
    from nemotron_ops.service.gpu import refusal

    app, deadline = App(), time.monotonic() + within_s
    while True:
        seen = look_for_gpu(app, kind)
        why, hint = refusal(kind, seen)
        if not why or time.monotonic() >= deadline:
            break
        time.sleep(0.5)
    if as_json:
        app.ui.json({"kind": kind, "missing": seen.lacking, "build": seen.backend, "devices": seen.devices, "why": why})
    if why:
        raise HostError(f"cannot start on {kind}: {why}", hint=hint, log_tail=seen.said)


class service_app:
    """`with service_app(system) as (app, scope)`: the App whose layout is that of the chosen scope."""

    def __init__(self, system: bool | None) -> None:
        from nemotron_ops.service.units import Scope

        if ON_A_MAC and system:
            raise UsageError("cannot use a system service on a Mac: launchd runs the agent of this user")
        if system is None:
            system = os.getuid() == 0 and not ON_A_MAC
        self._scope = Scope.SYSTEM if system else Scope.USER
        env = dict(os.environ)
        if system:
            env["NEMOTRON_OPS_SYSTEM"] = "1"
        elif "XDG_RUNTIME_DIR" not in env:
            env["XDG_RUNTIME_DIR"] = f"/run/user/{os.getuid()}"
            os.environ["XDG_RUNTIME_DIR"] = env["XDG_RUNTIME_DIR"]  # systemctl --user finds its manager there
        self._app = App(env=env)

    def __enter__(self) -> tuple[App, Scope]:
        return self._app, self._scope

    def __exit__(self, *exc: object) -> None:
        self._app.ui.end_bars()


def agent_on_a_mac(app: App) -> Agent | None:
    """The launchd agent, where launchd is the service manager."""
    if not ON_A_MAC:
        return None
    from nemotron_ops.cli.service_agent import Agent

    return Agent(app)


def needs_units(app: App, scope: Scope) -> None:
    """Raises ServiceError if no service is installed in this scope."""
    from nemotron_ops.service import install as installing

    if not installing.units_in(installing.place_for(scope, app.layout, env=app.env)):
        raise not_installed(scope)


def needs_service(app: App, scope: Scope) -> ServiceSpec:
    """What is installed. Raises ServiceError if nothing is."""
    from nemotron_ops.service import install as installing

    spec = installing.recorded(installing.place_for(scope, app.layout, env=app.env))
    if spec is None:
        raise not_installed(scope)
    return spec


def not_installed(scope: Scope) -> ServiceError:
    other = "user" if scope.value == "system" else "system"
    return ServiceError(
        f"cannot find the {scope.value} service: none is installed",
        hint=f"nemotron-ops service install RECIPE; or did you mean the {other} service (--{other})?",
    )


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
