"""Which panes of a comparison are asked at once, and in what order otherwise: by the memory plan. Pure.

Models that have memory side by side are asked at once. Where one would have to make room for another, they are asked in
turn, those that are loaded first, so that each is loaded once at most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HELD = frozenset({"starting", "ready", "stopping", "killing", "backoff"})  # an instance that has its memory


@dataclass(frozen=True, kw_only=True)
class Order:
    """The panes, by number, in the order in which they are asked; `short` are the devices that lack memory."""

    together: bool
    panes: tuple[int, ...]
    short: tuple[str, ...] = ()


def order(models: Sequence[str], status: Mapping[str, Any]) -> Order:
    """How to ask `models` (one for each pane), by the supervisor's `status`.

    A name that the supervisor does not know costs nothing: the endpoint refuses it.
    """
    names = {name: one["name"] for one in status.get("models", ()) for name in (one["name"], *one.get("names", ()))}
    known = [names.get(model, names.get(model.partition(":")[0], "")) for model in models]
    instances = [i for i in status.get("instances", ()) if i.get("planned_bytes")]
    held = {i["model"] for i in instances if i["state"] in HELD}
    short = _short(dict.fromkeys(filter(None, known)), instances, status.get("capacity_bytes") or {})
    loaded_first = sorted(range(len(models)), key=lambda n: (known[n] not in held, _first(known, n)))
    return Order(together=not short, panes=tuple(range(len(models)) if not short else loaded_first), short=short)


def _first(known: Sequence[str], n: int) -> tuple[int, int]:
    """Panes of one model follow each other."""
    return known.index(known[n]), n


def _short(
    models: Mapping[str, None], instances: Sequence[Mapping[str, Any]], capacity: Mapping[str, int]
) -> tuple[str, ...]:
    """The devices on which the models do not fit side by side, with what is pinned beside them."""
    needed: dict[str, int] = {}
    for model in models:
        own = [i for i in instances if i["model"] == model]
        seated = [i for i in own if i["state"] in HELD] or own[:1]  # one of its instances is enough for an answer
        for instance in seated:
            for device, size in instance["planned_bytes"].items():
                needed[device] = needed.get(device, 0) + size
    for instance in instances:
        if instance.get("pinned") and instance["model"] not in models and instance["state"] in HELD:
            for device, size in instance["planned_bytes"].items():
                needed[device] = needed.get(device, 0) + size
    return tuple(sorted(d for d, size in needed.items() if d in capacity and size > capacity[d]))
