"""Every option that a message or a page names exists on the command that it names it for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

import nemotron_ops
from nemotron_ops.cli import COMMANDS, cli

PACKAGE = Path(nemotron_ops.__file__).parent
ROOT = PACKAGE.parent
CALL = re.compile(r"nemotron-ops ((?:[a-z]+ )*)([^`\n;|&()]*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z_-]*")


def texts() -> Iterator[tuple[str, str]]:
    """Where, and a text of a message or of a page."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "nemotron-ops " in node.value:
                yield str(path.relative_to(ROOT)), node.value
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        yield str(path.relative_to(ROOT)), path.read_text().replace("\\\n", " ")


@cache
def named() -> tuple[tuple[str, tuple[str, ...], str], ...]:
    """Where, the words after nemotron-ops, and an option that follows them; flags after ` -- ` are llama-server's."""
    found = []
    for where, text in texts():
        for call in CALL.finditer(text):
            rest = re.split(r" -- | # |  |[.,:] |, ", call.group(0).removeprefix("nemotron-ops "))[0]
            words = tuple(rest.split())
            for option in OPTION.findall(rest):
                found.append((where, words, option))
    return tuple(found)


def command_of(words: tuple[str, ...]) -> click.Command | None:
    """The command that `words` begin with; None for prose."""
    found: click.Command = cli
    context = click.Context(cli)
    for word in words:
        if not isinstance(found, click.Group):
            break
        further = found.get_command(context, word)
        if further is None and found is not cli:
            further = found.get_command(context, "run")  # `deploy TARGET` is `deploy run TARGET`
        if further is None:
            break
        found = further
    return None if found is cli else found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_that_is_named_for_a_command_exists_there(name: str) -> None:
    wrong = []
    for where, words, option in named():
        if words[0] != name:
            continue
        command = command_of(words)
        assert command is not None
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "--debug"}
        if option not in known:
            wrong.append(f"{where}: {' '.join(words)}: {option}")
    assert wrong == []
