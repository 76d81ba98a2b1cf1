"""`stop`, `start`, `restart`, `drain`: changes which instances run. Control socket."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option

POLL_S = 0.1
names_argument = click.argument("names", nargs=-1, metavar="[INSTANCE|MODEL]...")
no_wait_option = click.option("--no-wait", is_flag=True, help="Return at once instead of when it is done.")
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=float,
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time to wait for it.",
)


@click.command()
@names_argument
@click.option("--now", is_flag=True, help="Do not wait for requests in flight.")
@no_wait_option
@timeout_option
@dry_run_option
@json_option
def stop(names: tuple[str, ...], now: bool, no_wait: bool, timeout_s: float, dry_run: bool, as_json: bool) -> None:
    """Drain and stop the named instances, or everything and the supervisor.

    A named instance stays stopped, also over a restart of the supervisor, until `start`. Without a running supervisor,
    what a killed one left behind is stopped.
    """
    from nemotron_ops.supervisor.control import client
    from nemotron_ops.supervisor.records import lock

    with App() as app:
        if lock.holder(app.layout) is None:
            _stop_leftovers(app, names, dry_run=dry_run, as_json=as_json)
            return
        if dry_run:
            _plan(app, "stop", names, as_json=as_json)
            return
        answer = client.request(app.layout, "stop", names=list(names), now=now)
        if not no_wait and not names:
            _wait(app, lambda: lock.holder(app.layout) is None, timeout_s)
        elif not no_wait:
            _wait(app, lambda: _all(app, answer["instances"], ("stopped", "failed")), timeout_s)
        _done(app, answer, as_json=as_json, text="stopped")


@click.command()
@names_argument
@no_wait_option
@timeout_option
@dry_run_option
@json_option
def start(names: tuple[str, ...], no_wait: bool, timeout_s: float, dry_run: bool, as_json: bool) -> None:
    """Start instances that are stopped or failed, and put drained ones back into traffic."""
    _ask(names, "start", no_wait=no_wait, timeout_s=timeout_s, dry_run=dry_run, as_json=as_json)


@click.command()
@names_argument
@no_wait_option
@timeout_option
@dry_run_option
@json_option
def restart(names: tuple[str, ...], no_wait: bool, timeout_s: float, dry_run: bool, as_json: bool) -> None:
    """Drain, stop and start instances again; requests wait meanwhile. Clears a failure."""
    _ask(names, "restart", no_wait=no_wait, timeout_s=timeout_s, dry_run=dry_run, as_json=as_json)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="INSTANCE|MODEL...")
@no_wait_option
@timeout_option
@dry_run_option
@json_option
def drain(names: tuple[str, ...], no_wait: bool, timeout_s: float, dry_run: bool, as_json: bool) -> None:
    """Take instances out of traffic while their models stay loaded; `start` puts them back.

    Returns when their last request has ended.
    """
    from nemotron_ops.supervisor.control import client

    with App() as app:
        if dry_run:
            _plan(app, "drain", names, as_json=as_json)
            return
        answer = client.request(app.layout, "drain", names=list(names))
        if not no_wait:
            _wait(app, lambda: _idle(app, answer["instances"]), timeout_s)
        _done(app, answer, as_json=as_json, text="drained")


def _ask(names: Sequence[str], verb: str, *, no_wait: bool, timeout_s: float, dry_run: bool, as_json: bool) -> None:
    from nemotron_ops.errors import EngineError
    from nemotron_ops.supervisor.control import client

    with App() as app:
        if dry_run:
            _plan(app, verb, names, as_json=as_json)
            return
        before = {i["name"]: i["pid"] for i in client.request(app.layout, "status")["instances"]}
        answer = client.request(app.layout, verb, names=list(names))
        if not no_wait:
            if verb == "restart":
                _wait(app, lambda: _changed(app, answer["instances"], before), timeout_s)
            for instance in _settled(app, answer["instances"], timeout_s):
                if instance["state"] == "failed":
                    raise EngineError(
                        f"cannot {verb} {instance['name']}: {instance['reason']}",
                        hint=instance["hint"] or None, log_tail=tuple(instance["log_tail"]),
                    )  # fmt: skip
        _done(app, answer, as_json=as_json, text="asked" if no_wait else "ready")


def _stop_leftovers(app: App, names: Sequence[str], *, dry_run: bool, as_json: bool) -> None:
    from nemotron_ops.errors import ControlError
    from nemotron_ops.supervisor.records import leftovers

    if names:
        raise ControlError(
            "cannot stop an instance: no supervisor is running", hint="start one with `nemotron-ops serve`"
        )
    stopped = [] if dry_run else leftovers.stop_leftovers(app.layout)
    if as_json:
        app.ui.json({"ok": True, "instances": stopped, "supervisor": None, "dry_run": dry_run})
    elif stopped:
        app.ui.say(f"no supervisor was running; stopped what it left: {', '.join(stopped)}")
    else:
        app.ui.say("nothing is running")


def _plan(app: App, verb: str, names: Sequence[str], *, as_json: bool) -> None:
    """Show the instances that `verb` would change."""
    from nemotron_ops.supervisor.control import client

    instances = client.request(app.layout, "status")["instances"]
    meant = [i["name"] for i in instances if not names or {i["name"], i["instance"], i["model"]} & set(names)]
    if as_json:
        app.ui.json({"dry_run": True, "verb": verb, "instances": meant})
    else:
        app.ui.data(f"would {verb}: {', '.join(meant) or 'nothing'}")


def _done(app: App, answer: dict[str, Any], *, as_json: bool, text: str) -> None:
    if as_json:
        app.ui.json(answer)
    else:
        app.ui.say(f"{text}: {', '.join(answer.get('instances', ())) or 'everything'}")


def _wait(app: App, true: Callable[[], bool], timeout_s: float) -> None:
    from nemotron_ops.errors import ControlError

    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise ControlError(
                f"cannot wait any longer: not done after {timeout_s:g} s", hint="it continues; see `status`"
            )
        time.sleep(POLL_S)


def _instances(app: App, names: Sequence[str]) -> list[dict[str, Any]]:
    from nemotron_ops.supervisor.control import client

    return [i for i in client.request(app.layout, "status")["instances"] if i["name"] in names]


def _settled(app: App, names: Sequence[str], timeout_s: float) -> list[dict[str, Any]]:
    """Wait until every instance is ready or has failed; returns them as they were then: a failed one may try again."""
    seen: list[dict[str, Any]] = []

    def settled() -> bool:
        seen[:] = _instances(app, names)
        return all(i["state"] in ("ready", "failed") for i in seen)

    _wait(app, settled, timeout_s)
    return seen


def _all(app: App, names: Sequence[str], states: Sequence[str]) -> bool:
    return all(i["state"] in states for i in _instances(app, names))


def _changed(app: App, names: Sequence[str], before: dict[str, int | None]) -> bool:
    """Whether every earlier process is gone."""
    return all(i["pid"] != before.get(i["name"]) or i["pid"] is None for i in _instances(app, names))


def _idle(app: App, names: Sequence[str]) -> bool:
    return all(not i["inflight"] and not i["busy"] for i in _instances(app, names))
