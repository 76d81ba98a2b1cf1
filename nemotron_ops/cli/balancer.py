"""`balancer render|install|status|drain|ready`: HAProxy in front of a group of targets. Disk, unix socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.cli.remote import config_of, read_groups, ssh_option
from nemotron_ops.errors import UsageError
from nemotron_ops.service.words import address

if TYPE_CHECKING:
    from nemotron_ops.deploy.balancer import Balancer

socket_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--socket", "path", type=click.Path(path_type=Path), default="/run/haproxy/admin.sock", show_default=True,
    help="HAProxy's runtime socket.",
)  # fmt: skip


def shape_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What decides the configuration."""
    options: list[Callable[..., Any]] = [
        click.argument("group"),
        click.option("--bind", default="127.0.0.1:8000", show_default=True, help="Where clients connect."),
        click.option("--certificate", default="", help="PEM file with certificate and key: TLS."),
        click.option("--address", "addresses", multiple=True, metavar="TARGET=HOST:PORT",
                     help="Where a target's gateway is reached, if not where ssh reaches it. Repeatable."),
        ssh_option,
        click.option("--stats", default="127.0.0.1:8404", show_default=True, help="Where statistics are; empty: none."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def balancer() -> None:
    """One door for many hosts: an HAProxy configuration for a group of targets.toml.

    Conversations stay on one host (warm prompts), a host takes as many requests as it has slots, one that is not
    ready gets none.
    """


@balancer.command()
@shape_options
@socket_option
@json_option
def render(
    group: str, bind: str, certificate: str, addresses: tuple[str, ...], ssh_config: Path | None, stats: str,
    path: Path, as_json: bool,
) -> None:  # fmt: skip
    """Print the configuration for GROUP."""
    from nemotron_ops.deploy.balancer import render as rendered

    with App() as app:
        text = rendered(shape(app, group, bind, certificate, addresses, ssh_config, stats, path))
        app.ui.json({"config": text}) if as_json else app.ui.data(text.rstrip())


@balancer.command()
@shape_options
@socket_option
@click.option("--force", is_flag=True, help="Replace a configuration that is not ours (it is kept as .before).")
@dry_run_option
@json_option
def install(
    group: str, bind: str, certificate: str, addresses: tuple[str, ...], ssh_config: Path | None, stats: str,
    path: Path, force: bool, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Put the configuration for GROUP into place on this machine and reload HAProxy (takes root)."""
    from nemotron_ops.deploy import haproxy
    from nemotron_ops.deploy.balancer import render as rendered

    with App() as app:
        text = rendered(shape(app, group, bind, certificate, addresses, ssh_config, stats, path))
        if not dry_run:
            haproxy.install(text, force=force)
        if as_json:
            app.ui.json({"path": str(haproxy.CONFIG), "config": text, "installed": not dry_run})
        elif dry_run:
            app.ui.data(f"# {haproxy.CONFIG}\n{text.rstrip()}")
        else:
            app.ui.say(f"{haproxy.CONFIG} written, HAProxy reloaded; clients connect to {bind}")


@balancer.command()
@socket_option
@json_option
def status(path: Path, as_json: bool) -> None:
    """Each host as the balancer sees it."""
    from nemotron_ops.deploy import haproxy

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
    from nemotron_ops.deploy import haproxy

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
    from nemotron_ops.deploy import haproxy

    with App() as app:
        haproxy.put_back(path, host)
        if as_json:
            app.ui.json({"host": host, "state": "ready"})


def shape(
    app: App, group: str, bind: str, certificate: str, addresses: tuple[str, ...], ssh_config: Path | None, stats: str,
    path: Path,
) -> Balancer:  # fmt: skip
    """The balancer for a group of targets.toml."""
    from nemotron_ops.deploy.balancer import Balancer, Server, server_name
    from nemotron_ops.deploy.ssh import address_of

    groups = read_groups(app)
    if group not in groups:
        known = ", ".join(groups) or "none"
        raise UsageError(f"cannot find group {group!r} in targets.toml (known: {known})")
    named = dict(a.split("=", 1) for a in addresses if "=" in a)
    of, config = groups[group], config_of(app, ssh_config)
    servers = tuple(
        Server(name=server_name(t), address=named.get(t) or address(address_of(t, config=config), of.port))
        for t in of.targets
    )
    return Balancer(
        servers=servers, slots=of.slots, bind=bind, certificate=certificate, stats=stats, socket=str(path.absolute())
    )  # fmt: skip
