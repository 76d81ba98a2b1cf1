"""Tries a new build or quant beside the running one, and takes it back if it is worse. Disk, control socket.

The build or download happens first, in this process, while the old one serves. Then the supervisor reloads: the new
instance must load, answer, reason, call tools and be about as fast as the old one. Otherwise the old one stays, and
the change (current build, recipe) is undone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotron_ops.errors import EngineError, ModelError, UsageError
from nemotron_ops.installation import Installation
from nemotron_ops.operations.building import Confirm, with_zig
from nemotron_ops.progress import remark

if TYPE_CHECKING:
    from nemotron_ops.builds.spec import BuildRequest
    from nemotron_ops.builds.store.store import Build
    from nemotron_ops.recipes.schema import Recipe

RELOAD_S = 3600.0
QUANT_LINE = re.compile(r'^(\s*quant\s*=\s*)"[^"]*"', re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that was made current, and how to take it back."""

    what: str
    undo: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Source:
    """The llama.cpp to build: empty fields mean the release that belongs to this nemotron-ops."""

    ref: str = ""
    source: str = ""
    mirror: str = ""
    zig: bool = False


def upgrade_request(wanted: Source, here: Installation, confirm: Confirm) -> BuildRequest:
    """A build with the current one's options; one for this machine, where there is none yet."""
    from nemotron_ops.builds.spec import BuildOptions, BuildRequest
    from nemotron_ops.builds.store import store
    from nemotron_ops.builds.store.options_json import options_from

    now = store.current(here.layout)
    options = options_from(now.manifest) if now else BuildOptions()
    options = with_zig(replace(options, zig=options.zig or wanted.zig), here, confirm)
    return BuildRequest(options=options, ref=wanted.ref, source=wanted.source, mirror=wanted.mirror, activate=False)


def planned_build(request: BuildRequest, here: Installation) -> str:
    """What would be built, in a line. Raises the errors for which the build would be refused."""
    from nemotron_ops.builds import run

    found = run.prepare(request, here)
    return f"build llama.cpp {found.plan.source.label} as {found.plan.id}"


def made_build(request: BuildRequest, here: Installation) -> Build:
    """Build; the current build stays the same."""
    from nemotron_ops.builds.run import ensure_build

    return ensure_build(request, here)


def use_build(build: Build, here: Installation) -> Change:
    """Make a build current."""
    from nemotron_ops.builds.store import store

    before = store.current(here.layout)
    store.use(here.layout, build)
    return Change(what=f"llama.cpp build {build.id}", undo=lambda: _back_to(here, before))


def previous_build(here: Installation) -> Change:
    """Make the build before the current one current again. Raises BuildError if there is none."""
    from nemotron_ops.builds.store import store

    now = store.current(here.layout)
    build = store.rollback(here.layout)
    return Change(what=f"llama.cpp build {build.id}", undo=lambda: store.use(here.layout, now) if now else None)


def new_quant(name: str, quant: str, here: Installation) -> Change:
    """Fetch the quant, then write it into the user's own copy of the recipe."""
    from nemotron_ops.files import write_atomic
    from nemotron_ops.models import fetch
    from nemotron_ops.models.ref import Ref
    from nemotron_ops.recipes.load import load_recipe, parse_recipe

    recipe = load_recipe(name, here.layout)
    if recipe.model.repo:
        ref = Ref(repo=recipe.model.repo, quant=quant)
        request = fetch.FetchRequest(ref=ref, revision=recipe.model.revision, mmproj=recipe.model.mmproj)
        fetch.fetch(request, here)
    elif not recipe.model.synthetic:
        raise ModelError(f"cannot fetch another quant of {name}: its recipe names a file")
    path = here.layout.user_recipes / f"{name}.toml"
    before = path.read_text(encoding="utf-8") if path.exists() else None
    text = with_quant(Path(recipe.origin).read_text(encoding="utf-8"), recipe, quant)
    parse_recipe(text, name=name, origin=str(path))
    write_atomic(path, text)
    undo = (lambda: path.unlink(missing_ok=True)) if before is None else (lambda: write_atomic(path, before))
    return Change(what=f"recipe {name} with quant {quant} ({path})", undo=undo)


def with_quant(text: str, recipe: Recipe, quant: str) -> str:
    """The recipe's text with another quant; everything else stays, comments included."""
    if QUANT_LINE.search(text):
        return QUANT_LINE.sub(rf'\g<1>"{quant}"', text, count=1)
    if "[model]" not in text:
        raise UsageError(f"cannot note the quant in {recipe.origin}: it has no [model] table")
    return text.replace("[model]", f'[model]\nquant = "{quant}"', 1)


def switch(change: Change, here: Installation, *, strict: bool = True) -> dict[str, Any] | None:
    """Reload the running supervisor, if there is one; undo `change` if the new instances are worse.

    Returns the supervisor's answer. Raises EngineError if the new instances were refused.
    """
    from nemotron_ops.supervisor.control import client

    if not client.running(here.layout):
        remark(here.report, "no supervisor is running: the next `serve` uses it")
        return None
    try:
        answer = client.request(here.layout, "reload", timeout_s=RELOAD_S, strict=strict)
    except BaseException:
        change.undo()
        raise
    if failed := answer.get("failed"):
        change.undo()
        name, reason = next(iter(failed.items()))
        raise EngineError(f"cannot upgrade {name}: {reason}", hint="the old one still serves, and the change is undone")
    return answer


def served_words(here: Installation) -> tuple[str, ...]:
    """The models that are served, or were last, as the command line names them: `30b`, `30b:Q8_0`."""
    from nemotron_ops.hub_names import names_quant
    from nemotron_ops.operations import wish_file

    kept, _ = wish_file.read(here.layout)
    models = kept.models if kept else ()
    return tuple(m.target if not m.quant or names_quant(m.target) else f"{m.target}:{m.quant}" for m in models)


def _back_to(here: Installation, before: Build | None) -> None:
    from nemotron_ops.builds.store import store

    if before is not None:
        store.rollback(here.layout) if store.previous(here.layout) == before else store.use(here.layout, before)
