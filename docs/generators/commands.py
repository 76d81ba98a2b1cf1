"""The reference of commands: their own `--help`. Pure."""

from __future__ import annotations

import click

from nemotron_ops.cli import COMMANDS, cli


def page() -> str:
    """One section per command and subcommand, with its own --help."""
    parts = [
        "# Commands\n\nEvery command takes `--help`. stdout has data, stderr has messages; `--json`: stdout is JSON.\n"
    ]
    root = click.Context(cli, info_name="nemotron-ops", max_content_width=100, terminal_width=100)
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        parts += _command(command, click.Context(command, info_name=name, parent=root, terminal_width=100), depth=2)
    return "\n".join(parts)


def _command(command: click.Command, ctx: click.Context, *, depth: int) -> list[str]:
    ctx.max_content_width = 100
    parts = [f"{'#' * depth} {ctx.command_path}\n", f"```\n{command.get_help(ctx)}\n```\n"]
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            sub = command.get_command(ctx, name)
            assert sub is not None
            inner = click.Context(sub, info_name=name, parent=ctx, terminal_width=100)
            parts += _command(sub, inner, depth=depth + 1)
    return parts
