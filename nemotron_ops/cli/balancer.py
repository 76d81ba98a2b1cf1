"""`balancer render|install|status|drain|ready`: HAProxy in front of a group of targets. Disk, unix socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.cli.remote import ssh_option
from nemotron_ops.operations.targets import BalancerRequest, balancer_of

socket_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--socket", "path", type=click.Path(path_type=Path), default="/run/haproxy/admin.sock", show_default=True,
    help="HAProxy's runtime socket.",
)  # fmt: skip


def request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a BalancerRequest."""
    options: list[Callable[..., Any]] = [
        click.argument("group"),
        click.option("--bind", default=BalancerRequest.bind, show_default=True, help="Address for clients."),
        click.option("--certificate", default="", help="PEM file with certificate and key: TLS."),
        click.option("--address", "addresses", multiple=True, metavar="TARGET=HOST:PORT",
                     help="Address of a target's gateway, if it is not the one that ssh uses. Repeatable."),
        ssh_option,
        click.option("--stats", default=BalancerRequest.stats, show_default=True,
                     help="Address of the statistics page; empty: none."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def balancer() -> None:
    """One endpoint for many hosts: an HAProxy configuration for a group of targets.toml.

    A conversation stays on one host, where its prompt is cached. A host gets as many requests as it has slots, and
    none while it is not ready.
    """


@balancer.command()
@request_options
@socket_option
@json_option
def render(as_json: bool, **options: Any) -> None:
    """Print the configuration for GROUP, for an HAProxy that any user starts."""
    from nemotron_ops.deploy.balancer.config import render as rendered

    with App() as app:
        text = rendered(balancer_of(BalancerRequest(**options), app.installation))
        app.ui.json({"config": text}) if as_json else app.ui.data(text.rstrip())


@balancer.command()
@request_options
@socket_option
@click.option("--force", is_flag=True, help="Replace a configuration that is not ours (kept as .before).")
@dry_run_option
@json_option
def install(force: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Install the configuration for GROUP on this machine and reload HAProxy (needs root).

    HAProxy's service starts as root; with this configuration it then runs as the user haproxy, in a folder of its own.
    """
    from nemotron_ops.deploy.balancer import haproxy
    from nemotron_ops.deploy.balancer.config import render as rendered

    with App() as app:
        wanted = replace(
            balancer_of(BalancerRequest(**options), app.installation), user=haproxy.USER, chroot=haproxy.CHROOT
        )
        text = rendered(wanted)
        if not dry_run:
            haproxy.install(text, force=force)
        if as_json:
            app.ui.json({"path": str(haproxy.CONFIG), "config": text, "installed": not dry_run})
        elif dry_run:
            app.ui.data(f"# {haproxy.CONFIG}\n{text.rstrip()}")
        else:
            app.ui.say(f"{haproxy.CONFIG} written, HAProxy reloaded; clients connect to {wanted.bind}")


@balancer.command()
@socket_option
@json_option
def status(path: Path, as_json: bool) -> None:
    """Show each host as the balancer sees it."""
    from nemotron_ops.deploy.balancer import haproxy

    with App() as app:
        hosts = haproxy.states(path)
        if as_json:
            app.ui.json([asdict(h) for h in hosts])
            return
        rows = [[h.name, h.status, h.running, h.queued, h.served, h.failed, h.retried] for h in hosts]
        app.ui.table(["HOST", "STATUS", "RUNNING", "QUEUED", "SERVED", "FAILED", "RETRIED"], rows)


@balancer.command()
@click.argument("host")
@socket_option
@json_option
def drain(host: str, path: Path, as_json: bool) -> None:
    """Send HOST no new requests; returns when it has none left."""
    from nemotron_ops.deploy.balancer import haproxy

    with App() as app:
        haproxy.take_out(path, host, report=app.ui.report)
        if as_json:
            app.ui.json({"host": host, "state": "drain"})


@balancer.command()
@click.argument("host")
@socket_option
@json_option
def ready(host: str, path: Path, as_json: bool) -> None:
    """Send HOST requests again."""
    from nemotron_ops.deploy.balancer import haproxy

    with App() as app:
        haproxy.put_back(path, host)
        if as_json:
            app.ui.json({"host": host, "state": "ready"})
