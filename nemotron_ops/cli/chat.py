"""`chat`: a conversation, through a running endpoint if there is one, else with llama-cli. Terminal, HTTP."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, confirmation, dry_run_option, json_option
from nemotron_ops.cli.options import option, options_of
from nemotron_ops.cli.remote import SSH_FILE, SSH_FLAGS, SSH_HELP
from nemotron_ops.errors import ControlError, UsageError

if TYPE_CHECKING:
    from nemotron_ops.operations.ask import Answer


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """What `chat` was asked for, besides the recipe."""

    profile: str = option("Sampling profile: chat, tools … [default: the endpoint's own]")
    show_special: bool = option("Show where thinking starts (<think>) and ends (</think>).")
    prompt: str | None = option("Ask this one question, print the answer and exit.", "--once", metavar="PROMPT")
    url: str = option("Base URL of an endpoint, ending in /v1 [default: the running supervisor's].")
    remote: str = option("Talk to an endpoint on another machine, over ssh.", "--target", metavar="TARGET")
    remote_port: int = option("Port of its endpoint.", default=8001, type=click.IntRange(1, 65535), show_default=True)
    ssh_config: Path | None = option(SSH_HELP, *SSH_FLAGS, type=SSH_FILE)
    api_key_file: Path | None = option("File with the key to send.", type=click.Path(path_type=Path, dir_okay=False))


@click.command()
@click.argument("target", metavar="RECIPE")
@options_of(ChatOptions)
@dry_run_option
@json_option
def chat(target: str, wanted: ChatOptions, dry_run: bool, as_json: bool) -> None:
    """Talk to a model.

    Asks the running endpoint if it serves RECIPE. Otherwise starts llama-cli with the how-to guide's flags for a
    conversation (profile `conversation` of the recipe).
    """
    if as_json and wanted.prompt is None and not dry_run:
        raise UsageError("cannot print a conversation as JSON", hint="ask one question: --once PROMPT")
    name = f"{target}:{wanted.profile}" if wanted.profile else target
    with App() as app, ExitStack() as stack:
        base_url = wanted.url
        if wanted.remote and not dry_run:
            from nemotron_ops.cli.tunnel import through

            tunnel = through(app, wanted.remote, config=wanted.ssh_config, remote_port=wanted.remote_port)
            base_url = stack.enter_context(tunnel)
        base_url = base_url or ("" if wanted.remote else _running(app, target))
        if not base_url and not wanted.remote:
            _llama_cli(app, target, wanted, dry_run=dry_run, as_json=as_json)
            return
        if dry_run:
            where = base_url or f"{wanted.remote}, port {wanted.remote_port}, through ssh"
            app.ui.json({"url": where, "model": name}) if as_json else app.ui.data(f"{where}  model {name}")
            return
        key_file = wanted.api_key_file
        key = _key_in(key_file) if key_file else app.env.get("NEMOTRON_OPS_API_KEY", "")
        endpoint = _Endpoint(base_url=base_url, model=name, key=key)
        _Conversation(app, endpoint, show_special=wanted.show_special, quiet=as_json).run(wanted.prompt)


def _running(app: App, target: str) -> str:
    """The base URL of the running supervisor if it serves `target`, else nothing."""
    from nemotron_ops.supervisor.control import client

    try:
        status = client.request(app.layout, "status")
    except ControlError:
        return ""
    served = {
        name + adapter
        for model in status["models"]
        for name in model["names"]
        for adapter in ("", *(f":{a}" for a in model.get("adapters", ())))
    }
    return str(status["endpoint"]["url"]) if target in served else ""


def _llama_cli(app: App, target: str, wanted: ChatOptions, *, dry_run: bool, as_json: bool) -> None:
    """Become llama-cli with the guide's flags; does not return unless `dry_run`."""
    from nemotron_ops.operations.converse import Conversation, llama_cli_argv

    conversation = Conversation(
        target=target, profile=wanted.profile, prompt=wanted.prompt, show_special=wanted.show_special
    )
    confirm = confirmation(as_json=as_json, dry_run=dry_run)
    argv = llama_cli_argv(conversation, app.installation, dry_run=dry_run, confirm=confirm)
    if dry_run:
        app.ui.json({"argv": argv}) if as_json else app.ui.data(" ".join(argv))
        return
    if as_json:
        raise UsageError("cannot print llama-cli's answer as JSON", hint=f"start `nemotron-ops serve {target}` first")
    app.ui.say(f"no running endpoint serves {target}: starting llama-cli")
    app.ui.end_bars()
    sys.stdout.flush()
    os.execv(argv[0], argv)


@dataclass(frozen=True, kw_only=True)
class _Endpoint:
    """Where the conversation goes."""

    base_url: str
    model: str
    key: str = field(repr=False)


class _Conversation:
    """Turns of one conversation; the history keeps contents without reasoning, as the model's template expects."""

    def __init__(self, app: App, endpoint: _Endpoint, *, show_special: bool, quiet: bool) -> None:
        self.app, self.endpoint = app, endpoint
        self.show_special, self.quiet = show_special, quiet
        self.history: list[dict[str, Any]] = []
        self._thinking: bool | None = None

    def run(self, prompt: str | None) -> None:
        if prompt is not None:
            answer = self.turn(prompt)
            if self.quiet:
                self.app.ui.json(asdict(answer))
            return
        self.app.ui.say(f"{self.endpoint.model} at {self.endpoint.base_url}; end with Ctrl-D")
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
        to = self.endpoint
        answer = ask(to.base_url, model=to.model, messages=self.history, api_key=to.key, on_text=self._show)
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
        """Show where reasoning starts and ends: dim on a terminal, tokens 12 and 13 with --show-special."""
        dim = sys.stdout.isatty()
        if self._thinking:
            print(("\x1b[0m" if dim else "") + ("</think>" if self.show_special else ""), end="")
        if thinking:
            print(("<think>\n" if self.show_special else "") + ("\x1b[2m" if dim else ""), end="")
        self._thinking = thinking


def _key_in(path: Path) -> str:
    """The first word of a key file. Raises UsageError."""
    from nemotron_ops.files import read_plain

    try:
        words = read_plain(path).decode().split()
    except (OSError, UnicodeError) as exc:
        raise UsageError(f"cannot read {path}: {getattr(exc, 'strerror', None) or 'not UTF-8 text'}") from exc
    if not words:
        raise UsageError(f"cannot use {path}: there is no key in it")
    return words[0]
