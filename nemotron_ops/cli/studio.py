"""`studio`: the web page beside the endpoint; its password and sessions. Prints."""

from __future__ import annotations

import click

from nemotron_ops.cli.app import App, json_option
from nemotron_ops.cli.serve import serve
from nemotron_ops.errors import UsageError

PASSWORD = "password"
SESSIONS = "sessions"


class StudioGroup(click.Group):
    """A group whose own words are those of `serve`: what is no subcommand is a model to serve."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


@click.group(cls=StudioGroup, invoke_without_command=True)
def studio() -> None:
    """Serve models with the web page beside them: `studio 30b`, with all options of `serve`.

    The page is at http://127.0.0.1:8888; its first launch asks for a password, with a code that is shown here.
    """


@studio.command("serve", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@json_option
@click.pass_context
def serve_with_page(ctx: click.Context, words: tuple[str, ...], as_json: bool) -> None:
    """Serve models with the page (the default)."""
    cut = words.index("--") if "--" in words else len(words)
    own = [*words[:cut], "--studio", *(["--json"] if as_json else []), *words[cut:]]
    with serve.make_context("studio", own, parent=ctx) as inner:
        serve.invoke(inner)


@studio.command(PASSWORD)
@json_option
def password(as_json: bool) -> None:
    """Set the page's password; all its sessions end."""
    with App() as app:
        from nemotron_ops.operations.page import folder
        from nemotron_ops.studio.login import passwords
        from nemotron_ops.studio.login.store import LoginStore

        wanted = click.prompt("new password", hide_input=True, confirmation_prompt=True)
        if problem := passwords.problem(wanted):
            raise UsageError(f"cannot set the password: {problem}")
        LoginStore(folder(app.layout)).set_password(wanted)
        app.ui.json({"ok": True}) if as_json else app.ui.say("the password is set; log in anew")


@studio.command(SESSIONS)
@click.option("--revoke", is_flag=True, help="End all sessions.")
@json_option
def sessions(revoke: bool, as_json: bool) -> None:
    """List who is logged in to the page."""
    with App() as app:
        from datetime import datetime

        from nemotron_ops.operations.page import folder
        from nemotron_ops.studio.login.store import LoginStore

        store = LoginStore(folder(app.layout))
        if revoke:
            store.end()
        if as_json:
            app.ui.json([{"seen_s": s.seen_s, "begun_s": s.begun_s, "browser": s.agent} for s in store.sessions()])
            return
        rows = [(datetime.fromtimestamp(s.seen_s).strftime("%Y-%m-%d %H:%M"), s.agent) for s in store.sessions()]
        app.ui.table(("seen", "browser"), rows)
