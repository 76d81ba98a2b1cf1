"""`tools approvals`, `approve`, `deny` and `revoke`: which calls of models a person lets run. Prints."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option

if TYPE_CHECKING:
    from nemotron_ops.agent.approvals import Approvals

SHOWN = 200  # letters of a call's arguments


def book_of(app: App) -> Approvals:
    """The file of this installation."""
    from nemotron_ops.agent.approvals import Approvals

    return Approvals(app.layout.state)


@click.command()
@json_option
def approvals(as_json: bool) -> None:
    """List calls that wait to be approved, and tools that need not ask again.

    Which tools ask is set in agent.toml, by their exact names: never, once (a key's first time) or always.
    """
    with App() as app:
        book = book_of(app).book()
        waiting = [r for r in book.requests if not r.answer]
        if as_json:
            allowed = [{"key": key, "tool": tool} for key, tool in book.allowed]
            app.ui.json({"waiting": [asdict(r) for r in waiting], "allowed": allowed})
            return
        now = time.time()
        rows = [(r.id, r.tool, r.key or "-", f"{max(0, now - r.at):.0f} s", short(r.arguments)) for r in waiting]
        if rows:
            app.ui.table(("id", "tool", "key", "waits", "arguments"), rows)
        else:
            app.ui.say("no call waits to be approved")
        for key, tool in book.allowed:
            app.ui.data(f"allowed: {tool} for key {key or '-'}")


def short(arguments: str) -> str:
    """A call's arguments on one line, without control characters."""
    plain = "".join(c if c.isprintable() else " " for c in arguments)
    return plain if len(plain) <= SHOWN else plain[:SHOWN] + "…"


@click.command()
@click.argument("request_id", metavar="ID")
@click.option("--always", is_flag=True, help="Let this key use this tool without asking again, where it asks once.")
@dry_run_option
@json_option
def approve(request_id: str, always: bool, dry_run: bool, as_json: bool) -> None:
    """Let a call run that waits."""
    answer(request_id, yes=True, keep=always, dry_run=dry_run, as_json=as_json)


@click.command()
@click.argument("request_id", metavar="ID")
@dry_run_option
@json_option
def deny(request_id: str, dry_run: bool, as_json: bool) -> None:
    """Refuse a call that waits; the model is told so."""
    answer(request_id, yes=False, keep=False, dry_run=dry_run, as_json=as_json)


def answer(request_id: str, *, yes: bool, keep: bool, dry_run: bool, as_json: bool) -> None:
    with App() as app:
        done = "approve" if yes else "deny"
        if dry_run:
            app.ui.say(f"would {done} {request_id}")
        else:
            found = book_of(app).answer(request_id, yes=yes, keep=keep)
            app.ui.say(f"{'approved' if yes else 'denied'}: {found.tool} {short(found.arguments)}")
        if as_json:
            app.ui.json({"id": request_id, "answer": "yes" if yes else "no", "dry_run": dry_run})


@click.command()
@click.argument("tool")
@dry_run_option
@json_option
def revoke(tool: str, dry_run: bool, as_json: bool) -> None:
    """Let TOOL ask again, for every key."""
    with App() as app:
        book = book_of(app)
        had = sum(1 for _, name in book.book().allowed if name == tool) if dry_run else book.revoke(tool)
        app.ui.say(f"{'would ask' if dry_run else 'asks'} again: {tool} (allowed for {had} keys)")
        if as_json:
            app.ui.json({"tool": tool, "keys": had, "dry_run": dry_run})
