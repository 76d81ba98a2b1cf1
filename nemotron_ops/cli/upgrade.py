"""`upgrade` and `rollback`: a new build or quant beside the running one, taken back if it is worse. Prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from nemotron_ops.cli.app import App, confirmation, dry_run_option, json_option, progress_option
from nemotron_ops.cli.options import option, options_of
from nemotron_ops.cli.removed import prune_old
from nemotron_ops.errors import EngineError, UsageError

if TYPE_CHECKING:
    from nemotron_ops.builds.store.store import Build
    from nemotron_ops.installation import Installation
    from nemotron_ops.measure.canary import Candidate, Judged
    from nemotron_ops.operations.upgrade import Change

AFTERWARDS = ("reload: start beside, canary, switch, drain",)


@dataclass(frozen=True, kw_only=True)
class UpgradeOptions:
    """What `upgrade` was asked for, besides the recipe."""

    ref: str = option("llama.cpp tag, build number, commit or branch to build.")
    source: str = option("Where its source comes from, as for `build`.", metavar="SOURCE")
    mirror: str = option("Git URL to use in place of GitHub's.", envvar="NEMOTRON_OPS_MIRROR")
    zig: bool = option("Compile with zig from a Python wheel; CPU only.")
    quant: str = option("Quant to fetch for RECIPE and to serve from now on.")
    canary: tuple[str, ...] = option(
        "Measure new and old in turns first, and refuse what is slower (bench) or answers worse (eval).",
        type=click.Choice(["bench", "eval"]),
    )  # fmt: skip
    repeat: int = option("Repeats of each measurement of --canary bench.", default=8, type=click.IntRange(1))
    items: int = option("Items of each task of --canary eval.", default=100, type=click.IntRange(1))


@click.command()
@click.argument("recipe", required=False)
@options_of(UpgradeOptions)
@dry_run_option
@progress_option
@json_option
def upgrade(recipe: str | None, wanted: UpgradeOptions, dry_run: bool, as_json: bool) -> None:
    """Try a new build or quant beside the running one; keep it if it is as good.

    Without --quant, builds llama.cpp (the release that belongs to this nemotron-ops, or --ref) as the current build was
    built: the same backend, architectures, compiler and options. With --quant, fetches that quant of RECIPE and notes
    it in your own copy of the recipe. --canary measures a new build with RECIPE, or else with the models that are
    served, on endpoints of its own that need memory beside the running one.
    """
    from nemotron_ops.operations.upgrade import Source, made_build, planned_build, switch, upgrade_request

    if bool(wanted.quant) != bool(recipe) and not (recipe and wanted.canary):
        raise UsageError(
            "cannot upgrade: --quant and a recipe go together", hint="`nemotron-ops upgrade 30b --quant Q8_0`"
        )
    with App() as app:
        here, confirm = app.installation, confirmation(as_json=as_json, dry_run=dry_run)
        source = Source(ref=wanted.ref, source=wanted.source, mirror=wanted.mirror, zig=wanted.zig)
        request = None if wanted.quant else upgrade_request(source, here, confirm)
        words = _measured(recipe, here) if request and wanted.canary else ()
        if dry_run:
            first = planned_build(request, here) if request else f"fetch {recipe}:{wanted.quant}"
            steps = [first, *(f"canary: {kind}" for kind in wanted.canary), *AFTERWARDS]
            app.ui.json(steps) if as_json else app.ui.data("\n".join(steps))
            return
        build = made_build(request, here) if request else None
        judged = _judged(wanted, _candidates(build, words, f"{recipe}:{wanted.quant}", here), here)
        change = _made_current(build, recipe or "", wanted, here)
        app.ui.end_bars()
        answer = switch(change, here)
        if build:
            prune_old(app)
        found = {"changed": change.what, "reload": answer, "canary": [asdict(j) for j in judged]}
        app.ui.json(found) if as_json else app.ui.data(change.what)


def _measured(recipe: str | None, here: Installation) -> tuple[str, ...]:
    """The models with which a new build is measured."""
    from nemotron_ops.operations.upgrade import served_words

    words = (recipe,) if recipe else served_words(here)
    if not words:
        raise UsageError(
            "cannot measure the new build: nothing is served, and no recipe is named",
            hint="`nemotron-ops upgrade 30b --canary bench`",
        )
    return words


def _candidates(build: Build | None, words: Sequence[str], new_quant: str, here: Installation) -> tuple[Candidate, ...]:
    """What is measured against what: none where the build is the current one already."""
    from nemotron_ops.builds.store import store
    from nemotron_ops.measure.canary import Candidate

    if build is None:
        return (Candidate(recipe=new_quant, old_recipe=new_quant.rpartition(":")[0]),)
    now = store.current(here.layout)
    if now is None or now.id == build.id:
        return ()
    return tuple(Candidate(recipe=w, old_recipe=w, build=build.id, old_build=now.id) for w in words)


def _judged(wanted: UpgradeOptions, candidates: Sequence[Candidate], here: Installation) -> tuple[Judged, ...]:
    """The canary's judgements. Raises EngineError where one fails: nothing was made current yet."""
    if not wanted.canary:
        return ()
    from nemotron_ops.measure.canary import Kind, Trial, judge

    kinds = [Kind(k) for k in dict.fromkeys(wanted.canary)]
    judged = judge(kinds, candidates, Trial(repeats=wanted.repeat, items=wanted.items), here)
    for one in judged:
        if one.failures:
            build = next((c.build for c in candidates if c.build), "")
            hint = f"; `nemotron-ops builds use {build}` takes it all the same" if build else ""
            raise EngineError(
                f"cannot upgrade {one.recipe}: {one.kind}: {'; '.join(one.failures)}",
                hint=f"nothing was changed{hint}; what was measured is kept: {', '.join(one.kept)}",
            )
    return judged


def _made_current(build: Build | None, recipe: str, wanted: UpgradeOptions, here: Installation) -> Change:
    from nemotron_ops.operations.upgrade import new_quant, use_build

    return use_build(build, here) if build else new_quant(recipe, wanted.quant, here)


@click.command()
@dry_run_option
@progress_option
@json_option
def rollback(dry_run: bool, as_json: bool) -> None:
    """Make the build before this one current again, and serve with it."""
    with App() as app:
        from nemotron_ops.builds.store import store
        from nemotron_ops.operations.upgrade import previous_build, switch

        if dry_run and (back := store.previous(app.layout)):
            app.ui.json({"build": back.id}) if as_json else app.ui.data(f"would go back to {back.id}")
            return
        change = previous_build(app.installation)
        answer = switch(change, app.installation, strict=False)  # going back must not be refused for being slower
        app.ui.json({"changed": change.what, "reload": answer}) if as_json else app.ui.data(change.what)
