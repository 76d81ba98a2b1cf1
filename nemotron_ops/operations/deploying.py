"""Collects what a deploy sends from this machine: build, models, recipes; and the balancer's hooks. Disk, socket."""

from __future__ import annotations

import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nemotron_ops.addresses import LOOPBACK, is_loopback
from nemotron_ops.errors import UsageError
from nemotron_ops.installation import Installation
from nemotron_ops.operations.targets import BalancerRequest, balancer_of

if TYPE_CHECKING:
    from nemotron_ops.deploy.remote.prepare import Hooks, LocalBuild, LocalModel
    from nemotron_ops.deploy.remote.targets import Group


def local_build(here: Installation) -> LocalBuild | None:
    """This machine's current llama.cpp build."""
    from nemotron_ops.builds.store import store
    from nemotron_ops.deploy.remote.prepare import LocalBuild

    build = store.current(here.layout)
    return LocalBuild(id=build.id, path=build.path, manifest=build.manifest) if build else None


def compile_bytes() -> dict[str, int]:
    """The disk space that building llama.cpp takes, for each backend."""
    from nemotron_ops.builds.backends import COSTS

    return {backend.value: cost.disk_bytes for backend, cost in COSTS.items()}


def local_model(recipe: str, here: Installation) -> LocalModel:
    """The stored model of a recipe as files to send, with the manifest that `models import` reads."""
    from nemotron_ops.deploy.remote.prepare import LocalModel
    from nemotron_ops.files import sha256_of, write_json
    from nemotron_ops.models import store
    from nemotron_ops.models.carry import MANIFEST
    from nemotron_ops.models.ref import Ref
    from nemotron_ops.recipes.load import recipe_for

    model = recipe_for(recipe, here.layout, here.env).model
    if not model.repo:
        raise UsageError(f"cannot send the model of {recipe}: it is not one that is fetched from a hub")
    found = store.need(here.layout, Ref(repo=model.repo, quant=model.quant))
    carried = replace(found, files=tuple(replace(f, path=f.name) for f in found.files))
    manifest = here.layout.cache / "bundles" / f"model-{recipe}.json"
    write_json(manifest, {"version": store.MANIFEST_VERSION, **asdict(carried)})
    files = [(f.name, Path(f.path), f.sha256 or sha256_of(Path(f.path))) for f in found.files]
    return LocalModel(recipe=recipe, files=((MANIFEST, manifest, sha256_of(manifest)), *files))


def own_recipes(names: tuple[str, ...], here: Installation) -> dict[str, str]:
    """The files, by name, of the recipes among `names` that are the user's own, and of their chat templates."""
    from nemotron_ops.recipes.load import read_recipe, recipe_files, shipped_dir, template_text

    files = recipe_files(here.layout)
    own = [files[n] for n in names if n in files and not files[n].is_relative_to(shipped_dir())]
    found = {path.name: path.read_text(encoding="utf-8") for path in own}
    for recipe in map(read_recipe, own):
        if text := template_text(recipe):
            found[recipe.model.chat_template_file] = text
    return found


def hooks_for(balancer: Path | None) -> Hooks:
    """Drain a target in the balancer before its switch and put it back afterwards; one target at a time."""
    from nemotron_ops.deploy.balancer import haproxy
    from nemotron_ops.deploy.balancer.config import server_name
    from nemotron_ops.deploy.remote.prepare import Hooks

    if balancer is None:
        return Hooks()
    return Hooks(
        before_switch=lambda target, report: haproxy.take_out(balancer, server_name(target), report=report),
        after_switch=lambda target: haproxy.put_back(balancer, server_name(target)),
        lock=threading.Lock(),
    )


def write_balancer_config(group: Group | None, here: Installation, *, ssh_config: Path | None) -> Path | None:
    """Write the HAProxy configuration of a group; None unless a balancer can reach several targets."""
    from nemotron_ops.deploy.balancer.config import render, server_name
    from nemotron_ops.files import write_atomic

    if group is None or len(group.targets) < 2 or is_loopback(group.host or LOOPBACK):
        return None
    path = here.layout.config / f"{server_name(group.name)}.cfg"
    write_atomic(path, render(balancer_of(BalancerRequest(group=group.name, ssh_config=ssh_config), here)))
    return path
