"""`nemotron-ops tools`: run code, choose what models may use, look at tool calls. Imports a command when called."""

from __future__ import annotations

from importlib import import_module

import click

# command -> (module in nemotron_ops.cli, function, one line for `--help`)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "doctor": ("tools_doctor", "doctor", "Hold attacks on every sandbox that this machine can have."),
    "run": ("tools_run", "run", "Run Python or bash in a sandbox."),
    "heal": ("tools_heal", "heal", "Show what healing makes of tool calls in a file."),
    "search": ("tools_web", "search", "Search the web with the provider of web.toml."),
    "read": ("tools_web", "read", "Read a page as text."),
    "mcp": ("tools_mcp", "mcp", "Look at MCP servers, and confirm their tools."),
    "enable": ("tools_enable", "enable", "Let models use tools: python, web, mcp."),
    "disable": ("tools_enable", "disable", "Take tools away from models."),
    "approvals": ("tools_approvals", "approvals", "List calls that wait to be approved."),
    "approve": ("tools_approvals", "approve", "Let a call run that waits."),
    "deny": ("tools_approvals", "deny", "Refuse a call that waits."),
    "revoke": ("tools_approvals", "revoke", "Let a tool ask again."),
}


class ToolsGroup(click.Group):
    """Commands by name, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, function, _ = COMMANDS[cmd_name]
        command = getattr(import_module(f"nemotron_ops.cli.{module}"), function)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, _, about) in COMMANDS.items()])


@click.group(cls=ToolsGroup)
def tools() -> None:
    """Run code in a sandbox, choose what models may use, look at tool calls."""
