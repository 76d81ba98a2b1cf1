"""Man pages from the tree of commands: one for each command, subcommands with a dash. Pure."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

SECTION = 1
WRAPS = re.compile(r"\s*\n\s*")


def pages(root: click.Group, name: str, version: str) -> Iterator[tuple[str, str]]:
    """File names and texts of all pages."""
    yield from _pages(root, click.Context(root, info_name=name), version)


def _pages(command: click.Command, ctx: click.Context, version: str) -> Iterator[tuple[str, str]]:
    name = ctx.command_path.replace(" ", "-")
    yield f"{name}.{SECTION}", _page(command, ctx, version)
    if isinstance(command, click.Group):
        for word in command.list_commands(ctx):
            inner = command.get_command(ctx, word)
            assert inner is not None
            yield from _pages(inner, click.Context(inner, info_name=word, parent=ctx), version)


def _page(command: click.Command, ctx: click.Context, version: str) -> str:
    name = ctx.command_path.replace(" ", "-")
    usage = " ".join(command.collect_usage_pieces(ctx))
    parts = [
        f'.TH "{name.upper()}" "{SECTION}" "" "nemotron-ops {version}" "nemotron-ops"',
        f".SH NAME\n{roff(name)} \\- {roff(command.get_short_help_str(200).rstrip('.'))}",
        f".SH SYNOPSIS\n.B {roff(ctx.command_path)}\n{roff(usage)}",
    ]
    if command.help:
        paragraphs = (WRAPS.sub(" ", p) for p in inspect.cleandoc(command.help).split("\n\n"))
        parts.append(".SH DESCRIPTION\n" + "\n.PP\n".join(map(roff, paragraphs)))
    records = [r for p in command.get_params(ctx) if (r := p.get_help_record(ctx)) is not None]
    if records:
        parts.append(".SH OPTIONS\n" + "\n".join(f".TP\n.B {roff(flags)}\n{roff(about)}" for flags, about in records))
    if isinstance(command, click.Group):
        rows = []
        for word in command.list_commands(ctx):
            inner = command.get_command(ctx, word)
            assert inner is not None
            rows.append(f".TP\n.BR {roff(name)}\\-{roff(word)} ({SECTION})\n{roff(inner.get_short_help_str(200))}")
        parts.append(".SH COMMANDS\n" + "\n".join(rows))
    return "\n".join(parts) + "\n"


def roff(text: str) -> str:
    """A text whose letters mean themselves."""
    text = WRAPS.sub(" ", text).replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    text = "".join(letter if letter.isascii() else f"\\[u{ord(letter):04X}]" for letter in text)
    return f"\\&{text}" if text[:1] == "." else text
