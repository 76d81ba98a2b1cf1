"""`service …`: nemotron-ops under systemd or launchd. Disk, systemctl."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.errors import HostError, ServiceError, UsageError

if TYPE_CHECKING:
    from nemotron_ops.service.install import Place
    from nemotron_ops.service.units import Scope, ServiceSpec

scope_option = click.option(
    "--system/--user",
    "system",
    default=None,
    help="The machine's service or this user's. Default: as root the machine's.",
)


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
    "--gpu", type=click.Choice(["auto", "none", "cuda", "hip", "vulkan"]), default="auto", help="GPU to let through."
)
@click.option(
    "--allow-from", multiple=True, metavar="NET", help="Network that may connect (system service). Repeatable."
)
@click.option("--memory-max", default="", help="Memory limit of the whole service, as MemoryMax= wants it.")
@click.option(
    "--no-device-policy", is_flag=True, help="Leave all device nodes open, where a GPU is not found otherwise."
)
@click.option("--no-fetch", is_flag=True, help="Do not fetch models before the start.")
@click.option("--no-start", is_flag=True, help="Install only.")
@click.option("--ready-timeout", "ready_s", type=float, default=3600.0, help="Seconds to wait until models are loaded.")
@click.option("--serve-option", "options", multiple=True, metavar="WORD", help="Further word for `serve`. Repeatable.")
@click.option("--take-over", is_flag=True, help="Replace the running program even if its units are as they should be.")
@dry_run_option
@json_option
def install(
    recipes: tuple[str, ...], system: bool | None, profile: str, host: str, port: int | None, gpu: str,
    allow_from: tuple[str, ...], memory_max: str, no_device_policy: bool, no_fetch: bool, no_start: bool,
    ready_s: float, options: tuple[str, ...], take_over: bool, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Install the service for RECIPES, start it, and wait until it is ready.

    Doing it again brings the service to what is asked for now; loaded models that stay wanted stay loaded.
    """
    from nemotron_ops.service import install as installing
    from nemotron_ops.service import systemd
    from nemotron_ops.service.units import notes, serve_argv
    from nemotron_ops.service.words import address

    with service_app(system) as (app, scope):
        spec = composed(app, scope, recipes=recipes, profile=profile, host=host, port=port, gpu=gpu)
        spec = replace(
            spec, allow_from=allow_from, memory_max=memory_max, device_policy=not no_device_policy, options=options
        )
        if sys.platform == "darwin":
            install_agent(app, spec, dry_run=dry_run)
            return
        place = installing.place_for(scope, app.layout, env=app.env)
        for note in notes(spec):
            app.ui.say(f"note: {note}")
        if dry_run:
            show_units(app, spec, place, as_json=as_json)
            return
        installing.check_possible(spec, booted=systemd.booted(), uid=os.getuid())
        if not no_fetch:
            fetch_first(app, spec)
        done = installing.install(
            spec, place, report=app.ui.report, start=not no_start, take_over=take_over, ready_s=ready_s
        )
        lacks = installing.withheld(spec, done.status.pid) if done.status else ()
        for lack in lacks:
            app.ui.say(f"note: {lack}")
        if as_json:
            status = asdict(done.status) if done.status else None
            app.ui.json({"changed": done.changed, "status": status, "serve": serve_argv(spec), "withheld": lacks})
        elif done.status:
            app.ui.say(f"ready: http://{address(spec.host, spec.port)}/v1 (pid {done.status.pid})")


@service.command()
@scope_option
@json_option
def status(system: bool | None, as_json: bool) -> None:
    """What the service manager says of the service. Exit code 1 if it is not up."""
    from nemotron_ops.service import install as installing
    from nemotron_ops.service.systemd import Manager

    with service_app(system) as (app, scope):
        now = Manager(scope=scope).status()
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

    with service_app(system) as (_, scope):
        argv = Manager(scope=scope).follow_argv(follow=follow, lines=lines, as_json=as_json)
        os.execvp(argv[0], argv)


@service.command()
@scope_option
@click.option("--reload-models", is_flag=True, help="Stop the models too, and load them again.")
@click.option("--ready-timeout", "ready_s", type=float, default=3600.0, help="Seconds to wait until it is ready.")
@json_option
def restart(system: bool | None, reload_models: bool, ready_s: float, as_json: bool) -> None:
    """Start the service's program afresh. Loaded models stay loaded, and no connection is refused meanwhile."""
    from nemotron_ops.service import install as installing

    with service_app(system) as (app, scope):
        act = installing.restart if reload_models else installing.hand_over
        now = act(scope, report=app.ui.report, ready_s=ready_s)
        app.ui.json(asdict(now)) if as_json else app.ui.say(f"ready (pid {now.pid})")


@service.command()
@scope_option
@json_option
def stop(system: bool | None, as_json: bool) -> None:
    """Drain and stop the service, its models and its socket. It starts again at the next boot."""
    from nemotron_ops.service import install as installing

    with service_app(system) as (app, scope):
        installing.stop(scope)
        app.ui.json({"stopped": True}) if as_json else app.ui.say("stopped")


@service.command()
@scope_option
@click.option("--ready-timeout", "ready_s", type=float, default=3600.0, help="Seconds to wait until it is ready.")
@json_option
def upgrade(system: bool | None, ready_s: float, as_json: bool) -> None:
    """After this program was upgraded: bring the units up to date and hand over to the new version.

    If the new version does not come up, the old units are put back and its failure is shown.
    """
    from nemotron_ops.service import install as installing

    with service_app(system) as (app, scope):
        place = installing.place_for(scope, app.layout, env=app.env)
        old = installing.recorded(place)
        if old is None:
            raise ServiceError(
                "cannot upgrade the service: none is installed", hint="nemotron-ops service install RECIPE"
            )
        now = installing.upgrade(old, replace(old, program=program()), place, report=app.ui.report, ready_s=ready_s)
        app.ui.json(asdict(now)) if as_json else app.ui.say(f"ready (pid {now.pid})")


@service.command()
@scope_option
@click.option("--purge", is_flag=True, help="Remove models, builds, recipes and the service's user too.")
@dry_run_option
@json_option
def uninstall(system: bool | None, purge: bool, dry_run: bool, as_json: bool) -> None:
    """Stop the service and remove it. Models and builds stay, unless --purge."""
    from nemotron_ops.service import install as installing

    with service_app(system) as (app, scope):
        place = installing.place_for(scope, app.layout, env=app.env)
        removed = installing.doomed(place, purge=purge) if dry_run else installing.uninstall(place, purge=purge)
        app.ui.json({"removed": removed}) if as_json else app.ui.data("\n".join(removed) or "nothing was installed")


@service.command("check-gpu")
@click.argument("kind", type=click.Choice(["cuda", "hip", "vulkan"]))
@click.option("--within", "within_s", type=float, default=0.0, help="Seconds to wait for it.")
@json_option
def check_gpu(kind: str, within_s: float, as_json: bool) -> None:
    """Fail if the GPU that the service is meant for is not there (yet). Units run this before each start."""
    from nemotron_ops.service.gpu import missing_nodes

    deadline = time.monotonic() + within_s
    while lacking := missing_nodes(kind, present=lambda pattern: any(Path("/").glob(pattern.lstrip("/")))):
        if time.monotonic() >= deadline:
            break
        time.sleep(0.5)
    if as_json:
        App().ui.json({"kind": kind, "missing": lacking})
    if lacking:
        raise HostError(
            f"cannot start on {kind}: no {' and no '.join(lacking)}",
            hint="the driver is not loaded, or the unit's DevicePolicy= hides it (service install --no-device-policy)",
        )


class service_app:
    """`with service_app(system) as (app, scope)`: the App whose layout is that of the chosen scope."""

    def __init__(self, system: bool | None) -> None:
        from nemotron_ops.service.units import Scope

        if system is None:
            system = os.getuid() == 0
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


def composed(
    app: App, scope: Scope, *, recipes: tuple[str, ...], profile: str, host: str, port: int | None, gpu: str
) -> ServiceSpec:
    """The ServiceSpec for what the command line says, completed from recipes, settings and this machine."""
    from nemotron_ops.recipes.load import load_settings, recipe_for
    from nemotron_ops.recipes.resolve import resolve
    from nemotron_ops.service.units import CREDENTIALS, Scope, ServiceSpec

    flags = {"host": host or None, "port": port}
    settings = load_settings(app.layout)
    plans = [
        resolve(recipe_for(r, app.layout), profile=profile, settings=settings, env=app.env, flags=flags)
        for r in recipes
    ]
    return ServiceSpec(
        scope=scope,
        program=program(),
        recipes=recipes,
        host=plans[0].value("host"),
        port=plans[0].value("port"),
        profile=profile,
        prio=max(int(p.value("prio") or 0) for p in plans),
        mlock=any("mlock" in str(p.value("load_mode") or "") for p in plans),
        gpu=gpu_kind(app) if gpu == "auto" else gpu.replace("none", ""),
        api_keys=scope is Scope.SYSTEM and Path(CREDENTIALS, "api-keys").exists(),
        hub_token=scope is Scope.SYSTEM and Path(CREDENTIALS, "hub-token").exists(),
    )


def gpu_kind(app: App) -> str:
    """The kind of GPU this machine has, or ""."""
    kinds = [g.kind for g in app.facts.gpus]
    return next((k for k in ("cuda", "hip", "vulkan") if k in kinds), "")


def program() -> str:
    """The path of this very program, as a unit has to name it: through `current`, where a deploy installed it."""
    path = Path(shutil.which(sys.argv[0]) or "").absolute()
    if path.name != "nemotron-ops" or not path.exists():
        path = Path(sys.executable).parent / "nemotron-ops"
    if not path.exists():
        raise UsageError("cannot tell which program the service shall run: nemotron-ops is not installed as a command")
    return str(path)


def show_units(app: App, spec: ServiceSpec, place: Place, *, as_json: bool) -> None:
    from nemotron_ops.service.units import unit_files

    files = {str(place.units / name): text for name, text in unit_files(spec).items()}
    if as_json:
        app.ui.json(files)
    for path, text in {} if as_json else files.items():
        app.ui.data(f"# {path}\n{text}")


def fetch_first(app: App, spec: ServiceSpec) -> None:
    """Have the models before the service starts, because it has no way out: as the service's user, or as this one."""
    from nemotron_ops.proc import run_lines
    from nemotron_ops.service import install as installing
    from nemotron_ops.service.units import Scope

    if spec.scope is Scope.SYSTEM:
        place = installing.place_for(spec.scope, app.layout, env=app.env)
        installing.prepare(spec, place, report=app.ui.report)
        return
    for recipe in spec.recipes:
        done = run_lines([spec.program, "fetch", recipe], on_line=app.ui.say)
        if not done.ok:
            raise ServiceError(
                f"cannot fetch {recipe}: exit code {done.returncode}", log_tail=tuple(done.stdout.splitlines()[-10:])
            )


def install_agent(app: App, spec: ServiceSpec, *, dry_run: bool) -> None:
    """The launchd agent of this user (macOS)."""
    from nemotron_ops.files import write_atomic
    from nemotron_ops.proc import run
    from nemotron_ops.service import launchd

    home = Path(app.env["HOME"])
    path, content = launchd.agent_path(home), launchd.agent(spec, home=home)
    if dry_run:
        app.ui.data(f"# {path}\n{content.decode()}")
        return
    write_atomic(path, content)
    run(launchd.unload_argv(os.getuid()))
    done = run(launchd.load_argv(os.getuid(), path))
    if not done.ok:
        raise ServiceError(f"cannot load the launchd agent: {done.stderr.strip()}")
    app.ui.say(f"loaded {path}; its log: {home}/Library/Logs/nemotron-ops.log")
