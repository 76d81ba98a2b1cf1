"""The command line. The only room, with `ui`, that prints; the one boundary where errors become words and exit codes.

Commands are listed here with their one-line help and imported only when called, so that `--help` is quick. A command
reads its words, calls `operations` or a room, and shows what comes back. Each file uses only those below it:

    demo             the whole job on a model of 1 MB: build, serve, ask, stop
    doctor           what this machine has, lacks, and how to fix it
    build            from llama.cpp's source to a proven binary
    builds           list, choose, compare, move and remove builds
    upgrade          `upgrade` and `rollback`: a new build or quant beside the running one
    removed          how commands tell of removed builds
    models           list, check, move and remove downloaded models; search the hub
    models_found     what `models search` shows
    fetch            download a model and verify its checksums
    convert          safetensors become GGUF models of the store
    plan             what fits this machine, before anything is downloaded
    plan_view        how a memory plan looks: table, bars
    tune             `tune`: its subcommands
    tune_train       `tune MODEL --data FILE`, `tune resume`
    tune_compare     `tune compare`, `tune export`
    tune_jobs        `tune list`, `show`, `pause`, `rm`
    tune_check       `tune check`: what is wrong with training data
    recipes          list, show, check and start recipes
    service          install, watch and remove the service
    service_install  `service install`
    service_scope    the machine's service or this user's
    serve_words      reads --serve-option as `serve` will read it
    serve            from a recipe's name to an endpoint that stays up
    studio           `studio`: the web page, with or without models; its password
    announce         what `serve` shows: load progress, deaths, the endpoint
    keys             make, list and revoke the keys that clients show
    status           what is running
    stop             `stop`, `start`, `restart`, `drain`
    add              `add`, `change`, `remove`: what a running supervisor serves
    reload           apply changed recipes and settings
    logs             `logs`, `events`, `attach`
    deploy           the same program on other machines, over SSH
    deploy_run       `deploy run`
    deploy_view      a deploy's plan, and its outcome on each target
    balancer         HAProxy in front of a group of targets
    export           manifests for other orchestrators
    bench            how fast an endpoint is: `bench`, `bench list`, `bench show`, `bench compare`, `bench plot`
    bench_view       how runs and their comparisons look: tables, pictures, a page
    eval             how good a model answers, and whether another may take its place
    optimize         finds llama-server's flags for this machine by measuring
    chat             talk to a model
    tools            what models may use: `tools run`, `tools doctor`, `tools enable`
    tools_heal       `tools heal`: what healing makes of tool calls in a file
    tools_web        `tools search`, `tools read`: the web as models get it
    tools_mcp        `tools mcp`: MCP servers, what they offer, what of it is confirmed
    tools_run        `tools run`: code in a sandbox
    tools_doctor     `tools doctor`: which walls this machine has, and what they held
    tools_approvals  `tools approvals`, `approve`, `deny`, `revoke`: calls that wait for a person
    tools_enable     `tools enable`, `tools disable`
    mcp              `mcp`: our tools for any MCP client
    tunnel           forwards a remote endpoint to a local port
    self_            `self`: completion, man pages, whether this installation is whole, a newer version
    man_pages        man pages from the tree of commands
    completion       shell completion, with the names of models and builds
    windows          what is said on Windows itself
    options          click options from a frozen dataclass
    remote           options and lines that commands for other machines share
    app              installation and terminal, read once at the edge
"""

from __future__ import annotations

import errno
import io
import os
import sys
from difflib import get_close_matches
from importlib import import_module

import click

from nemotron_ops import __version__
from nemotron_ops.addresses import readable_no_proxy
from nemotron_ops.cli.completion import is_asked, with_names
from nemotron_ops.cli.windows import check_platform
from nemotron_ops.errors import HostError, NemotronOpsError, conceal_environment

# command -> (module in nemotron_ops.cli, function, one line for `--help`)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "doctor": ("doctor", "doctor", "Check this machine for everything that building and serving need."),
    "build": ("build", "build", "Build llama.cpp for this machine."),
    "builds": ("builds", "builds", "List, choose and remove builds."),
    "fetch": ("fetch", "fetch", "Download a model and verify its checksums."),
    "convert": ("convert", "convert", "Convert a model in safetensors to GGUF, and store it."),
    "models": ("models", "models", "List, check and remove downloaded models."),
    "plan": ("plan", "plan", "Show what fits this machine."),
    "recipes": ("recipes", "recipes", "List, show, check and start recipes."),
    "serve": ("serve", "serve", "Serve models behind one OpenAI-compatible endpoint."),
    "studio": ("studio", "studio", "Serve the web page: chat, compare, models, what runs."),
    "keys": ("keys", "keys", "Make, list and revoke the keys that clients need."),
    "chat": ("chat", "chat", "Talk to a model."),
    "demo": ("demo", "demo", "Build, serve a tiny model, ask it a question, stop."),
    "status": ("status", "status", "Show what is running."),
    "logs": ("logs", "logs", "Show or follow an instance's log."),
    "upgrade": ("upgrade", "upgrade", "Try a new build or quant beside the running one; keep it if it is as good."),
    "rollback": ("upgrade", "rollback", "Make the build before this one current again, and serve with it."),
    "stop": ("stop", "stop", "Drain and stop."),
    "start": ("stop", "start", "Start what is stopped, failed or drained."),
    "restart": ("stop", "restart", "Drain, stop and start again."),
    "drain": ("stop", "drain", "Take instances out of traffic; models stay loaded."),
    "add": ("add", "add", "Serve one more model at the running endpoint."),
    "change": ("add", "change", "Serve a model with other options, without an outage."),
    "remove": ("add", "remove", "Serve a model no longer."),
    "reload": ("reload", "reload", "Apply changed recipes and settings without an outage."),
    "tune": ("tune", "tune", "Fine-tune a model on your own data."),
    "bench": ("bench", "bench", "Measure how fast an endpoint is; keep and compare the numbers."),
    "eval": ("eval", "evaluate", "Measure how good a model answers; compare quants and builds."),
    "optimize": ("optimize", "optimize", "Find llama-server's flags for this machine by measuring."),
    "events": ("logs", "events", "Show or follow events."),
    "attach": ("logs", "attach", "Watch a detached supervisor."),
    "deploy": ("deploy", "deploy", "Put this version and your models on other machines, over SSH."),
    "mcp": ("mcp", "mcp", "Give run_python, web_search and read_page to any MCP client."),
    "tunnel": ("tunnel", "tunnel", "Forward a remote endpoint to a local port."),
    "balancer": ("balancer", "balancer", "One endpoint for many hosts: HAProxy for a group of targets."),
    "export": ("export", "export", "Write manifests for other orchestrators (Kubernetes)."),
    "tools": ("tools", "tools", "Run code in a sandbox; choose what models may use."),
    "self": ("self_", "self_", "Complete words in a shell, write man pages, check and upgrade nemotron-ops."),
    "service": ("service", "service", "Install, watch and remove the systemd or launchd service."),
}


EDGE = (OSError, ImportError, UnicodeError)
ELSEWHERE = "set NEMOTRON_OPS_HOME to a folder that you may write; `nemotron-ops doctor` checks it"
WAYS_ON = {
    errno.EACCES: ELSEWHERE,
    errno.EPERM: ELSEWHERE,
    errno.EROFS: ELSEWHERE,
    errno.ENOTDIR: "a file is in the place of a folder: move it away, or set NEMOTRON_OPS_HOME",
    errno.ENOSPC: "free some space: nemotron-ops builds prune; nemotron-ops models rm MODEL",
    errno.EDQUOT: "your quota is used up: nemotron-ops builds prune; nemotron-ops models rm MODEL",
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, function, _ = COMMANDS[cmd_name]
        command = getattr(import_module(f"nemotron_ops.cli.{module}"), function)
        assert isinstance(command, click.Command)
        return with_names(command) if is_asked() else command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, _, about) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            near = get_close_matches(args[0], COMMANDS, n=1)
            if not near:
                raise
            raise click.UsageError(f"{exc.message} Did you mean {near[0]!r}?", ctx) from exc


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="nemotron-ops")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Run NVIDIA's Nemotron 3 models on your own machines with llama.cpp."""
    ctx.meta["debug"] = debug


def main(argv: list[str] | None = None) -> None:
    """The console script: runs a command and turns its errors into words and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the C locale has no "…"
    debug = "--debug" in (sys.argv[1:] if argv is None else argv)
    conceal_environment(os.environ)
    for name in ("NO_PROXY", "no_proxy"):
        if "[" in os.environ.get(name, "") or "/" in os.environ.get(name, ""):
            os.environ[name] = readable_no_proxy(os.environ[name])
    try:
        check_platform(sys.platform, sys.argv[1:] if argv is None else argv)
        code = cli.main(args=argv, prog_name="nemotron-ops", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has closed it; nothing is wrong
        sys.exit(141)
    except (NemotronOpsError, ExceptionGroup, *EDGE) as exc:
        if debug:
            raise
        sys.exit(show(exc))
    sys.exit(code if isinstance(code, int) else 0)


def from_the_edge(exc: OSError | ImportError | UnicodeError) -> NemotronOpsError:
    """An error of the system that no room has translated, as one line. `--debug` shows where it came from."""
    if isinstance(exc, OSError):
        where = f" {exc.filename}" if exc.filename else ""
        hint = WAYS_ON.get(exc.errno or 0, "`nemotron-ops --debug` with the same words shows where")
        return HostError(f"cannot use{where or ' a file or socket'}: {exc.strerror or exc}", hint=hint)
    if isinstance(exc, UnicodeError):
        return HostError(f"cannot read or write a text: {exc}", hint="use UTF-8: LC_ALL=C.UTF-8")
    return HostError(
        f"cannot import {exc.name or 'a package'}: {exc}", hint="install it, or install nemotron-ops again"
    )


def show(exc: BaseException) -> int:
    """Print an expected error, unwrapping exception groups; returns its exit code. Raises any other again."""
    if isinstance(exc, BaseExceptionGroup):
        codes = [show(e) for e in exc.exceptions]
        return codes[0]
    if isinstance(exc, EDGE):
        exc = from_the_edge(exc)
    if not isinstance(exc, NemotronOpsError):
        raise exc
    click.echo(f"error: {exc.message}", err=True)
    for line in exc.log_tail:
        click.echo(f"  | {line}", err=True)
    if exc.hint:
        click.echo(f"hint: {exc.hint}", err=True)
    return exc.exit_code
