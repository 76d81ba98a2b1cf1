"""`nemotron-ops tools mcp`: the MCP servers of mcp.toml, what they offer, and which of it is confirmed. Prints."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.errors import HostError, NemotronOpsError, UsageError

if TYPE_CHECKING:
    from nemotron_ops.agent.mcp.pins import Listed, Pins
    from nemotron_ops.agent.mcp.settings import McpServer


@click.group()
def mcp() -> None:
    """Look at the MCP servers of mcp.toml, and confirm their tools."""


@mcp.command("list")
@json_option
def list_servers(as_json: bool) -> None:
    """Start or reach each server, and show its tools: allowed, confirmed, changed.

    Ends with 4 if a server cannot be used, or an allowed tool is not confirmed as it is now.
    """
    with App() as app:
        from nemotron_ops.agent.mcp import pins, settings

        kept = pins.load(app.layout.state)
        rows = []
        for name, server in settings.load(app.layout.config).items():
            rows.append(asyncio.run(_row(app, name, server, kept.get(name))))
        if as_json:
            app.ui.json(rows)
        elif not rows:
            app.ui.say(f"no MCP server is configured in {settings.settings_path(app.layout.config)}")
        for row in rows if not as_json else ():
            _show(app, row)
        if wrong := [str(row["reason"]) for row in rows if row["reason"]]:
            raise HostError(f"cannot offer all MCP tools: {'; '.join(wrong)}")


@mcp.command()
@click.argument("server")
@dry_run_option
@json_option
def pin(server: str, dry_run: bool, as_json: bool) -> None:
    """Confirm the allowed tools of SERVER as they are now, after showing what they claim to do.

    A tool whose description or schema changes later stops its server until this is called again.
    """
    with App() as app:
        from nemotron_ops.agent.mcp import pins, settings

        found = settings.load(app.layout.config)
        if server not in found:
            hint = (
                f"known: {', '.join(found) or 'none'}; servers are set in {settings.settings_path(app.layout.config)}"
            )
            raise UsageError(f"cannot find the MCP server {server!r}", hint=hint)
        allow = found[server].allow
        there = asyncio.run(_tools(app, server, found[server]))
        chosen = [tool for tool in there if tool.name in allow]
        if missing := sorted(set(allow) - {tool.name for tool in chosen}):
            raise HostError(f"cannot confirm tools of {server}: it has no tool {missing[0]!r}")
        before = pins.load(app.layout.state).get(server, {})
        changes = {tool.name: state_of(tool, before) for tool in chosen}
        if not dry_run:
            pins.keep(app.layout.state, server, chosen)
        if as_json:
            app.ui.json({"server": server, "tools": changes, "dry_run": dry_run})
            return
        for tool in chosen:
            app.ui.data(f"{changes[tool.name]}: {tool.name}: {plain(tool.description)}")
        app.ui.say(f"{'would confirm' if dry_run else 'confirmed'} {len(chosen)} of {len(there)} tools of {server}")
        if not allow:
            app.ui.say(f"hint: name tools in `allow` of {settings.settings_path(app.layout.config)}")


async def _tools(app: App, name: str, server: McpServer) -> tuple[Listed, ...]:
    try:
        from nemotron_ops.agent.mcp.host import Connection
    except ImportError as exc:
        hint = "pip install 'nemotron-ops[tools]'"
        raise HostError(f"cannot use MCP servers: the package {exc.name} is not installed", hint=hint) from exc
    from nemotron_ops.agent.here import Here
    from nemotron_ops.agent.mcp.settings import with_secrets

    here = Here(app.layout, app.env)
    connection = Connection(name, with_secrets(server, app.layout.config), here.bubblewrap)
    try:
        return await connection.open()
    finally:
        await connection.close()


async def _row(app: App, name: str, server: McpServer, kept: Pins | None) -> dict[str, Any]:
    from nemotron_ops.agent.mcp import pins

    where = server.url or " ".join(server.command)
    row: dict[str, Any] = {"server": name, "where": where, "sandbox": str(server.sandbox) if server.command else None}
    try:
        there = await _tools(app, name, server)
    except NemotronOpsError as exc:
        return {**row, "reason": exc.message, "tools": []}
    tools = [
        {"name": t.name, "allowed": t.name in server.allow, "state": state_of(t, kept or {}),
         "description": plain(t.description)} for t in there
    ]  # fmt: skip
    return {**row, "reason": pins.refusal(name, server.allow, there, kept), "tools": tools}


def state_of(tool: Listed, pins: Pins) -> str:
    """confirmed, changed or new."""
    kept = pins.get(tool.name)
    return "new" if kept is None else "confirmed" if kept == tool.digest else "changed"


def plain(text: str) -> str:
    """A server's text in one line, without control characters of a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


def _show(app: App, row: dict[str, Any]) -> None:
    wall = f" (sandbox: {row['sandbox']})" if row["sandbox"] else ""
    app.ui.data(f"{row['server']}: {row['where']}{wall}")
    for tool in row["tools"]:
        mark = tool["state"] if tool["allowed"] else "not allowed"
        app.ui.data(f"  {mark.ljust(12)}{plain(tool['name'])}: {tool['description']}")
