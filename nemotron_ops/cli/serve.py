"""`serve`: from a recipe's name to an endpoint that stays up. Prints."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, confirmation, dry_run_option, json_option, progress_option
from nemotron_ops.cli.options import option, options_of
from nemotron_ops.errors import UsageError

if TYPE_CHECKING:
    from nemotron_ops.operations.wish import Composed, Wish

SPECIAL = "--special is on: llama-server will print its end token (<|im_end|>) at the end of every answer"


class ServeCommand(click.Command):
    """Separates the words after `--`, flags for llama-server, from the targets."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        cut = args.index("--") if "--" in args else len(args)
        ctx.meta["own"], ctx.meta["extra"] = args[:cut], args[cut + 1 :]
        return super().parse_args(ctx, args[:cut])


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What `serve` was asked for, besides its targets. The how-to guide's flags have both of its spellings."""

    files: tuple[str, ...] = option("A GGUF file to serve.", "--model", "-m", metavar="FILE")
    repos: tuple[str, ...] = option("A Hugging Face repository to serve.", "-hf", "--hf", metavar="REPO:QUANT")
    quants: tuple[str, ...] = option("Quant to serve instead of the recipe's.", "--quant", metavar="[RECIPE=]Q")
    adapters: tuple[str, ...] = option("LoRA adapter to serve as RECIPE:NAME.", "--adapter", metavar="[NAME=]FILE|NAME")
    profile: str = option("Profile of the recipe: chat, tools, guide …")
    ctx_size: int | None = option("Context in tokens, over all slots.", "--ctx-size", "--ctx_size", "-c")
    parallel: int | None = option("Slots: requests processed at once.", "--parallel", "-np", type=click.IntRange(1))
    prio: int | None = option("Scheduling priority of llama-server.", type=click.IntRange(-1, 3))
    min_p: float | None = option("Default min-p of sampling.", "--min-p", "--min_p")
    temp: float | None = option("Default temperature.")
    top_p: float | None = option("Default top-p of sampling.", "--top-p", "--top_p")
    top_k: int | None = option("Default top-k of sampling.", "--top-k", "--top_k")
    seed: int | None = option("Default seed of sampling; -1 is random.")
    n_gpu_layers: str | None = option(
        "Layers on the GPU: a number, all or auto.", "--n-gpu-layers", "--n_gpu_layers", "-ngl"
    )
    n_cpu_moe: int | None = option("Layers whose experts stay in host memory.", "--n-cpu-moe", "--n_cpu_moe", "-ncmoe")
    threads: int | None = option("CPU threads.", "--threads", "-t")
    special: bool | None = option("Print special tokens (the end token leaks).")
    alias: str | None = option("Public name of the model.")
    host: str | None = option("Address to listen on [default: 127.0.0.1].")
    port: int | None = option("Port to listen on [default: 8001].", type=click.IntRange(1, 65535))
    api_key_file: str | None = option("Keys that clients must show; see `keys`.", type=click.Path(dir_okay=False))
    allowed_hosts: tuple[str, ...] = option("Further host name that clients may use.", "--allowed-host")
    allowed_origins: tuple[str, ...] = option("Web origin whose pages may call the endpoint.", "--allowed-origin")
    tls_cert: str | None = option("Certificate chain file (PEM); turns TLS on.", type=click.Path(dir_okay=False))
    tls_key: str | None = option("Private key file of --tls-cert.", type=click.Path(dir_okay=False))
    max_connections: int | None = option("Most client connections at once.", type=click.IntRange(1))
    max_receiving_mib: int | None = option("Most MiB of bodies being received.", type=click.IntRange(1))
    no_build: bool = option("Fail rather than build llama.cpp.")
    no_fetch: bool = option("Fail rather than download a model.")
    offline: bool = option("Use no network: --no-build and --no-fetch.")
    decided: tuple[str, ...] = option("Quant that the caller decided on.", hidden=True, default=())
    empty: bool = option("Start also without a model: `nemotron-ops add` brings one.")
    fresh: bool = option("Forget what `add`, `change` and `remove` did since these words were served last.")
    studio: bool = option("Also serve the web page, at --studio-port.")
    studio_port: int = option("Port of the web page.", default=8888, type=click.IntRange(1, 65535))
    detach: bool = option("Return when ready (or failed); keep running in the background.")

    def wish(self, targets: tuple[str, ...], extra: Sequence[str]) -> Wish:
        """What is to be served. Raises UsageError if no model is named, unless there may be none."""
        from nemotron_ops.operations.wish import ModelWish, Wish

        named = (*targets, *self.files, *self.repos)
        if not named and not (self.empty or self.studio):
            raise UsageError(
                "cannot serve: no model named",
                hint="try `nemotron-ops serve 30b`, or see `recipes list`; with --empty models can come later",
            )
        if len(named) > 1 and self.alias:
            raise UsageError("cannot use --alias with several models: which one is meant is unclear")
        if len(named) > 1 and self.adapters:
            raise UsageError(
                "cannot use --adapter with several models: which one is meant is unclear",
                hint="name adapters in recipes ([[adapters]]), or serve the models with `add`",
            )
        of_all = {k: v for k, v in self.flags.items() if k in OF_ALL}
        of_each = {k: v for k, v in self.flags.items() if k not in OF_ALL}
        return Wish(
            models=tuple(
                ModelWish(
                    target=settled(t),
                    profile=self.profile,
                    flags=of_each,
                    extra=tuple(extra),
                    adapters=tuple(map(settled_adapter, self.adapters)),
                )
                for t in named
            ),
            quants=by_name(self.quants),
            decided=by_name(self.decided),
            flags=of_all,
            gateway=self.gateway,
            empty=self.empty,
            fresh=self.fresh,
            may_build=not (self.no_build or self.offline),
            may_fetch=not (self.no_fetch or self.offline),
            studio=self.studio,
            studio_port=self.studio_port,
        )

    @property
    def gateway(self) -> dict[str, Any]:
        """The gateway's settings that were given, by field name of `Settings`."""
        given = {name: getattr(self, name) for name in GATEWAY if getattr(self, name)}
        files: dict[str, Any] = {
            name: str(Path(given[name]).absolute()) for name in ("tls_cert", "tls_key") if name in given
        }
        return {**given, **files}

    @property
    def flags(self) -> dict[str, Any]:
        """The flags that were given, by field name; a number of GPU layers as a number."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in NO_FLAGS}
        given = {k: v for k, v in given.items() if v is not None}
        if str(given.get("n_gpu_layers", "")).lstrip("-").isdigit():
            given["n_gpu_layers"] = int(given["n_gpu_layers"])
        if "api_key_file" in given:
            given["api_key_file"] = str(Path(given["api_key_file"]).absolute())
        return given


GATEWAY = frozenset({"allowed_hosts", "allowed_origins", "tls_cert", "tls_key", "max_connections", "max_receiving_mib"})
OF_ALL = frozenset({"host", "port", "api_key_file"})  # where clients connect
NO_FLAGS = GATEWAY | frozenset(
    {
        "adapters", "files", "repos", "quants", "decided", "profile", "no_build", "no_fetch", "offline", "detach",
        "empty", "fresh", "studio", "studio_port",
    }
)  # fmt: skip


def by_name(words: Sequence[str]) -> dict[str, str]:
    """`RECIPE=QUANT` words by recipe, `QUANT` alone under ""."""
    return {name: quant for name, _, quant in (w.rpartition("=") for w in words)}


def settled(target: str) -> str:
    """A file's absolute path, which still names it from another folder; any other target as it is."""
    path = Path(target)
    return str(path.absolute()) if path.suffix.lower() == ".gguf" and path.is_file() else target


def settled_adapter(word: str) -> str:
    """An adapter's file by its absolute path; a name as it is."""
    name, equals, file = word.rpartition("=")
    return f"{name}{equals}{Path(file).absolute()}" if file.lower().endswith(".gguf") else word


@click.command(cls=ServeCommand)
@click.argument("targets", nargs=-1, metavar="RECIPE|REPO:QUANT|FILE.gguf... [-- LLAMA-SERVER-FLAGS]")
@options_of(ServeOptions)
@dry_run_option
@progress_option
@json_option
@click.pass_context
def serve(ctx: click.Context, /, targets: tuple[str, ...], wanted: ServeOptions, dry_run: bool, as_json: bool) -> None:
    """Serve models behind one OpenAI-compatible endpoint.

    Builds llama.cpp and fetches the model if need be, plans memory, starts llama-server, keeps it running, and
    prints the endpoint when it is ready. Ctrl-C drains and stops. Flags after `--` go to llama-server, if the build
    knows them and they are on the allow-list.
    """
    from nemotron_ops.cli.announce import Announcer
    from nemotron_ops.operations import serving
    from nemotron_ops.operations.compose import compose
    from nemotron_ops.operations.detach import serve_detached

    with App() as app:
        words = wanted.wish(targets, ctx.meta["extra"])
        if wanted.special:
            app.ui.warn(SPECIAL)
        here = app.installation
        asked = serving.asked_for(words, here)
        wish = asked.wish
        composed = compose(wish, here, dry_run=dry_run, confirm=confirmation(as_json=as_json, dry_run=dry_run))
        app.ui.end_bars()
        for note in composed.notes:
            app.ui.say(note)
        if dry_run:
            app.ui.json(_as_json(composed)) if as_json else app.ui.data(_as_text(composed))
            return
        on_snapshot = Announcer(app, composed, as_json=as_json).on_snapshot
        if wish.studio and not wanted.detach:
            _say_page(app, wish, composed)
        if not wanted.detach:
            ctx.exit(serving.serve(asked, composed, here, on_snapshot=on_snapshot))
        started = serve_detached(ctx.meta["own"], ctx.meta["extra"], composed, here, on_snapshot=on_snapshot)
        app.ui.say(f"running in the background (pid {started.pid}); see `nemotron-ops status`, log in {started.log}")
        if wish.studio:
            _say_page(app, wish, composed)


def _say_page(app: App, wish: Wish, composed: Composed) -> None:
    """The page's address. Its one-time code is made last, so that the code which is shown is the one that counts."""
    from nemotron_ops.operations.page import page_url

    app.ui.say(f"studio    {page_url(wish, composed.endpoint, app.layout)}")


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
