"""`reload`: changes what runs, without an outage. Control socket."""

from __future__ import annotations

import time
from typing import Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option


@click.command()
@click.option(
    "--exec", "exec_", is_flag=True, help="Then switch to the installed version of nemotron-ops; models stay loaded."
)
@click.option(
    "--strict", is_flag=True, help="A replacement must also reason, call tools and be as fast as the old one."
)
@click.option("--back", is_flag=True, help="Go back to the configuration from before the last reload.")
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time to wait for it.",
)
@dry_run_option
@json_option
def reload(exec_: bool, strict: bool, back: bool, timeout_s: float, dry_run: bool, as_json: bool) -> None:
    """Read recipes and settings again, and change only what differs.

    A changed instance is replaced by one that is up, has answered a canary prompt and takes the traffic before the old
    one drains; where memory does not allow two, requests wait while they are swapped. If the new one fails, the old
    one stays, and the command exits with 9. A configuration that cannot be used changes nothing.
    """
    from nemotron_ops.errors import EngineError, UsageError
    from nemotron_ops.supervisor.control import client

    with App() as app:
        if back and (dry_run or exec_):
            raise UsageError("cannot combine --back with --dry-run or --exec")
        if back:
            answer = client.request(app.layout, "rollback", timeout_s=timeout_s)
        else:
            answer = client.request(
                app.layout, "reload", timeout_s=timeout_s, exec=exec_, strict=strict, dry_run=dry_run
            )
        if exec_ and not dry_run:
            _wait_for_new(app, timeout_s)
        if as_json:
            app.ui.json(answer)
        else:
            for line in lines(answer):
                app.ui.say(line)
        if answer["failed"]:
            name, reason = next(iter(answer["failed"].items()))
            raise EngineError(
                f"cannot replace {name}: {reason}", hint="the old one still serves; see `nemotron-ops logs`"
            )


def lines(answer: dict[str, Any]) -> list[str]:
    """The supervisor's answer, for people."""
    named = [f"{what}: {', '.join(answer[what])}" for what in ("kept", "added", "replaced", "removed") if answer[what]]
    return named or ["nothing to change"]


def _wait_for_new(app: App, timeout_s: float) -> None:
    """Wait until the supervisor that replaced the old one answers. Raises ControlError."""
    from nemotron_ops.errors import ControlError
    from nemotron_ops.supervisor.control import client

    time.sleep(0.3)  # it answers before it restarts, and is then unreachable for a moment
    deadline = time.monotonic() + timeout_s
    while not client.running(app.layout):
        if time.monotonic() > deadline:
            raise ControlError("cannot reach the new version of the supervisor", hint="see `nemotron-ops logs`")
        time.sleep(0.1)
