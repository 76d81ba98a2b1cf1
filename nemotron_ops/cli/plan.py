"""`nemotron-ops plan`: what fits this machine, before anything is downloaded. Prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, json_option, progress_option
from nemotron_ops.cli.options import option, options_of
from nemotron_ops.errors import FitError, UsageError
from nemotron_ops.policy import GIB

if TYPE_CHECKING:
    from nemotron_ops.host.facts import Facts
    from nemotron_ops.memory.pack import Quant, QuantTable
    from nemotron_ops.recipes.resolve import Plan as Resolved


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What `plan` was asked for, besides the model."""

    quants: tuple[str, ...] = option("Only this quant; may be repeated.", "--quant", metavar="Q")
    contexts: tuple[int, ...] = option(
        "Only this context; may be repeated.", "--ctx-size", metavar="N", type=click.IntRange(256)
    )
    parallel: int | None = option("Slots.", metavar="N", type=click.IntRange(1, 256))
    profile: str = option("A profile of the recipe, for its server flags.", metavar="P")
    gpu: str = option("Plan for other GPUs: none, or their GiB with commas (24,24).", metavar="SPEC")
    ram: float | None = option("Plan for another amount of host memory.", metavar="GIB")
    backend: str = option("The build's backend: cpu, cuda, hip, metal, vulkan.", metavar="B")
    compare_log: Path | None = option(
        "Compare the prediction with llama-server's log of a run (-lv 4).",
        metavar="FILE",
        type=click.Path(exists=True, path_type=Path),
    )


@click.command()
@click.argument("model", metavar="RECIPE|REPO[:QUANT]|FILE.gguf")
@options_of(PlanOptions)
@progress_option
@json_option
def plan(model: str, wanted: PlanOptions, as_json: bool) -> None:
    """Show what fits this machine: every quant with several contexts, and the recommended one.

    Only headers are read, over the network if the model is not here. Exit code 8 if nothing fits.
    """
    with App() as app:
        resolved = resolved_model(app, model, wanted)
        if wanted.compare_log:
            _compare(app, resolved, _known(app, resolved, wanted), wanted.compare_log, as_json=as_json)
            return
        result = table_of(app, resolved, wanted)
        if as_json:
            app.ui.json(_value(resolved, result))
        else:
            _show(app, resolved, result)
        if not any(c.placement for r in result.rows for c in r.cells) and not all(r.unknown for r in result.rows):
            raise FitError(
                f"cannot fit {resolved.name} on this machine with any of these quants and contexts",
                hint="try a smaller model or context, or plan another machine with --gpu and --ram",
            )


def resolved_model(app: App, model: str, wanted: PlanOptions) -> Resolved:
    """The model with the options that `plan` was given."""
    from nemotron_ops.recipes.load import load_settings, recipe_for
    from nemotron_ops.recipes.resolve import resolve

    flags = {
        "parallel": wanted.parallel,
        "ctx_size": wanted.contexts[0] if len(wanted.contexts) == 1 else None,
    }
    recipe, settings = recipe_for(model, app.layout, app.env), load_settings(app.layout)
    return resolve(recipe, profile=wanted.profile, settings=settings, env=app.env, flags=flags)


def table_of(app: App, resolved: Resolved, wanted: PlanOptions) -> QuantTable:
    """What of the model fits the machine. Raises ModelError where no header can be read."""
    from nemotron_ops.memory.machine import machine
    from nemotron_ops.memory.pack import ModelToPack, quant_table

    pools = machine(_facts(app, wanted.gpu, wanted.ram), backend=wanted.backend or _backend(app, wanted.gpu))
    packed = ModelToPack(
        name=resolved.name,
        quants=_known(app, resolved, wanted),
        server=resolved.server,
        by_hand=frozenset({"parallel"} if wanted.parallel else ()),
        most_tokens=resolved.recipe.context.max_tokens,
    )
    return quant_table(packed, pools, _contexts(wanted.contexts, resolved), preferred=resolved.recipe.model.quant)


def _known(app: App, resolved: Resolved, wanted: PlanOptions) -> tuple[Quant, ...]:
    from nemotron_ops.operations.quants import known_quants

    return known_quants(resolved, app.installation, wanted.quants)


def _backend(app: App, gpu: str) -> str:
    """The current build's backend, which `serve` uses; "" (the machine's own) if there is no build yet."""
    from nemotron_ops.builds.store import store

    if gpu:
        return "" if gpu == "none" else "cuda"
    build = store.current(app.layout)
    if build and app.installation.machine.gpus and build.backend == "cpu":
        app.ui.warn("the current build is for the CPU: GPUs are not counted (see `nemotron-ops build --help`)")
    return build.backend if build else ""


def _facts(app: App, gpu: str, ram_gib: float | None) -> Facts:
    """This machine, or with --gpu and --ram another one."""
    from nemotron_ops.host.facts import Gpu

    facts = app.installation.machine
    if gpu == "none":
        facts = replace(facts, gpus=())
    elif gpu:
        if not re.fullmatch(r"\d+(\.\d+)?(,\d+(\.\d+)?)*", gpu):
            raise UsageError(f"cannot read --gpu {gpu}: expected none, or sizes in GiB like 24,24")
        sizes = [int(float(g) * GIB) for g in gpu.split(",")]
        facts = replace(
            facts,
            gpus=tuple(
                Gpu(index=i, kind="cuda", name=f"{n / GIB:g} GiB", memory_bytes=n, free_bytes=n)
                for i, n in enumerate(sizes)
            ),
        )
    if ram_gib is not None:
        facts = replace(facts, ram_bytes=int(ram_gib * GIB), ram_available_bytes=int(ram_gib * GIB))
    return facts


def _contexts(given: tuple[int, ...], resolved: Resolved) -> tuple[int, ...]:
    """The contexts to show: those asked for, else the usual ones and the recipe's own, up to its maximum."""
    from nemotron_ops.memory.pack import CONTEXTS

    if given:
        return tuple(sorted(set(given)))
    most = resolved.recipe.context.max_tokens
    return tuple(sorted({c for c in (*CONTEXTS, resolved.value("ctx_size")) if c <= most}))


def _show(app: App, resolved: Resolved, result: QuantTable) -> None:
    from nemotron_ops.cli import plan_view

    title = resolved.recipe.title or resolved.name
    app.ui.data(f"{title}, {resolved.value('parallel') or 4} slots; {plan_view.machine_line(result.machine)}\n")
    header = ["", "quant", "weights", *(f"{c:,}" for c in result.contexts), "most tokens"]
    app.ui.table(header, plan_view.table_rows(result.rows, result.contexts, result.chosen))
    if result.chosen and (cell := result.chosen.cell(result.ctx_size)) and cell.placement:
        app.ui.data(f"\n* {result.chosen.quant} with {result.ctx_size:,} tokens: {cell.placement.why}")
        app.ui.data(f"  {plan_view.buffers_line(cell.placement)}")
        for line in plan_view.bars(cell.placement):
            app.ui.data(f"  {line}")
    if why := plan_view.reasons(result.rows):
        app.ui.data("\nwhat does not fit:")
        for line in why:
            app.ui.data(f"  {line}")


def _value(resolved: Resolved, result: QuantTable) -> dict[str, Any]:
    from nemotron_ops.cli import plan_view

    pools = (result.machine.host, *result.machine.gpus)
    return {
        "model": resolved.name,
        "devices": {p.name: {"total_bytes": p.total_bytes, "room_bytes": p.room_bytes} for p in pools},
        "unified": result.machine.unified,
        "recommended": {"quant": result.chosen.quant, "ctx_size": result.ctx_size} if result.chosen else None,
        "quants": [plan_view.row_value(r, chosen=r is result.chosen) for r in result.rows],
    }


def _compare(app: App, resolved: Resolved, known: Sequence[Quant], path: Path, *, as_json: bool) -> None:
    from nemotron_ops.cli import plan_view
    from nemotron_ops.memory import log
    from nemotron_ops.memory.model import estimate, settings_from

    wanted = resolved.recipe.model.quant.upper()
    quant = next((q for q in known if q.name.upper() == wanted), known[0])
    if quant.header is None:
        raise FitError(f"cannot compare {path}: {quant.why}")
    from nemotron_ops.files import read_plain

    try:
        lines = read_plain(path).decode(errors="replace").splitlines()
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror or exc}") from exc
    if not log.logged_buffers(lines):
        raise UsageError(f"cannot compare {path}: it names no buffers", hint="run llama-server with -lv 4")
    found = log.compare(estimate(quant.header, settings_from(resolved.server)), lines)
    if as_json:
        app.ui.json([{"kind": c.kind, "predicted_mib": c.predicted_mib, "logged_mib": c.logged_mib} for c in found])
    else:
        app.ui.table(("buffer", "predicted MiB", "logged MiB", "ratio"), plan_view.comparison_rows(found))
