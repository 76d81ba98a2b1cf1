"""Reads `/health`, `/metrics` and `/slots` of a llama-server. Pure.

`/health` proves only the HTTP threads: it answers 200 while the decode loop is dead. `/metrics` goes through the task
queue (deep probe), and the token counters in it, with those of `/slots`, show progress.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Health(StrEnum):
    UNREACHABLE = "unreachable"
    LOADING = "loading"
    OK = "ok"


def health_of(status: int) -> Health:
    """The meaning of `/health`'s HTTP status: 503 while loading, 200 when ready."""
    match status:
        case 200:
            return Health.OK
        case 503:
            return Health.LOADING
        case _:
            return Health.UNREACHABLE


def parse_metrics(text: str) -> dict[str, float]:
    """Prometheus text as name -> value, without the `llamacpp:` prefix; lines with labels are skipped."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if not name or name.startswith("#") or "{" in name:
            continue
        try:
            found[name.removeprefix("llamacpp:")] = float(value)
        except ValueError:
            continue
    return found


@dataclass(frozen=True, kw_only=True)
class Activity:
    """The number of busy slots, and a mark that changes with every token that is evaluated or made."""

    busy: int = 0
    deferred: int = 0
    mark: tuple[float, ...] = ()


def activity(metrics: Mapping[str, float], slots: Sequence[Mapping[str, Any]]) -> Activity:
    """Progress as seen through the task queue: totals from `/metrics`, and the counters of each busy slot.

    The totals change only when a request ends; until then the slots' counters change the mark. A long prompt shows in
    `n_prompt_tokens_processed`, which grows batch by batch.
    """
    totals = [metrics.get(k, 0.0) for k in ("prompt_tokens_total", "tokens_predicted_total", "n_decode_total")]
    busy = [s for s in slots if s.get("is_processing")]
    return Activity(
        busy=len(busy) if slots else int(metrics.get("requests_processing", 0)),
        deferred=int(metrics.get("requests_deferred", 0)),
        mark=(*totals, *(n for s in busy for n in _slot_mark(s))),
    )


def _slot_mark(slot: Mapping[str, Any]) -> tuple[float, ...]:
    decoded = sum(int(t.get("n_decoded", 0)) for t in slot.get("next_token", ()) if isinstance(t, Mapping))
    return (float(slot.get("id_task", -1)), float(slot.get("n_prompt_tokens_processed", 0)), float(decoded))
