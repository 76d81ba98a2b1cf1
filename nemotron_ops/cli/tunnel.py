"""`tunnel`: forwards a remote endpoint to a local port. SSH."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from nemotron_ops.cli.app import App, dry_run_option
from nemotron_ops.cli.remote import ssh_option
from nemotron_ops.errors import DeployError, UsageError
from nemotron_ops.operations.targets import open_targets

OPEN_S = 30.0


@click.command()
@click.argument("target")
@click.option("--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="Port here; 0 picks one.")
@click.option("--remote-port", type=click.IntRange(1, 65535), default=8001, show_default=True, help="Port there.")
@ssh_option
@dry_run_option
def tunnel(target: str, port: int, remote_port: int, ssh_config: Path | None, dry_run: bool) -> None:
    """Forward TARGET's endpoint to a port of this machine, until Ctrl-C.

    The remote service can stay on loopback: ssh carries the connections.
    """
    from nemotron_ops.deploy.remote.ssh import tunnel_argv

    with App() as app:
        with open_targets((target,), app.installation, system=None, config=ssh_config) as reached:
            if len(reached.connections) != 1:
                raise UsageError("cannot make a tunnel to several targets at once")
            connection = reached.connections[0]
        port = free_port(port)
        argv = tunnel_argv(connection.target, config=connection.config, port=port, remote_port=remote_port)
        if dry_run:
            app.ui.data(" ".join(argv))
            return
        app.ui.say(f"http://127.0.0.1:{port}/v1 is {connection.target}'s, until Ctrl-C")
        os.execvp(argv[0], argv)


@contextmanager
def through(app: App, target: str, *, config: Path | None, remote_port: int) -> Iterator[str]:
    """The base URL at which `target`'s endpoint is reached while the block runs.

    Raises DeployError if the target cannot be reached, or nothing answers there.
    """
    from nemotron_ops.deploy.remote.ssh import tunnel_argv

    with open_targets((target,), app.installation, system=None, config=config) as reached:
        if len(reached.connections) != 1:
            raise UsageError("cannot talk to several targets at once")
        connection = reached.connections[0]
    port = free_port(0)
    argv = tunnel_argv(connection.target, config=connection.config, port=port, remote_port=remote_port)
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as ssh:
        try:
            _wait_open(ssh, target, port)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            ssh.terminate()


def _wait_open(ssh: subprocess.Popen[bytes], target: str, port: int) -> None:
    deadline = time.monotonic() + OPEN_S
    while time.monotonic() < deadline:
        if ssh.poll() is not None:
            raise DeployError(f"cannot reach {target}: ssh ended with {ssh.returncode}")
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise DeployError(f"cannot reach {target}: no tunnel after {OPEN_S:.0f} s")


def free_port(port: int) -> int:
    """`port` if it can be had, or one that the kernel picks for 0. Raises DeployError if it is taken."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError as exc:
            raise DeployError(f"cannot use port {port}: {exc.strerror}", hint="choose another one with --port") from exc
        return int(s.getsockname()[1])
