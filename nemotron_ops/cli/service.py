"""`service …`: nemotron-ops under systemd or launchd. Prints, disk, systemctl."""

from __future__ import annotations

import os
import time
from dataclasses import asdict

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.cli.service_install import install
from nemotron_ops.cli.service_scope import agent_on_a_mac, needs_service, needs_units, scope_option, service_app
from nemotron_ops.errors import HostError


@click.group()
def service() -> None:
    """Install, watch and remove nemotron-ops as a service.

    A user service needs no root and runs without a login; a system service runs as its own user in a sandbox.
    """


service.add_command(install)


@service.command()
@scope_option
@json_option
def status(system: bool | None, as_json: bool) -> None:
    """Show the service's state. Exit code 1 if it is not up."""
    from nemotron_ops.service import install as installing
    from nemotron_ops.service.place import installed_spec, place_for
    from nemotron_ops.service.systemd import Manager

    with service_app(system) as (app, scope):
        if agent := agent_on_a_mac(app):
            said = agent.status()
            app.ui.json(said) if as_json else app.ui.table(["WHAT", "VALUE"], [[k, str(v)] for k, v in said.items()])
            raise SystemExit(0 if said["up"] else 1)
        manager = Manager(scope=scope)
        manager.check()
        now = manager.status()
        spec = installed_spec(place_for(scope, app.layout, env=app.env))
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
@click.option("-f", "--follow", is_flag=True, help="Keep showing new lines.")
@click.option("-n", "--lines", default=100, show_default=True, help="Lines to start with.")
@json_option
def logs(system: bool | None, follow: bool, lines: int, as_json: bool) -> None:
    """Show the service's journal; with --json one object per line, in journald's format."""
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
    """Restart the service's program. Loaded models stay loaded, and no connection is refused meanwhile."""
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

    Recipes, settings, keys and builds are read again. If the new version does not come up, the units are restored; the
    program itself stays the new one (`deploy` keeps releases side by side).
    """
    from nemotron_ops.cli.serve_words import serve_flags
    from nemotron_ops.operations.service import build_first, request_again, service_spec
    from nemotron_ops.service import install as installing
    from nemotron_ops.service.place import place_for
    from nemotron_ops.service.systemd import Manager

    with service_app(system) as (app, scope):
        agent = agent_on_a_mac(app)
        if not agent:
            Manager(scope=scope).check()
        old = needs_service(app, scope)
        request, flags = request_again(old), serve_flags(old.recipes, old.options)
        spec = service_spec(request, scope, app.installation, serve_flags=flags)
        place = place_for(scope, app.layout, env=app.env)
        build_first(spec, place, app.installation, may_build=False)
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
    from nemotron_ops.service.place import place_for, removed_by_uninstall
    from nemotron_ops.service.systemd import Manager

    with service_app(system) as (app, scope):
        place = place_for(scope, app.layout, env=app.env)
        agent = agent_on_a_mac(app)
        if not agent:
            Manager(scope=scope).check()
        removed: tuple[str, ...] = ()
        if agent:
            removed = ((str(agent.path),) if agent.installed else ()) if dry_run else agent.uninstall()
        removed += removed_by_uninstall(place, purge=purge) if dry_run else installing.uninstall(place, purge=purge)
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
    from nemotron_ops.operations.gpu_sight import look_for_gpu
    from nemotron_ops.service.gpu import refusal

    app, deadline = App(), time.monotonic() + within_s
    while True:
        seen = look_for_gpu(app.layout, kind)
        why, hint = refusal(kind, seen)
        if not why or time.monotonic() >= deadline:
            break
        time.sleep(0.5)
    if as_json:
        app.ui.json({"kind": kind, "missing": seen.missing, "build": seen.backend, "devices": seen.devices, "why": why})
    if why:
        raise HostError(f"cannot start on {kind}: {why}", hint=hint, log_tail=seen.output)
