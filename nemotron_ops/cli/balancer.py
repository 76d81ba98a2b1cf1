"""`balancer render|install|status|drain|ready`: HAProxy in front of a group of targets. Disk, unix socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.cli.remote import config_of, read_groups, ssh_option
from nemotron_ops.errors import UsageError
from nemotron_ops.service.words import address

if TYPE_CHECKING:
    from nemotron_ops.deploy.balancer.config import Balancer

socket_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--socket", "path", type=click.Path(path_type=Path), default="/run/haproxy/admin.sock", show_default=True,
    help="HAProxy's runtime socket.",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What decides the configuration, as the command line has it."""

    group: str
    bind: str = "127.0.0.1:8000"
    certificate: str = ""
    addresses: tuple[str, ...] = ()
    ssh_config: Path | None = None
    stats: str = "127.0.0.1:8404"
    path: Path = Path("/run/haproxy/admin.sock")


def shape_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a Shape."""
    options: list[Callable[..., Any]] = [
        click.argument("group"),
        click.option("--bind", default=Shape.bind, show_default=True, help="Where clients connect."),
        click.option("--certificate", default="", help="PEM file with certificate and key: TLS."),
        click.option("--address", "addresses", multiple=True, metavar="TARGET=HOST:PORT",
                     help="Where a target's gateway is reached, if not where ssh reaches it. Repeatable."),
        ssh_option,
        click.option("--stats", default=Shape.stats, show_default=True, help="Where statistics are; empty: none."),
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
def render(as_json: bool, **options: Any) -> None:
    """Print the configuration for GROUP, for an HAProxy that any user starts."""
    from nemotron_ops.deploy.balancer.config import render as rendered

    with App() as app:
        text = rendered(shape(app, Shape(**options)))
        app.ui.json({"config": text}) if as_json else app.ui.data(text.rstrip())


@balancer.command()
@shape_options
@socket_option
@click.option("--force", is_flag=True, help="Replace a configuration that is not ours (it is kept as .before).")
@dry_run_option
@json_option
def install(force: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Put the configuration for GROUP into place on this machine and reload HAProxy (takes root).

    HAProxy's service starts as root; with this configuration it goes on as the user haproxy, in a folder of its own.
    """
    from nemotron_ops.deploy.balancer import haproxy
    from nemotron_ops.deploy.balancer.config import render as rendered

    with App() as app:
        wanted = replace(shape(app, Shape(**options)), user=haproxy.USER, chroot=haproxy.CHROOT)
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
    """Each host as the balancer sees it."""
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


def shape(app: App, wish: Shape) -> Balancer:
    """The balancer for a group of targets.toml. Raises UsageError for a group or a target that is not in it."""
    from nemotron_ops.deploy.balancer.config import Balancer, Server, server_name
    from nemotron_ops.deploy.remote.ssh import address_of

    groups = read_groups(app)
    if wish.group not in groups:
        known = ", ".join(groups) or "none"
        raise UsageError(f"cannot find group {wish.group!r} in targets.toml (known: {known})")
    of, config = groups[wish.group], config_of(app, wish.ssh_config)
    named = named_addresses(wish.addresses, of.targets)
    servers = tuple(
        Server(name=server_name(t), address=named.get(t) or address(address_of(t, config=config), of.port))
        for t in of.targets
    )
    return Balancer(
        servers=servers, slots=of.slots, bind=wish.bind, certificate=wish.certificate, stats=wish.stats,
        socket=str(wish.path.absolute()),
    )  # fmt: skip


def named_addresses(words: tuple[str, ...], targets: tuple[str, ...]) -> dict[str, str]:
    """`TARGET=HOST:PORT` words as a dict. Raises UsageError for one that is not so, or names no target."""
    found = {}
    for word in words:
        target, sep, place = word.partition("=")
        host, colon, port = place.rpartition(":")
        if not (sep and host and colon and port.isdigit()):
            raise UsageError(f"cannot use --address {word}: expected TARGET=HOST:PORT", hint="gpu1=10.0.0.1:8001")
        if target not in targets:
            raise UsageError(f"cannot use --address {word}: the group has no {target} (it has {', '.join(targets)})")
        found[target] = place
    return found
