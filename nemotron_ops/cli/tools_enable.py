"""`nemotron-ops tools enable` and `disable`: what models may use. Prints."""

from __future__ import annotations

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option


@click.command()
@click.argument("tools")
@dry_run_option
@json_option
def enable(tools: str, dry_run: bool, as_json: bool) -> None:
    """Let models use TOOLS: python, web and mcp, separated by commas.

    Running code needs a sandbox that holds its attacks here; without one, python is refused.
    """
    with App() as app:
        from nemotron_ops.sandbox import enabled
        from nemotron_ops.sandbox.open import Room

        names = enabled.names_in(tools)
        if "python" in names:
            backend = Room(layout=app.layout, env=app.env, report=app.ui.report).backend()
            app.ui.say(f"code runs in: {backend.backend}")
        _change(app, names, on=True, dry_run=dry_run, as_json=as_json)


@click.command()
@click.argument("tools")
@dry_run_option
@json_option
def disable(tools: str, dry_run: bool, as_json: bool) -> None:
    """Take TOOLS away from models: python, web and mcp, separated by commas."""
    with App() as app:
        from nemotron_ops.sandbox import enabled

        _change(app, enabled.names_in(tools), on=False, dry_run=dry_run, as_json=as_json)


def _change(app: App, names: tuple[str, ...], *, on: bool, dry_run: bool, as_json: bool) -> None:
    from nemotron_ops.sandbox import enabled

    path = app.layout.config / enabled.FILE
    if dry_run:
        app.ui.say(f"would {'enable' if on else 'disable'} {', '.join(names)} in {path}")
        after = enabled.allowed(app.layout.config)
    else:
        after = enabled.change(app.layout.config, names, on=on)
        app.ui.say(f"enabled: {', '.join(after) or 'none'} (in {path})")
    if as_json:
        app.ui.json({"enabled": list(after), "file": str(path), "dry_run": dry_run})
