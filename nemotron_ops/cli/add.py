"""`add`, `change`, `remove`: what a running supervisor serves. Prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, confirmation, dry_run_option, json_option, progress_option
from nemotron_ops.cli.options import option, options_of
from nemotron_ops.cli.serve import ServeCommand, settled, settled_adapter

if TYPE_CHECKING:
    from nemotron_ops.operations.wish import Wish
    from nemotron_ops.progress import Report
    from nemotron_ops.supervisor.snapshot import Snapshot

NO_FLAGS = ("quant", "profile", "adapters")
ARGUMENT = "RECIPE|REPO:QUANT|FILE.gguf [-- LLAMA-SERVER-FLAGS]"


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Options of one model, as `serve` has them."""

    quant: str = option("Quant to serve instead of the recipe's.", metavar="Q")
    adapters: tuple[str, ...] = option("LoRA adapter to serve as RECIPE:NAME.", "--adapter", metavar="[NAME=]FILE|NAME")
    profile: str = option("Profile of the recipe: chat, tools, guide …")
    ctx_size: int | None = option("Context in tokens, over all slots.", "--ctx-size", "-c")
    parallel: int | None = option("Slots: requests processed at once.", "--parallel", "-np", type=click.IntRange(1))
    prio: int | None = option("Scheduling priority of llama-server.", type=click.IntRange(-1, 3))
    min_p: float | None = option("Default min-p of sampling.")
    temp: float | None = option("Default temperature.")
    top_p: float | None = option("Default top-p of sampling.")
    top_k: int | None = option("Default top-k of sampling.")
    seed: int | None = option("Default seed of sampling; -1 is random.")
    n_gpu_layers: str | None = option("Layers on the GPU: a number, all or auto.", "--n-gpu-layers", "-ngl")
    n_cpu_moe: int | None = option("Layers whose experts stay in host memory.", "--n-cpu-moe", "-ncmoe")
    threads: int | None = option("CPU threads.", "--threads", "-t")
    alias: str | None = option("Public name of the model.")

    @property
    def flags(self) -> dict[str, Any]:
        """The flags that were given, by field name; a number of GPU layers as a number."""
        given = {f.name: getattr(self, f.name) for f in fields(ModelOptions) if f.name not in NO_FLAGS}
        given = {k: v for k, v in given.items() if v is not None}
        if str(given.get("n_gpu_layers", "")).lstrip("-").isdigit():
            given["n_gpu_layers"] = int(given["n_gpu_layers"])
        return given

    def given(self, extra: Sequence[str]) -> dict[str, Any]:
        """The fields of `ModelWish` that were given."""
        values = {
            "quant": self.quant, "profile": self.profile, "flags": self.flags, "extra": list(extra),
            "adapters": [settled_adapter(word) for word in self.adapters],
        }  # fmt: skip
        return {k: v for k, v in values.items() if v}


@dataclass(frozen=True, kw_only=True)
class AddOptions(ModelOptions):
    """Options of one model, what may be done before it is added, and whether to wait after it."""

    no_build: bool = option("Fail rather than build llama.cpp.")
    no_fetch: bool = option("Fail rather than download a model.")
    offline: bool = option("Use no network: --no-build and --no-fetch.")
    yes: bool = option("Answer yes to questions, such as whether to build with zig where there is no compiler.")
    no_wait: bool = option("Return once the model is added; do not wait until it is loaded.")

    def wish(self, target: str, extra: Sequence[str]) -> Wish:
        """A wish of one model."""
        from nemotron_ops.operations.wish import ModelWish, Wish

        model = ModelWish(
            target=settled(target), quant=self.quant, profile=self.profile, flags=self.flags, extra=tuple(extra),
            adapters=tuple(map(settled_adapter, self.adapters)),
        )  # fmt: skip
        may_build, may_fetch = not (self.no_build or self.offline), not (self.no_fetch or self.offline)
        return Wish(models=(model,), may_build=may_build, may_fetch=may_fetch)


@click.command(cls=ServeCommand)
@click.argument("target", metavar=ARGUMENT)
@options_of(AddOptions)
@dry_run_option
@progress_option
@json_option
@click.pass_context
def add(ctx: click.Context, /, target: str, wanted: AddOptions, dry_run: bool, as_json: bool) -> None:
    """Serve one more model at the running endpoint.

    Builds llama.cpp and fetches the model if need be, while everything else is served as before; then the supervisor
    starts it. The model is also served after a restart. Without a running supervisor: `serve`.
    """
    from nemotron_ops.operations import serving_changes

    with App() as app:
        wish = wanted.wish(target, ctx.meta["extra"])
        confirm = confirmation(as_json=as_json, dry_run=dry_run, yes=wanted.yes)
        answer = serving_changes.add(wish, app.installation, dry_run=dry_run, confirm=confirm)
        _finish(app, answer, as_json=as_json, wait=not (dry_run or wanted.no_wait))


@click.command(cls=ServeCommand)
@click.argument("model", metavar="MODEL [-- LLAMA-SERVER-FLAGS]")
@options_of(ModelOptions)
@dry_run_option
@progress_option
@json_option
@click.pass_context
def change(ctx: click.Context, /, model: str, wanted: ModelOptions, dry_run: bool, as_json: bool) -> None:
    """Serve a model with other options, without an outage.

    Options that are not given stay as they are; flags after `--` replace the earlier ones. The model is replaced as by
    `reload`: if the new instance fails, the old one and the old options stay, and the command exits with 9.
    """
    from nemotron_ops.errors import UsageError
    from nemotron_ops.operations import serving_changes
    from nemotron_ops.operations.wish import Wish

    given = wanted.given(ctx.meta["extra"])
    if not given:
        raise UsageError(f"cannot change {model}: no option is given", hint=f"nemotron-ops change {model} -c 32768")
    with App() as app:
        answer = serving_changes.change(model, given, Wish(models=()), app.installation, dry_run=dry_run)
        _finish(app, answer, as_json=as_json, wait=not dry_run)


@click.command()
@click.argument("model")
@dry_run_option
@progress_option
@json_option
def remove(model: str, dry_run: bool, as_json: bool) -> None:
    """Serve a model no longer: requests in flight end first.

    Its files stay on the disk; `models rm` removes those. The endpoint stays up, also without a model.
    """
    from nemotron_ops.operations import serving_changes

    with App() as app:
        answer = serving_changes.remove(model, app.installation, dry_run=dry_run)
        _finish(app, answer, as_json=as_json, wait=False)


def _finish(app: App, answer: dict[str, Any], *, as_json: bool, wait: bool) -> None:
    """Show the answer, and wait for what was added. Raises EngineError where an instance failed."""
    from nemotron_ops.cli.reload import lines
    from nemotron_ops.errors import EngineError
    from nemotron_ops.operations.serving_changes import wait_until_up

    app.ui.end_bars()
    if answer["failed"]:
        name, reason = next(iter(answer["failed"].items()))
        raise EngineError(f"cannot replace {name}: {reason}", hint="everything is served as before")
    for line in lines(answer):
        app.ui.say(line)
    if wait:
        wait_until_up(app.layout, answer["added"], on_snapshot=_loads(app.ui.report, answer["added"]))
    if as_json:
        app.ui.json(answer)


def _loads(report: Report, names: Sequence[str]) -> Callable[[Snapshot], None]:
    """Reports the loads of the instances called `names`."""
    from nemotron_ops.progress import Step
    from nemotron_ops.supervisor.snapshot import State

    def on_snapshot(snapshot: Snapshot) -> None:
        for i in snapshot.instances:
            share = 1.0 if i.state is State.READY else i.load_progress
            if i.name in names and share is not None:
                report(Step(what=f"load {i.name}", done=round(100 * share), total=100, unit="%"))

    return on_snapshot
