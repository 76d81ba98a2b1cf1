"""`status`: shows what is running. Control socket."""

from __future__ import annotations

from typing import Any

import click

from nemotron_ops.cli.app import App, json_option
from nemotron_ops.ui import duration


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Show what is running: the endpoint, each instance, and why one is not ready.

    Ends with 0 if everything that is wanted is ready, with 9 if an instance has failed, and with 10 if no supervisor
    is running.
    """
    from nemotron_ops.errors import EngineError
    from nemotron_ops.supervisor.control import client

    with App() as app:
        answer = client.request(app.layout, "status")
        answer["tools"] = tools_of(app)
        if as_json:
            app.ui.json(answer)
        else:
            show(app, answer)
        if any(i["state"] == "failed" for i in answer["instances"]):
            raise click.exceptions.Exit(EngineError.exit_code)


def show(app: App, answer: dict[str, Any]) -> None:
    """The answer for people: one line for the endpoint, a table, and the reasons below it."""
    since = duration(answer["uptime_s"])
    app.ui.data(f"{answer['endpoint']['url']}  (nemotron-ops {answer['version']}, pid {answer['pid']}, up {since})")
    for name, one in answer.get("companions", {}).items():
        reason = f": {one['reason']}" if one["reason"] else ""
        app.ui.data(f"{one['url']}/  ({name}, {one['state']}{reason})")
    tools = answer.get("tools") or tools_of(app)
    if enabled := tools["enabled"]:
        app.ui.data(f"tools: {', '.join(enabled)}{sandbox_words(tools)}")
    if not answer["instances"]:
        app.ui.data("no model is served; add one with: nemotron-ops add 30b")
        return
    header = ("instance", "state", "pid", "up", "restarts", "requests", "slots", "build")
    app.ui.table(header, [row(i) for i in answer["instances"]])
    for instance in answer["instances"]:
        for line in why(instance):
            app.ui.data(line)


def tools_of(app: App) -> dict[str, Any]:
    """Which tools are enabled, and what code runs in as it was last found out; nothing is tried here."""
    from nemotron_ops.errors import NemotronOpsError
    from nemotron_ops.sandbox import enabled
    from nemotron_ops.sandbox.open import kept_summary

    try:
        names, reason = list(enabled.allowed(app.layout.config)), ""
    except NemotronOpsError as exc:  # a broken file does not keep the status from being shown
        names, reason = [], exc.message
    return {"enabled": names, "reason": reason, "sandbox": kept_summary(app.layout)}


def sandbox_words(tools: dict[str, Any]) -> str:
    """`; code runs in bubblewrap, which held 8 of 8 attacks`, where code may run."""
    if "python" not in tools["enabled"]:
        return ""
    if (found := tools["sandbox"]) is None:
        return "; the sandbox was not tried since this boot (nemotron-ops tools doctor)"
    return f"; code runs in {found['backend']}, which held {found['attacks_held']} of {found['attacks']} attacks"


def row(instance: dict[str, Any]) -> tuple[object, ...]:
    """One line of the table."""
    up = instance["uptime_s"]
    return (
        instance["name"], state_words(instance), instance["pid"] or "-", duration(up) if up is not None else "-",
        instance["restarts"], instance["inflight"], instance["slots"], instance["build"] or "-",
    )  # fmt: skip


def state_words(instance: dict[str, Any]) -> str:
    """`ready`, `starting 42 %`, `ready, drained`, `stopped, not wanted`."""
    words = str(instance["state"])
    if instance["load_progress"] is not None:
        words += f" {100 * instance['load_progress']:.0f} %"
    if instance["state"] == "ready" and instance["draining"]:
        words += ", drained"
    if instance["state"] == "stopped" and instance["wanted"]:
        words += ", waiting"
    return words


def why(instance: dict[str, Any]) -> list[str]:
    """Reason, next step and last log lines of an instance that is not well."""
    if not instance["reason"]:
        return []
    lines = [f"{instance['name']}: {instance['reason']}"]
    if instance["hint"]:
        lines.append(f"  hint: {instance['hint']}")
    lines += [f"  | {line}" for line in instance["log_tail"][-8:]]
    return lines
