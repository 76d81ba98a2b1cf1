"""`nemotron-ops tune`: from one's own data to a served adapter. Prints."""

from __future__ import annotations

import click

from nemotron_ops.cli.tune_check import check
from nemotron_ops.cli.tune_compare import compare, export
from nemotron_ops.cli.tune_jobs import list_jobs, pause, rm, show
from nemotron_ops.cli.tune_train import resume, train


class TuneGroup(click.Group):
    """`tune MODEL …` trains; the other words are commands."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; for any other word it is `train`, and the word its model."""
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, "train")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["train", *args]
        return super().parse_args(ctx, args)


@click.group(cls=TuneGroup)
def tune() -> None:
    """Fine-tune a model on your own data: `nemotron-ops tune MODEL --data FILE`, see `tune train --help`."""


for command in (check, train, list_jobs, show, pause, resume, rm, compare, export):
    tune.add_command(command)
