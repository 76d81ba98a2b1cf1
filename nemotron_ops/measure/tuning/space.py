"""Which flags are tried, on which machine, for what use. The guide's flags are candidate number one. Pure.

Flags that change answers (KV types) or need rights (mlock) are tried only where they were named by hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nemotron_ops.host.facts import Facts
from nemotron_ops.measure.load import Load

Candidate = Mapping[str, Any]  # fields of `schema.Server` that differ from the recipe's own; {} is the recipe as it is


class Use(StrEnum):
    CHAT = "chat"  # one person: time to the whole answer
    BATCH = "batch"  # many requests at once: tokens per second in all
    LONG = "long"  # long prompts: time to the whole answer


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The load of a use, and the figure of its summary that decides. `more_is_better` says in which direction."""

    load: Load
    figure: str
    more_is_better: bool

    def score(self, value: float) -> float:
        """A number of which more is better: the figure, or its inverse."""
        return value if self.more_is_better else 1 / value


def goal_of(use: Use, *, slots: int, ctx_tokens: int) -> Goal:
    """The load of `use`, within the context of one slot."""
    room = max(64, ctx_tokens - 64)
    match use:
        case Use.CHAT:
            load = Load(requests=2, prompt_tokens=min(512, room // 2), answer_tokens=min(128, room // 4))
            return Goal(load=load, figure="latency_s", more_is_better=False)
        case Use.BATCH:
            share = room // max(1, slots)
            load = Load(
                requests=2 * slots, concurrency=slots, prompt_tokens=min(256, share // 2),
                answer_tokens=min(128, share // 4),
            )  # fmt: skip
            return Goal(load=load, figure="tokens_per_s", more_is_better=True)
        case Use.LONG:
            load = Load(requests=1, prompt_tokens=min(16_384, room // 2), answer_tokens=min(64, room // 4))
            return Goal(load=load, figure="latency_s", more_is_better=False)


def dimensions(facts: Facts, use: Use, settings: Mapping[str, Any], *, layers: int) -> dict[str, list[Any]]:
    """The values of each flag, its present one among them. `settings` are the recipe's on this machine."""
    found: dict[str, list[Any]] = {"ubatch_size": [128, 256, 512, 1024], "flash_attn": ["auto", "off"]}
    gpu = bool(facts.gpus)
    if gpu:
        found["ubatch_size"] = [512, 1024, 2048]
    cpu_moe = settings.get("n_cpu_moe")
    if not gpu or cpu_moe:
        found["threads"] = sorted({max(1, facts.cores // 2), facts.cores, max(1, facts.cores - 1)})
        found["threads_batch"] = [facts.cores]
    if gpu and isinstance(cpu_moe, int) and cpu_moe:
        found["n_cpu_moe"] = [n for n in (cpu_moe - 2, cpu_moe - 1, cpu_moe, cpu_moe + 1) if 0 <= n <= layers]
    if use is Use.BATCH and isinstance(settings.get("parallel"), int):
        found["parallel"] = [settings["parallel"], 2 * settings["parallel"]]
    return found


def candidates(dims: Mapping[str, Sequence[Any]], settings: Mapping[str, Any], *, most: int) -> tuple[Candidate, ...]:
    """The recipe as it is, each single change, then combinations, `most` in all; the simplest come first.

    A value that the recipe has already is no change; values equal to `settings` are left out of a candidate.
    """
    settings = {**DEFAULTS, **settings}
    found: list[Candidate] = []
    for combination in itertools.product(*([(k, v) for v in (_UNCHANGED, *values)] for k, values in dims.items())):
        changed = {k: v for k, v in combination if v is not _UNCHANGED and settings.get(k) != v}
        if changed not in found:
            found.append(changed)
    return tuple(sorted(found, key=len)[:most])


_UNCHANGED = object()
DEFAULTS = {"ubatch_size": 512, "flash_attn": "auto"}  # llama-server's own (llama.cpp v0.5.0, common/common.h)
