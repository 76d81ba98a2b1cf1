"""Replaces running instances without an outage: reload and rollback. asyncio.

An unchanged instance keeps running. A changed one is replaced blue/green if memory allows both: the new process starts
beside the old one, must become ready and answer a canary prompt, takes the traffic, and only then the old one drains
and stops. If memory does not allow both, the old one stops first, requests wait at the gateway, and if the new one
fails the old one is started again. An invalid configuration changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nemotron_ops.supervisor.fleet import canary
from nemotron_ops.supervisor.fleet.changes import check, diff
from nemotron_ops.supervisor.fleet.instances import REST, Fleet
from nemotron_ops.supervisor.instance.keeper import Keeper
from nemotron_ops.supervisor.snapshot import State
from nemotron_ops.supervisor.spec import Config, InstanceSpec


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Instance names by outcome; `failed` maps a name to the reason, and its old process keeps running."""

    kept: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "kept": list(self.kept), "added": list(self.added), "removed": list(self.removed),
            "replaced": list(self.replaced), "failed": self.failed,
        }  # fmt: skip


async def apply(fleet: Fleet, config: Config, *, strict: bool = False) -> Outcome:
    """Run `config` instead of the present configuration. Raises RecipeError, with nothing changed, if it is invalid.

    `strict` compares a replacement with the old process: tool calls, reasoning, speed.
    """
    check(config)
    before = running(fleet, config)
    changes = diff(before, config)
    new = {s.name: s for s in config.instances}
    old_models = {m.name: m for m in fleet.config.models}
    going = {before[n].model for n in changes.remove} - {m.name for m in config.models}
    fleet.showing = True
    fleet.config = replace(config, models=(*config.models, *(old_models[n] for n in going if n in old_models)))
    for name in changes.keep:
        keeper = _best(_of(fleet, name), new[name])
        keeper.change_policies(new[name])
        _resume(fleet, keeper)
    for name in changes.add:
        _first_start(fleet, fleet.add(_free_id(fleet, name), new[name]))
    fleet.changed()
    failed: dict[str, str] = {}
    for name in changes.replace:
        if reason := await _replace(fleet, _of(fleet, name), new[name], strict=strict):
            failed[name] = reason
            fleet.context.journal.add("change-failed", reason, instance=name, level="error")
    for name in changes.remove:
        for keeper in _of(fleet, name):
            await fleet.remove(keeper)
    for name in changes.keep:
        for twin in _of(fleet, name):
            if twin is not _best(_of(fleet, name), new[name]):
                await fleet.remove(twin)
    fleet.config = config
    fleet.changed()
    outcome = Outcome(
        kept=changes.keep, added=changes.add, removed=changes.remove, failed=failed,
        replaced=tuple(n for n in changes.replace if n not in failed),
    )  # fmt: skip
    fleet.context.journal.add("reloaded", _summary(outcome))
    return outcome


def running(fleet: Fleet, config: Config) -> dict[str, InstanceSpec]:
    """Instance name -> spec of its running process."""
    new = {s.name: s for s in config.instances}
    names = dict.fromkeys(k.spec.name for k in fleet.keepers.values() if k.published)
    return {n: _best(_of(fleet, n), new.get(n)).spec for n in names}


def _best(twins: Sequence[Keeper], wanted: InstanceSpec | None) -> Keeper:
    """The twin to keep. A crash in the middle of a change leaves two processes of an instance."""
    return max(
        twins,
        key=lambda k: (wanted is not None and k.spec.fingerprint == wanted.fingerprint, k.status.state is State.READY),
    )


async def _replace(fleet: Fleet, old: Sequence[Keeper], spec: InstanceSpec, *, strict: bool) -> str:
    """Replace `old` by a process for `spec`; returns the reason if that failed and the old one stays."""
    at_rest = all(k.status.state in REST or k.status.state is State.BACKOFF for k in old)
    if at_rest:
        wanted = any(k.status.wanted or k.id in fleet.pending for k in old)
        for keeper in old:
            await fleet.remove(keeper)
        keeper = fleet.add(_free_id(fleet, spec.name), spec)
        if wanted:
            fleet.start(keeper)
        return ""
    if fleet.fits_beside(spec):
        return await _blue_green(fleet, old, spec, strict=strict)
    return await _swap(fleet, old, spec)


async def _blue_green(fleet: Fleet, blue: Sequence[Keeper], spec: InstanceSpec, *, strict: bool) -> str:
    green = fleet.add(_free_id(fleet, spec.name), spec, published=False)
    fleet.start(green)
    reason = await _up(fleet, green)
    if not reason:
        reference = next((k for k in blue if k.status.state is State.READY), None)
        reason = await canary.judge(green, reference if strict else None)
    if reason:
        await fleet.remove(green)
        return reason
    green.publish()
    fleet.context.journal.add("switched", f"from {', '.join(k.id for k in blue)}", instance=green.id)
    for keeper in blue:
        await fleet.remove(keeper)
    return ""


async def _swap(fleet: Fleet, old: Sequence[Keeper], spec: InstanceSpec) -> str:
    fleet.context.journal.add("swapping", "no memory for two; requests wait", instance=spec.name)
    before = old[0].spec
    for keeper in old:
        await fleet.remove(keeper)
    new = fleet.add(_free_id(fleet, spec.name), spec)
    fleet.start(new)
    reason = await _up(fleet, new) or await canary.judge(new, None)
    if not reason:
        return ""
    await fleet.remove(new)
    fleet.start(fleet.add(_free_id(fleet, before.name), before))
    return reason


async def _up(fleet: Fleet, keeper: Keeper) -> str:
    """Waits until `keeper` is ready; returns the reason if its first start fails (a change does not try again)."""
    settled = (State.READY, State.BACKOFF, State.FAILED)
    await fleet.until(lambda: keeper.status.state in settled)
    return "" if keeper.status.state is State.READY else keeper.status.reason


def _of(fleet: Fleet, name: str) -> list[Keeper]:
    return [k for k in fleet.keepers.values() if k.spec.name == name and k.published]


def _first_start(fleet: Fleet, keeper: Keeper) -> None:
    """At boot: an on-demand instance waits for a request, and one that was stopped by hand stays stopped."""
    if fleet.held.get(keeper.spec.name, not keeper.spec.lifecycle.on_demand):
        fleet.start(keeper, pressing=False)


def _resume(fleet: Fleet, keeper: Keeper) -> None:
    """Stop an adopted process whose stop by hand was interrupted by the end of its supervisor."""
    if not fleet.held.get(keeper.spec.name, True):
        fleet.stop(keeper, "stopped by hand")


def _free_id(fleet: Fleet, name: str) -> str:
    """`name`, or `name~2`, `name~3` … while that is taken."""
    ids = itertools.chain([name], (f"{name}~{n}" for n in itertools.count(2)))
    return next(i for i in ids if i not in fleet.keepers)


def _summary(outcome: Outcome) -> str:
    parts = [f"{what}: {', '.join(names)}" for what, names in outcome.to_json().items() if names]
    return "; ".join(parts) or "nothing to change"
