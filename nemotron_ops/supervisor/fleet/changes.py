"""The difference of two configurations: instances to keep, add, remove and replace. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nemotron_ops.errors import RecipeError
from nemotron_ops.supervisor.spec import Config, InstanceSpec


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Instance names. `keep` run the same process as before (their policies may still differ)."""

    keep: tuple[str, ...] = ()
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()


def diff(running: Mapping[str, InstanceSpec], wanted: Config) -> Changes:
    """The changes from `running` to `wanted`; two specs with one fingerprint are the same process."""
    new = {s.name: s for s in wanted.instances}
    both = [n for n in new if n in running]
    return Changes(
        keep=tuple(n for n in both if new[n].fingerprint == running[n].fingerprint),
        add=tuple(n for n in new if n not in running),
        remove=tuple(n for n in running if n not in new),
        replace=tuple(n for n in both if new[n].fingerprint != running[n].fingerprint),
    )


def check(config: Config) -> None:
    """Raises RecipeError if `config` is invalid; nothing has changed then."""
    names = [s.name for s in config.instances]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise RecipeError(f"cannot use this configuration: two instances are named {twice[0]!r}")
    models = {m.name for m in config.models}
    for spec in config.instances:
        if spec.model not in models:
            raise RecipeError(f"cannot use this configuration: instance {spec.name!r} serves no model ({spec.model!r})")
        if not spec.argv:
            raise RecipeError(f"cannot use this configuration: instance {spec.name!r} has no command")
        if not spec.name or set(spec.name) & set("/~\0") or spec.name.startswith("."):
            raise RecipeError(f"cannot use this configuration: {spec.name!r} is not a valid instance name")
