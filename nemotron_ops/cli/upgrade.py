"""`upgrade` and `rollback`: a new build or quant, tried beside what runs, taken back if it is worse. Control socket.

The build or download happens first, in this process, while the old one serves. Then the supervisor reloads: the new
instance must load, answer, reason, call tools and be about as fast as the old one, or the old one stays and what was
changed here (the current build, the recipe) is put back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.cli.builds_retention import prune_old
from nemotron_ops.errors import EngineError, ModelError, UsageError

if TYPE_CHECKING:
    from nemotron_ops.builds.spec import BuildRequest
    from nemotron_ops.builds.store.store import Build
    from nemotron_ops.recipes.schema import Recipe

RELOAD_S = 3600.0
AFTERWARDS = ("reload: start beside, canary, switch, drain",)
QUANT_LINE = re.compile(r'^(\s*quant\s*=\s*)"[^"]*"', re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that was made current, and how to take it back."""

    what: str
    undo: Callable[[], None]


@click.command()
@click.argument("recipe", required=False)
@click.option("--ref", default="", help="llama.cpp tag, build number, commit or branch to build.")
@click.option("--source", default="", metavar="SOURCE", help="Where its source comes from, as for `build`.")
@click.option("--mirror", default="", envvar="NEMOTRON_OPS_MIRROR", help="Git URL to use in place of GitHub's.")
@click.option("--zig", is_flag=True, help="Compile with zig from a Python wheel; CPU only.")
@click.option("--quant", default="", help="Quant to fetch for RECIPE and to serve from now on.")
@dry_run_option
@json_option
def upgrade(
    recipe: str | None, ref: str, source: str, mirror: str, zig: bool, quant: str, dry_run: bool, as_json: bool
) -> None:
    """Try a new build or quant beside the running one; keep it if it is as good.

    Without --quant, builds llama.cpp (the release that belongs to this nemotron-ops, or --ref) as the current build was
    built: the same backend, architectures, compiler and options. With --quant, fetches that quant of RECIPE and notes
    it in your own copy of the recipe.
    """
    if bool(quant) != bool(recipe):
        raise UsageError(
            "cannot upgrade: --quant and a recipe go together", hint="`nemotron-ops upgrade 30b --quant Q8_0`"
        )
    with App() as app:
        request = None if recipe else _request(app, ref=ref, source=source, mirror=mirror, zig=zig)
        if dry_run:
            steps = [_planned(app, request) if request else f"fetch {recipe}:{quant}", *AFTERWARDS]
            app.ui.json(steps) if as_json else app.ui.data("\n".join(steps))
            return
        change = _new_build(app, request) if request else _new_quant(app, str(recipe), quant)
        answer = _switch(app, change)
        if not recipe:
            prune_old(app)
        if as_json:
            app.ui.json({"changed": change.what, "reload": answer})
        else:
            app.ui.data(change.what)


@click.command()
@dry_run_option
@json_option
def rollback(dry_run: bool, as_json: bool) -> None:
    """Make the build before this one current again, and serve with it."""
    with App() as app:
        from nemotron_ops.builds.store import store

        back = store.previous(app.layout)
        now = store.current(app.layout)
        if dry_run and back:
            app.ui.json({"build": back.id}) if as_json else app.ui.data(f"would go back to {back.id}")
            return
        build = store.rollback(app.layout)
        change = Change(what=f"llama.cpp build {build.id}", undo=lambda: store.use(app.layout, now) if now else None)
        answer = _switch(app, change, strict=False)  # going back must not be refused for being slower
        app.ui.json({"changed": change.what, "reload": answer}) if as_json else app.ui.data(change.what)


def _request(app: App, *, ref: str, source: str, mirror: str, zig: bool) -> BuildRequest:
    """A build of the current one's kind; of this machine's, where there is none yet."""
    from nemotron_ops.builds.spec import BuildOptions, BuildRequest
    from nemotron_ops.builds.store import store
    from nemotron_ops.builds.store.options_json import options_from
    from nemotron_ops.cli.build import with_zig

    now = store.current(app.layout)
    options = options_from(now.manifest) if now else BuildOptions()
    options = with_zig(replace(options, zig=options.zig or zig), app)
    return BuildRequest(options=options, ref=ref, source=source, mirror=mirror, activate=False)


def _planned(app: App, request: BuildRequest) -> str:
    """What would be built, in a line. Raises what the build would be refused for."""
    from nemotron_ops.builds import run

    found = run.prepare(request, app.installation)
    return f"build llama.cpp {found.plan.source.label} as {found.plan.id}"


def _new_build(app: App, request: BuildRequest) -> Change:
    from nemotron_ops.builds.run import ensure_build
    from nemotron_ops.builds.store import store

    before = store.current(app.layout)
    build = ensure_build(request, app.installation)
    app.ui.end_bars()
    store.use(app.layout, build)
    return Change(what=f"llama.cpp build {build.id}", undo=lambda: _back_to(app, before))


def _back_to(app: App, before: Build | None) -> None:
    from nemotron_ops.builds.store import store

    if before is not None:
        store.rollback(app.layout) if store.previous(app.layout) == before else store.use(app.layout, before)


def _new_quant(app: App, name: str, quant: str) -> Change:
    """Fetch the quant, then write it into the user's own copy of the recipe."""
    from nemotron_ops.files import write_atomic
    from nemotron_ops.models import fetch
    from nemotron_ops.models.ref import Ref
    from nemotron_ops.recipes.load import load_recipe, parse_recipe

    recipe = load_recipe(name, app.layout)
    if recipe.model.repo:
        ref = Ref(repo=recipe.model.repo, quant=quant)
        request = fetch.FetchRequest(ref=ref, revision=recipe.model.revision, mmproj=recipe.model.mmproj)
        fetch.fetch(request, app.installation)
        app.ui.end_bars()
    elif not recipe.model.synthetic:
        raise ModelError(f"cannot fetch another quant of {name}: its recipe names a file")
    path = app.layout.user_recipes / f"{name}.toml"
    before = path.read_text(encoding="utf-8") if path.exists() else None
    text = with_quant(Path(recipe.origin).read_text(encoding="utf-8"), recipe, quant)
    parse_recipe(text, name=name, origin=str(path))
    write_atomic(path, text)
    undo = (lambda: path.unlink(missing_ok=True)) if before is None else (lambda: write_atomic(path, before))
    return Change(what=f"recipe {name} with quant {quant} ({path})", undo=undo)


def with_quant(text: str, recipe: Recipe, quant: str) -> str:
    """The recipe's text with another quant, all else (comments too) as it was."""
    if QUANT_LINE.search(text):
        return QUANT_LINE.sub(rf'\g<1>"{quant}"', text, count=1)
    if "[model]" not in text:
        raise UsageError(f"cannot note the quant in {recipe.origin}: it has no [model] table")
    return text.replace("[model]", f'[model]\nquant = "{quant}"', 1)


def _switch(app: App, change: Change, *, strict: bool = True) -> dict[str, Any] | None:
    """Reload the running supervisor, if there is one; undo `change` if the new instances are worse."""
    from nemotron_ops.supervisor.control import client

    if not client.running(app.layout):
        app.ui.say("no supervisor is running: the next `serve` uses it")
        return None
    try:
        answer = client.request(app.layout, "reload", timeout_s=RELOAD_S, strict=strict)
    except BaseException:
        change.undo()
        raise
    if failed := answer.get("failed"):
        change.undo()
        name, reason = next(iter(failed.items()))
        raise EngineError(
            f"cannot upgrade {name}: {reason}", hint="the old one serves on, and what was changed is put back"
        )
    return answer
