"""`serve`: from a recipe's name to an endpoint that stays up. Prints."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, confirmation, dry_run_option, json_option
from nemotron_ops.errors import UsageError

if TYPE_CHECKING:
    from nemotron_ops.operations.wish import Composed

SPECIAL = "--special is on: llama-server will print its end token (<|im_end|>) at the end of every answer"


class ServeCommand(click.Command):
    """Keeps the words after `--` apart from the targets: they are flags for llama-server."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        cut = args.index("--") if "--" in args else len(args)
        ctx.meta["own"], ctx.meta["extra"] = args[:cut], args[cut + 1 :]
        return super().parse_args(ctx, args[:cut])


def sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The how-to guide's flags, in both of its spellings."""
    options = [
        click.option("--ctx-size", "--ctx_size", "-c", type=int, help="Context in tokens, over all slots."),
        click.option("--parallel", "-np", type=click.IntRange(1), help="Slots: requests worked on at once."),
        click.option("--prio", type=click.IntRange(-1, 3), help="Scheduling priority of llama-server."),
        click.option("--min-p", "--min_p", type=float, help="Default min-p of sampling."),
        click.option("--temp", type=float, help="Default temperature."),
        click.option("--top-p", "--top_p", type=float, help="Default top-p of sampling."),
        click.option("--top-k", "--top_k", type=int, help="Default top-k of sampling."),
        click.option("--seed", type=int, help="Default seed of sampling; -1 is random."),
        click.option("--n-gpu-layers", "--n_gpu_layers", "-ngl", help="Layers on the GPU: a number, all or auto."),
        click.option(
            "--n-cpu-moe", "--n_cpu_moe", "-ncmoe", type=int, help="Layers whose experts stay in host memory."
        ),
        click.option("--threads", "-t", type=int, help="CPU threads."),
        click.option("--special", is_flag=True, default=None, help="Print special tokens (the end token leaks)."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command(cls=ServeCommand)
@click.argument("targets", nargs=-1, metavar="RECIPE|REPO:QUANT|FILE.gguf... [-- LLAMA-SERVER-FLAGS]")
@click.option("--model", "-m", "files", multiple=True, metavar="FILE", help="A GGUF file to serve.")
@click.option("-hf", "--hf", "repos", multiple=True, metavar="REPO:QUANT", help="A Hugging Face repository to serve.")
@click.option("--quant", "quants", multiple=True, metavar="[RECIPE=]Q", help="Quant to serve instead of the recipe's.")
@click.option("--profile", default="", help="Profile of the recipe: chat, tools, guide …")
@sampling_options
@click.option("--alias", help="Public name of the model.")
@click.option("--host", help="Address to listen on [default: 127.0.0.1].")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on [default: 8001].")
@click.option("--api-key-file", type=click.Path(dir_okay=False), help="Keys that clients must show; see `keys`.")
@click.option("--no-build", is_flag=True, help="Fail rather than build llama.cpp.")
@click.option("--no-fetch", is_flag=True, help="Fail rather than download a model.")
@click.option("--offline", is_flag=True, help="Reach out to nothing: --no-build and --no-fetch.")
@click.option("--detach", is_flag=True, help="Return when ready (or failed); go on in the background.")
@dry_run_option
@json_option
@click.pass_context
def serve(
    ctx: click.Context, /, targets: tuple[str, ...], files: tuple[str, ...], repos: tuple[str, ...],
    quants: tuple[str, ...], profile: str,
    no_build: bool, no_fetch: bool, offline: bool, detach: bool, dry_run: bool, as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Serve models behind one OpenAI-compatible endpoint.

    Builds llama.cpp and fetches the model if need be, plans memory, starts llama-server, keeps it running, and
    prints the endpoint when it is ready. Ctrl-C drains and stops. Flags after `--` go to llama-server, if the build
    knows them and they are on the allow-list.
    """
    from nemotron_ops.cli.announce import Announcer
    from nemotron_ops.operations import serving
    from nemotron_ops.operations.compose import compose
    from nemotron_ops.operations.detach import serve_detached
    from nemotron_ops.operations.wish import Wish

    with App() as app:
        wanted = (*targets, *files, *repos)
        if not wanted:
            raise UsageError("cannot serve: no model named", hint="try `nemotron-ops serve 30b`, or see `recipes list`")
        if flags["special"]:
            app.ui.warn(SPECIAL)
        wish = Wish(
            targets=wanted, quants=_by_name(quants), profile=profile, flags=_given(flags),
            extra=tuple(ctx.meta["extra"]), may_build=not (no_build or offline), may_fetch=not (no_fetch or offline),
        )  # fmt: skip
        here = app.installation
        composed = compose(wish, here, dry_run=dry_run, confirm=confirmation(as_json=as_json, dry_run=dry_run))
        app.ui.end_bars()
        for note in composed.notes:
            app.ui.say(note)
        if dry_run:
            app.ui.json(_as_json(composed)) if as_json else app.ui.data(_as_text(composed))
            return
        on_snapshot = Announcer(app, composed, as_json=as_json).on_snapshot
        if not detach:
            ctx.exit(serving.serve(wish, composed, here, on_snapshot=on_snapshot))
        started = serve_detached(ctx.meta["own"], ctx.meta["extra"], composed, here, on_snapshot=on_snapshot)
        app.ui.say(f"running in the background (pid {started.pid}); see `nemotron-ops status`, log in {started.log}")


def _by_name(quants: Sequence[str]) -> dict[str, str]:
    """`--quant Q8_0 --quant 30b=Q4_0` as {"": "Q8_0", "30b": "Q4_0"}."""
    return {name: quant for name, _, quant in (q.rpartition("=") for q in quants)}


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given; a number of GPU layers as a number."""
    given = {k: v for k, v in flags.items() if v is not None}
    if str(given.get("n_gpu_layers", "")).lstrip("-").isdigit():
        given["n_gpu_layers"] = int(given["n_gpu_layers"])
    if "api_key_file" in given:
        given["api_key_file"] = str(Path(given["api_key_file"]).absolute())
    return given


def _as_json(composed: Composed) -> dict[str, Any]:
    plans = [
        {
            "name": p.name,
            "profile": p.profile,
            "alias": p.alias,
            "settings": {k: asdict(s) for k, s in p.settings.items()},
        }
        for p in composed.plans
    ]
    instances = [
        {"name": i.name, "argv": list(i.argv), "memory_bytes": i.memory_bytes} for i in composed.config.instances
    ]
    return {"endpoint": composed.endpoint.url, "models": plans, "instances": instances, "notes": list(composed.notes)}


def _as_text(composed: Composed) -> str:
    from nemotron_ops.ui import render_table

    parts = [f"endpoint  {composed.endpoint.url}"]
    for instance in composed.config.instances:
        parts += ["", f"# {instance.name}", command_text(instance.argv)]
    for plan in composed.plans:
        rows = [[k, str(s.value), s.source] for k, s in sorted(plan.settings.items())]
        parts += ["", render_table([plan.name.upper(), "VALUE", "FROM"], rows)]
    return "\n".join(parts)


def command_text(argv: Sequence[str]) -> str:
    """A command line that can be pasted into a shell, one flag with its value per line."""
    lines, words = [], [shlex.quote(argv[0])]
    for word in argv[1:]:
        if word.startswith("-") and not word.lstrip("-").replace(".", "").isdigit():
            lines.append(" ".join(words))
            words = []
        words.append(shlex.quote(word))
    return " \\\n  ".join([*lines, " ".join(words)])
