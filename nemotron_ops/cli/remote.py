"""The options and lines that commands for other machines share. Terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App

if TYPE_CHECKING:
    from nemotron_ops.deploy.remote.ssh import Connection
    from nemotron_ops.operations.targets import Targets

Option = Callable[[Callable[..., Any]], Callable[..., Any]]
SSH_FLAGS = ("--ssh-config", "-F")
SSH_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
SSH_HELP = "ssh's configuration file."
ssh_option: Option = click.option(*SSH_FLAGS, type=SSH_FILE, help=SSH_HELP)
scope_option: Option = click.option(
    "--system/--user", "system", default=None, help="A system service (needs root there), or a user's. Default: user."
)
BALANCER = "HAProxy's runtime socket: each target is drained while it switches, one at a time."
targets_argument: Option = click.argument("targets", nargs=-1, required=True, metavar="TARGET...")


def show_lines(app: App, targets: Targets, connection: Connection) -> Callable[[str], None]:
    """Shows each line of a remote command, with the target's name where there are several."""
    prefix = f"{connection.target}: " if len(targets.connections) > 1 else ""
    return lambda line: app.ui.data(f"{prefix}{line}")
