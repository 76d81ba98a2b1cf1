"""Chooses the models to remove when room is needed. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nemotron_ops.models.store import StoredModel


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """A model to remove, and why."""

    model: StoredModel
    why: str


def garbage(
    models: Sequence[StoredModel],
    *,
    now: float,
    older_than_s: float | None = None,
    keep_bytes: int | None = None,
    in_use: Collection[str] = (),
) -> list[Garbage]:
    """Models not used for `older_than_s`, then the longest unused until at most `keep_bytes` are left.

    Models in `in_use` (ids) always stay, and count towards `keep_bytes`.
    """
    by_age = sorted(models, key=lambda m: (m.used_at, m.id))
    found = [
        Garbage(model=m, why=f"not used for {(now - m.used_at) / 86400:.0f} days")
        for m in by_age
        if m.id not in in_use and older_than_s is not None and now - m.used_at > older_than_s
    ]
    gone = {g.model.id for g in found}
    left = sum(m.size_bytes for m in models if m.id not in gone)
    for model in by_age:
        if keep_bytes is None or left <= keep_bytes:
            break
        if model.id in gone or model.id in in_use:
            continue
        found.append(Garbage(model=model, why="longest unused, room is needed"))
        left -= model.size_bytes
    return found
