"""Which service `service …` works on, the machine's or this user's, and its installed spec. Disk."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import click

from nemotron_ops.cli.app import App
from nemotron_ops.errors import ServiceError, UsageError

if TYPE_CHECKING:
    from nemotron_ops.operations.launchd_agent import Agent
    from nemotron_ops.service.spec import Scope, ServiceSpec

scope_option = click.option(
    "--system/--user",
    "system",
    default=None,
    help="The machine's service or this user's. Default: as root the machine's.",
)

ON_A_MAC = platform.system() == "Darwin"


class service_app:
    """`with service_app(system) as (app, scope)`: the App whose layout is that of the chosen scope."""

    def __init__(self, system: bool | None) -> None:
        from nemotron_ops.service.spec import Scope

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
    from nemotron_ops.operations.launchd_agent import Agent

    return Agent(app.installation)


def needs_units(app: App, scope: Scope) -> None:
    """Raises ServiceError if no service is installed in this scope."""
    from nemotron_ops.service.place import place_for, units_in

    if not units_in(place_for(scope, app.layout, env=app.env)):
        raise not_installed(scope)


def needs_service(app: App, scope: Scope) -> ServiceSpec:
    """The installed spec. Raises ServiceError if no service is installed."""
    from nemotron_ops.service.place import installed_spec, place_for

    spec = installed_spec(place_for(scope, app.layout, env=app.env))
    if spec is None:
        raise not_installed(scope)
    return spec


def not_installed(scope: Scope) -> ServiceError:
    other = "user" if scope.value == "system" else "system"
    return ServiceError(
        f"cannot find the {scope.value} service: none is installed",
        hint=f"nemotron-ops service install RECIPE; or did you mean the {other} service (--{other})?",
    )
