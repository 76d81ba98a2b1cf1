"""`nemotron-ops mcp`: our tools for any MCP client. Prints on stderr only: stdout is the protocol's."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotron_ops.cli.app import App
from nemotron_ops.errors import HostError, UsageError

if TYPE_CHECKING:
    from nemotron_ops.agent.here import Here

LEAST_TOKEN = 16  # letters


@click.command()
@click.option("--http", "port", type=click.IntRange(0, 65535), help="Serve HTTP on this loopback port, not stdio.")
@click.option(
    "--token-file", type=click.Path(path_type=Path, dir_okay=False),
    help="With --http: the bearer token that clients show. Without it, one is made and printed.",
)  # fmt: skip
def mcp(port: int | None, token_file: Path | None) -> None:
    """Give run_python, web_search and read_page to an MCP client, which starts this command.

    Offers what `nemotron-ops tools enable` has enabled. Python runs in a sandbox without network; its variables stay
    until the client leaves, and with --http until the call ends.
    """
    with App() as app:
        from nemotron_ops.agent.here import Here
        from nemotron_ops.agent.mcp import offered

        if token_file is not None and port is None:
            raise UsageError("cannot use --token-file without --http")
        here = Here(app.layout, app.env)
        if not offered.usable(here):
            text, hint = offered.refusal()
            raise HostError(text, hint=hint)
        _serve(app, here, port, token_file)


def _serve(app: App, here: Here, port: int | None, token_file: Path | None) -> None:
    try:
        from nemotron_ops.agent.mcp import serve
    except ImportError as exc:
        hint = "pip install 'nemotron-ops[tools]'"
        raise HostError(f"cannot serve MCP: the package {exc.name} is not installed", hint=hint) from exc
    if port is None:
        serve.over_stdio(here)
        return
    import socket

    token = _token(token_file)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as exc:
            raise HostError(f"cannot serve MCP on port {port}: {exc.strerror}", hint="choose another port") from exc
        app.ui.say(f"MCP: http://127.0.0.1:{listening.getsockname()[1]}{serve.PATH}")
        if token_file is None:
            app.ui.say(f"token: {token}")
        serve.over_http(here, listening, token)


def _token(file: Path | None) -> str:
    """The token of a file, or a new one. Raises UsageError if the file holds none."""
    if file is None:
        return secrets.token_urlsafe(32)
    try:
        found = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as exc:
        raise UsageError(f"cannot read the token in {file}: {exc}") from exc
    if len(found) < LEAST_TOKEN or not found.isprintable() or " " in found:
        raise UsageError(f"cannot use the token in {file}: expected {LEAST_TOKEN} letters or more in one line")
    return found
