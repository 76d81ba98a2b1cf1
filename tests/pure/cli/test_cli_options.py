"""Options of a command from the fields of a dataclass: flags, types, defaults and help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nemotron_ops.cli.options import choice, option, options_of
from nemotron_ops.cli.serve_words import serve_flags
from nemotron_ops.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Wanted:
    name: str = option("A name.")
    port: int | None = option("A port.", "--port", "-p", type=click.IntRange(1, 9))
    files: tuple[Path, ...] = option("A file.", "--file")
    sizes: tuple[int, ...] = option("A size.", "--size")
    special: bool | None = option("Given or not.")
    force: bool = option("Force it.")
    lines: int = option("Lines.", default=50, show_default=True)
    backend: str | None = choice(cuda="For NVIDIA.", cpu="For the CPU.")


@click.command()
@click.argument("target")
@options_of(Wanted)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(target: str, wanted: Wanted, as_json: bool) -> None:
    """A command."""
    click.echo(repr((target, wanted, as_json)))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), Wanted(name="", files=(), sizes=(), force=False)),
        (
            ("--name", "n", "-p", "3", "--file", "a", "--file", "b", "--size", "4", "--special", "--force", "--cuda"),
            Wanted(
                name="n", port=3, files=(Path("a"), Path("b")), sizes=(4,), special=True, force=True, backend="cuda"
            ),
        ),
    ],
)
def test_a_command_gets_its_options_as_one_value(words: tuple[str, ...], expected: Wanted) -> None:
    done = CliRunner().invoke(command, ["t", *words, "--json"], catch_exceptions=False)
    assert done.output.strip() == repr(("t", expected, True))


def test_help_shows_the_options_in_the_order_of_the_fields() -> None:
    shown = CliRunner().invoke(command, ["--help"]).output
    flags = ("--name", "-p, --port", "--file", "--size", "--special", "--force", "--lines", "--cuda", "--cpu", "--json")
    places = [shown.index(flag) for flag in flags]
    assert places == sorted(places)
    assert "[1<=x<=9]" in shown
    assert "[default: 50]" in shown


@pytest.mark.parametrize(
    "option", ["--alias=a\nExecStart=/bin/x", "--alias=a\x1b[2J", "--alias=\x7f", "--alias=\x9b2J"]
)
def test_control_characters_in_serve_options_are_refused_and_shown_escaped(option: str) -> None:
    with pytest.raises(UsageError, match="it has a control character") as caught:
        serve_flags(("tiny",), (option,))
    assert str(caught.value).isprintable()
