"""What every command needs: the installation and the terminal, read once at the edge. Environment, terminal.

A command module looks like this:

    @click.command()
    @json_option
    def status(as_json: bool) -> None:
        \"\"\"Show what is running.\"\"\"
        with App() as app:
            ...
            app.ui.json(value) if as_json else app.ui.table(header, rows)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nemotron_ops.paths import Layout, system_layout, user_layout
from nemotron_ops.ui import PROGRESS, Ui

if TYPE_CHECKING:
    from nemotron_ops.installation import Installation
    from nemotron_ops.operations.building import Confirm

PROGRESS_META = "nemotron_ops.progress"
F = TypeVar("F", bound=Callable[..., Any])

json_option: Callable[[F], F] = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."
)
dry_run_option: Callable[[F], F] = click.option(
    "--dry-run", is_flag=True, help="Print what would be done, and do nothing."
)


def _keep_progress(ctx: click.Context, _: click.Parameter, value: str) -> None:
    ctx.find_root().meta[PROGRESS_META] = value


progress_option: Callable[[F], F] = click.option(
    "--progress",
    type=click.Choice(PROGRESS),
    default="auto",
    expose_value=False,
    callback=_keep_progress,
    help="Progress on stderr: bars or lines, or JSON Lines, at most four a second.",
)


class App:
    """One run of one command. `with App() as app:` closes progress bars at the end."""

    def __init__(self, *, env: Mapping[str, str] | None = None, quiet: bool = False) -> None:
        self.env: Mapping[str, str] = dict(os.environ) if env is None else env
        ctx = click.get_current_context(silent=True)
        self.ui = Ui(quiet=quiet, progress=ctx.find_root().meta.get(PROGRESS_META, "auto") if ctx else "auto")

    def __enter__(self) -> App:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.ui.end_bars()

    @cached_property
    def layout(self) -> Layout:
        """The folders in use: a system service's if NEMOTRON_OPS_SYSTEM is set, else this user's."""
        if self.env.get("NEMOTRON_OPS_SYSTEM"):
            return system_layout()
        return user_layout(self.env, uid=os.getuid())

    @cached_property
    def installation(self) -> Installation:
        """What operations work on; they report to this terminal."""
        from nemotron_ops.installation import Installation

        return Installation(layout=self.layout, env=self.env, report=self.ui.report)


def confirmation(*, as_json: bool, dry_run: bool = False, yes: bool = False) -> Confirm:
    """Asks at a terminal. Answers no without one, and in a command whose output a program reads; `yes` answers yes."""
    if yes:
        return lambda question: True
    if as_json or dry_run or not sys.stdin.isatty():
        return lambda question: False
    return lambda question: click.confirm(question, err=True)
