"""Adds, changes and removes models of a running supervisor: the work first, then the change. Disk, network, socket.

Building, fetching and the choice of a quant happen in the caller's process, while everything is served as before. The
supervisor then composes from what is here, and ends in the same rollout as a reload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nemotron_ops.errors import ControlError, EngineError
from nemotron_ops.installation import Installation
from nemotron_ops.operations.building import Confirm, have_build, look_for_build
from nemotron_ops.operations.memory_budget import decide, look_for_model, with_quant
from nemotron_ops.operations.model_files import have_files
from nemotron_ops.operations.wish import ModelWish, Wish, plans_for
from nemotron_ops.operations.wish_changes import find, from_json, to_json
from nemotron_ops.paths import Layout
from nemotron_ops.recipes.load import load_settings
from nemotron_ops.recipes.resolve import Plan
from nemotron_ops.supervisor.control import client
from nemotron_ops.supervisor.snapshot import Snapshot, State
from nemotron_ops.supervisor.snapshot import from_json as snapshot_from

CHANGE_S = 3600.0


def add(wish: Wish, here: Installation, *, dry_run: bool, confirm: Confirm) -> dict[str, Any]:
    """Serve the one model of `wish` too. Returns the supervisor's answer.

    A dry run fetches and builds nothing. Raises ControlError without a supervisor, before any work, and the errors of
    building, fetching, planning and `wish_changes`.
    """
    client.request(here.layout, "ping")
    (model,) = wish.models
    ready = _made_ready(model, wish, here, dry_run=dry_run, confirm=confirm)
    return _ask(here.layout, {"op": "add", "model": to_json((ready,))[0]}, dry_run=dry_run)


def change(name: str, given: Mapping[str, Any], wish: Wish, here: Installation, *, dry_run: bool) -> dict[str, Any]:
    """Serve the model called `name` with the fields in `given` changed. Fetches a quant that is not here.

    Returns the supervisor's answer. Raises as `add`.
    """
    old = find(from_json(client.request(here.layout, "wish")["models"]), name)
    if old is not None and given.get("quant"):
        new = replace(old, quant=str(given["quant"]))
        _made_ready(new, replace(wish, models=(new,)), here, dry_run=dry_run, confirm=lambda question: False)
    return _ask(here.layout, {"op": "change", "name": name, "model": dict(given)}, dry_run=dry_run)


def remove(name: str, here: Installation, *, dry_run: bool) -> dict[str, Any]:
    """Serve the model called `name` no longer: its instances drain and stop. Returns the supervisor's answer."""
    return _ask(here.layout, {"op": "remove", "name": name}, dry_run=dry_run)


def wait_until_up(layout: Layout, names: Sequence[str], *, on_snapshot: Callable[[Snapshot], None]) -> None:
    """Wait until the instances called `names` are ready, or stopped until a request. `on_snapshot` gets each snapshot.

    Raises EngineError if one fails.
    """
    if not names:
        return
    seen: set[str] = set()
    for answer in client.follow(layout, "follow"):
        snapshot = snapshot_from(answer["snapshot"])
        on_snapshot(snapshot)
        own = {i.name: i for i in snapshot.instances if i.name.partition("~")[0] in names}
        seen |= {name.partition("~")[0] for name in own}
        if failed := [i for i in own.values() if i.state is State.FAILED]:
            raise EngineError(
                f"cannot serve {failed[0].name}: {failed[0].reason}",
                hint=f"`nemotron-ops logs {failed[0].name}` shows its log; `nemotron-ops remove {failed[0].model}`",
            )
        if snapshot.stopping:
            raise ControlError(f"cannot wait for {names[0]}: the supervisor stops")
        resting = [i.name for i in own.values() if i.state is State.STOPPED]
        settled = seen >= set(names) and all(i.state in (State.READY, State.STOPPED) for i in own.values())
        if settled and not (resting and _wanted(layout, resting)):
            return


def _wanted(layout: Layout, names: Sequence[str]) -> bool:
    """Whether one of the stopped instances `names` is to start now: others wait for their first request."""
    return any(i["wanted"] for i in client.request(layout, "status")["instances"] if i["name"] in names)


def _made_ready(model: ModelWish, wish: Wish, here: Installation, *, dry_run: bool, confirm: Confirm) -> ModelWish:
    """`model` with its name and its decided quant, after the work: build and files are here."""
    (plan,) = plans_for(wish, here, load_settings(here.layout))
    quant_is_open = wish.quant_is_open(model, plan.name)
    build = look_for_build(here, may_build=wish.may_build or dry_run, confirm=confirm)
    found = look_for_model(plan, here, quant_is_open=quant_is_open, may_fetch=wish.may_fetch, dry_run=dry_run)
    quant = decide([found], here, backend=build.backend)[0].quant if quant_is_open else plan.recipe.model.quant
    decided = with_quant(found.plan, quant)
    if not dry_run:
        have_build(build, here)
        have_files(decided, here, may_fetch=wish.may_fetch)
    return replace(model, name=plan.name, quant=_quant_to_keep(decided))


def _quant_to_keep(plan: Plan) -> str:
    """The quant that the wish names: a file has none of its own to choose."""
    return "" if plan.recipe.model.path else plan.recipe.model.quant


def _ask(layout: Layout, change: Mapping[str, Any], *, dry_run: bool) -> dict[str, Any]:
    return client.request(layout, "wish", timeout_s=CHANGE_S, change=change, dry_run=dry_run)
