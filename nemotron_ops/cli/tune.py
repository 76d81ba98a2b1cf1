"""`nemotron-ops tune`: from one's own data to a served adapter. Prints."""

from __future__ import annotations

import click

from nemotron_ops.cli.tune_check import check


@click.group()
def tune() -> None:
    """Fine-tune a model on your own data."""


tune.add_command(check)
