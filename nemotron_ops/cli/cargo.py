"""What a deploy takes along from this machine, and its plan for people. Disk, terminal."""

from __future__ import annotations

import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotron_ops.cli.app import App
from nemotron_ops.errors import UsageError

if TYPE_CHECKING:
    from nemotron_ops.deploy.remote.prepare import Hooks, LocalBuild, LocalModel, Ready
    from nemotron_ops.deploy.remote.targets import Group


def local_build(app: App) -> LocalBuild | None:
    """This machine's current llama.cpp build."""
    from nemotron_ops.builds.store import store
    from nemotron_ops.deploy.remote.prepare import LocalBuild

    build = store.current(app.layout)
    return LocalBuild(id=build.id, path=build.path, manifest=build.manifest) if build else None


def compile_bytes() -> dict[str, int]:
    """Disk that building llama.cpp takes, for each backend."""
    from nemotron_ops.builds.backends import COSTS

    return {backend.value: cost.disk_bytes for backend, cost in COSTS.items()}


def local_model(app: App, recipe: str) -> LocalModel:
    """The stored model of a recipe, as files to send; with them goes what `models import` wants to know."""
    from nemotron_ops.deploy.remote.prepare import LocalModel
    from nemotron_ops.files import sha256_of, write_json
    from nemotron_ops.models import store
    from nemotron_ops.models.carry import MANIFEST
    from nemotron_ops.models.ref import Ref
    from nemotron_ops.recipes.load import recipe_for

    model = recipe_for(recipe, app.layout).model
    if not model.repo:
        raise UsageError(f"cannot send the model of {recipe}: it is not one that is fetched from a hub")
    found = store.need(app.layout, Ref(repo=model.repo, quant=model.quant))
    carried = replace(found, files=tuple(replace(f, path=f.name) for f in found.files))
    manifest = app.layout.cache / "bundles" / f"model-{recipe}.json"
    write_json(manifest, {"version": store.MANIFEST_VERSION, **asdict(carried)})
    files = [(f.name, Path(f.path), f.sha256 or sha256_of(Path(f.path))) for f in found.files]
    return LocalModel(recipe=recipe, files=((MANIFEST, manifest, sha256_of(manifest)), *files))


def own_recipes(app: App, names: tuple[str, ...]) -> dict[str, str]:
    """The recipes among `names` that are the user's own files: they travel along."""
    from nemotron_ops.recipes.load import recipe_files, shipped_dir

    files = recipe_files(app.layout)
    own = {n: files[n] for n in names if n in files and not files[n].is_relative_to(shipped_dir())}
    return {name: path.read_text(encoding="utf-8") for name, path in own.items()}


def hooks_for(door: Path | None) -> Hooks:
    """Around the switch of a target: out of the balancer before, back into it after; one target at a time."""
    from nemotron_ops.deploy.balancer import haproxy
    from nemotron_ops.deploy.balancer.config import server_name
    from nemotron_ops.deploy.remote.prepare import Hooks

    if door is None:
        return Hooks()
    return Hooks(
        before_switch=lambda target, report: haproxy.take_out(door, server_name(target), report=report),
        after_switch=lambda target: haproxy.put_back(door, server_name(target)),
        turn=threading.Lock(),
    )


def render_door(app: App, group: Group | None, ssh_config: Path | None) -> None:
    """Write the HAProxy configuration of a group that listens where a balancer can reach it."""
    from nemotron_ops.addresses import is_loopback
    from nemotron_ops.cli.balancer import Shape, shape
    from nemotron_ops.deploy.balancer.config import render, server_name
    from nemotron_ops.files import write_atomic

    if group is None or len(group.targets) < 2 or is_loopback(group.host or "127.0.0.1"):
        return
    name = f"{server_name(group.name)}.cfg"
    write_atomic(app.layout.config / name, render(shape(app, Shape(group=group.name, ssh_config=ssh_config))))
    app.ui.say(f"{name}, beside targets.toml, makes HAProxy one door for them: nemotron-ops balancer")


def show(app: App, readies: list[Ready], *, scripts: bool, as_json: bool) -> None:
    """The plan, before anything is done."""
    if as_json:
        if scripts:
            app.ui.json([plan_json(r) for r in readies])
        return
    for ready in readies:
        for note in ready.notes:
            app.ui.say(note)
        from_ = ready.facts.current or "nothing"
        app.ui.say(f"{ready.connection.target}: {from_} -> {ready.plan.release}")
        for step in ready.plan.steps:
            app.ui.say(f"  {step.name}: {step.about}")
            if scripts:
                app.ui.data("\n".join(f"    {line}" for line in step.script.rstrip().splitlines()))


def plan_json(ready: Ready) -> dict[str, Any]:
    facts = asdict(replace(ready.facts, cpu_features=frozenset()))
    steps = [asdict(s) for s in ready.plan.steps]
    return {"target": ready.connection.target, "release": ready.plan.release, "facts": facts, "steps": steps}
