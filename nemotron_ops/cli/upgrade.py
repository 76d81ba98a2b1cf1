"""`upgrade` and `rollback`: a new build or quant beside the running one, taken back if it is worse. Prints."""

from __future__ import annotations

from dataclasses import dataclass

import click

from nemotron_ops.cli.app import App, confirmation, dry_run_option, json_option, progress_option
from nemotron_ops.cli.options import option, options_of
from nemotron_ops.cli.removed import prune_old
from nemotron_ops.errors import UsageError

AFTERWARDS = ("reload: start beside, canary, switch, drain",)


@dataclass(frozen=True, kw_only=True)
class UpgradeOptions:
    """What `upgrade` was asked for, besides the recipe."""

    ref: str = option("llama.cpp tag, build number, commit or branch to build.")
    source: str = option("Where its source comes from, as for `build`.", metavar="SOURCE")
    mirror: str = option("Git URL to use in place of GitHub's.", envvar="NEMOTRON_OPS_MIRROR")
    zig: bool = option("Compile with zig from a Python wheel; CPU only.")
    quant: str = option("Quant to fetch for RECIPE and to serve from now on.")


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
    it in your own copy of the recipe.
    """
    from nemotron_ops.operations.upgrade import Source, new_build, new_quant, planned_build, switch, upgrade_request

    if bool(wanted.quant) != bool(recipe):
        raise UsageError(
            "cannot upgrade: --quant and a recipe go together", hint="`nemotron-ops upgrade 30b --quant Q8_0`"
        )
    with App() as app:
        here, confirm = app.installation, confirmation(as_json=as_json, dry_run=dry_run)
        source = Source(ref=wanted.ref, source=wanted.source, mirror=wanted.mirror, zig=wanted.zig)
        request = None if recipe else upgrade_request(source, here, confirm)
        if dry_run:
            steps = [planned_build(request, here) if request else f"fetch {recipe}:{wanted.quant}", *AFTERWARDS]
            app.ui.json(steps) if as_json else app.ui.data("\n".join(steps))
            return
        change = new_build(request, here) if request else new_quant(str(recipe), wanted.quant, here)
        app.ui.end_bars()
        answer = switch(change, here)
        if not recipe:
            prune_old(app)
        app.ui.json({"changed": change.what, "reload": answer}) if as_json else app.ui.data(change.what)


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
