"""`chat`: a conversation, through a running endpoint if there is one, else with llama-cli. Terminal, HTTP."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, confirmation, dry_run_option, json_option
from nemotron_ops.cli.remote import ssh_option
from nemotron_ops.errors import ControlError, UsageError

if TYPE_CHECKING:
    from nemotron_ops.operations.ask import Answer


@click.command()
@click.argument("target", metavar="RECIPE")
@click.option("--profile", default="", help="Sampling profile: chat, tools … [default: the endpoint's own]")
@click.option("--show-special", is_flag=True, help="Show where thinking starts (<think>) and ends (</think>).")
@click.option("--once", "prompt", metavar="PROMPT", help="Ask this one question, print the answer, end.")
@click.option("--url", default="", help="Base URL of an endpoint, ending in /v1 [default: the running supervisor's].")
@click.option("--target", "remote", default="", metavar="TARGET", help="Talk to another machine, through ssh.")
@click.option("--remote-port", type=click.IntRange(1, 65535), default=8001, show_default=True, help="Its port there.")
@ssh_option
@click.option("--api-key-file", type=click.Path(path_type=Path, dir_okay=False), help="File with the key to show.")
@dry_run_option
@json_option
def chat(
    target: str, profile: str, show_special: bool, prompt: str | None, url: str, remote: str, remote_port: int,
    ssh_config: Path | None, api_key_file: Path | None, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Talk to a model.

    Asks the running endpoint if it serves RECIPE; otherwise starts llama-cli with the how-to guide's flags for a
    conversation (profile `conversation` of the recipe).
    """
    if as_json and prompt is None and not dry_run:
        raise UsageError("cannot print a conversation as JSON", hint="ask one question: --once PROMPT")
    name = f"{target}:{profile}" if profile else target
    with App() as app, ExitStack() as stack:
        base_url = url
        if remote and not dry_run:
            from nemotron_ops.cli.tunnel import through

            base_url = stack.enter_context(through(app, remote, config=ssh_config, remote_port=remote_port))
        base_url = base_url or ("" if remote else _running(app, target))
        if not base_url and not remote:
            _llama_cli(app, target, profile, prompt, show_special=show_special, dry_run=dry_run, as_json=as_json)
            return
        if dry_run:
            where = base_url or f"{remote}, port {remote_port}, through ssh"
            app.ui.json({"url": where, "model": name}) if as_json else app.ui.data(f"{where}  model {name}")
            return
        key = api_key_file.read_text().split()[0] if api_key_file else app.env.get("NEMOTRON_OPS_API_KEY", "")
        _Conversation(app, base_url, name, key, show_special=show_special, quiet=as_json).run(prompt)


def _running(app: App, target: str) -> str:
    """The base URL of the running supervisor if it serves `target`, else nothing."""
    from nemotron_ops.supervisor.control import client

    try:
        status = client.request(app.layout, "status")
    except ControlError:
        return ""
    served = {name for model in status["models"] for name in model["names"]}
    return str(status["endpoint"]["url"]) if target in served else ""


def _llama_cli(
    app: App, target: str, profile: str, prompt: str | None, *, show_special: bool, dry_run: bool, as_json: bool
) -> None:
    """Become llama-cli with the guide's flags; does not return unless `dry_run`."""
    from nemotron_ops.operations.converse import Conversation, llama_cli_argv

    wanted = Conversation(target=target, profile=profile, prompt=prompt, show_special=show_special)
    confirm = confirmation(as_json=as_json, dry_run=dry_run)
    argv = llama_cli_argv(wanted, app.installation, dry_run=dry_run, confirm=confirm)
    if dry_run:
        app.ui.json({"argv": argv}) if as_json else app.ui.data(" ".join(argv))
        return
    if as_json:
        raise UsageError("cannot print llama-cli's answer as JSON", hint=f"start `nemotron-ops serve {target}` first")
    app.ui.say(f"no running endpoint serves {target}: starting llama-cli")
    app.ui.end_bars()
    sys.stdout.flush()
    os.execv(argv[0], argv)


class _Conversation:
    """Turns of one conversation; the history keeps contents, not thoughts, as the model's template expects."""

    def __init__(self, app: App, base_url: str, model: str, key: str, *, show_special: bool, quiet: bool) -> None:
        self.app, self.base_url, self.model, self.key = app, base_url, model, key
        self.show_special, self.quiet = show_special, quiet
        self.history: list[dict[str, Any]] = []
        self._thinking: bool | None = None

    def run(self, prompt: str | None) -> None:
        if prompt is not None:
            answer = self.turn(prompt)
            if self.quiet:
                self.app.ui.json(asdict(answer))
            return
        self.app.ui.say(f"{self.model} at {self.base_url}; end with Ctrl-D")
        while True:
            try:
                line = input("> ")
            except EOFError:
                print()
                return
            if line.strip():
                self.turn(line)

    def turn(self, text: str) -> Answer:
        from nemotron_ops.operations.ask import ask

        self.history.append({"role": "user", "content": text})
        self._thinking = None
        answer = ask(self.base_url, model=self.model, messages=self.history, api_key=self.key, on_text=self._show)
        self.history.append({"role": "assistant", "content": answer.content})
        if not self.quiet:
            self._mark(None)
            print(flush=True)
            if answer.tokens_per_s:
                self.app.ui.say(f"[{answer.tokens} tokens, {answer.tokens_per_s:.0f} tokens/s]")
        return answer

    def _show(self, text: str, thinking: bool) -> None:
        if self.quiet:
            return
        if thinking is not self._thinking:
            self._mark(thinking)
        print(text, end="", flush=True)

    def _mark(self, thinking: bool | None) -> None:
        """Show the edge between thinking and answer: dim on a terminal, tokens 12 and 13 with --show-special."""
        dim = sys.stdout.isatty()
        if self._thinking:
            print(("\x1b[0m" if dim else "") + ("</think>" if self.show_special else ""), end="")
        if thinking:
            print(("<think>\n" if self.show_special else "") + ("\x1b[2m" if dim else ""), end="")
        self._thinking = thinking
