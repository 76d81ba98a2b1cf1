"""From the samples of a load to its numbers: latencies, speeds, goodput. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nemotron_ops.errors import UsageError
from nemotron_ops.measure.figures import median, spread
from nemotron_ops.measure.power.energy import Energy, figures
from nemotron_ops.measure.stream import Sample

# figure -> (unit, whether more is better); those with p50, p95 and p99 first
FIGURES: dict[str, tuple[str, bool]] = {
    "ttft_s": ("s", False),
    "itl_s": ("s", False),
    "token_time_s": ("s", False),
    "latency_s": ("s", False),
    "request_tokens_per_s": ("tokens/s", True),
    "tokens_per_s": ("tokens/s", True),
    "requests_per_s": ("1/s", True),
    "goodput_per_s": ("1/s", True),
    "engine_prompt_per_s": ("tokens/s", True),
    "engine_tokens_per_s": ("tokens/s", True),
    "watts": ("W", False),
    "tokens_per_joule": ("tokens/J", True),
}
SPREADS = ("ttft_s", "itl_s", "token_time_s", "latency_s", "request_tokens_per_s")
LIMIT = re.compile(r"(ttft|itl|tpot|latency)\s*[=<]\s*(\d+(?:\.\d+)?)\s*(ms|s)")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a request must keep to count as goodput, in seconds; inf is no limit."""

    ttft_s: float = math.inf
    itl_s: float = math.inf  # every gap between tokens
    token_time_s: float = math.inf  # their mean
    latency_s: float = math.inf

    def holds(self, sample: Sample) -> bool:
        """Whether the answer was complete and in time."""
        return not sample.error and (
            sample.ttft_s <= self.ttft_s
            and max(sample.gaps_s, default=0.0) <= self.itl_s
            and sample.token_time_s <= self.token_time_s
            and sample.ended_s <= self.latency_s
        )

    def as_json(self) -> dict[str, float]:
        return {k: v for k, v in asdict(self).items() if v != math.inf}


def read_limit(text: str) -> Limit:
    """The limit in `ttft=500ms,tpot=50ms`; also itl and latency. Raises UsageError."""
    fields = {"ttft": "ttft_s", "itl": "itl_s", "tpot": "token_time_s", "latency": "latency_s"}
    found: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        if (match := LIMIT.fullmatch(part)) is None:
            raise UsageError(f"cannot read the limit {part!r}", hint="for example --limit ttft=500ms,tpot=50ms")
        found[fields[match[1]]] = float(match[2]) / (1000 if match[3] == "ms" else 1)
    return Limit(**found)


def summarise(
    samples: Sequence[Sample], wall_s: float, limit: Limit | None = None, energy: Energy | None = None
) -> dict[str, Any]:
    """The numbers of one load: figures of `SPREADS` with p50, p95, p99 and mean, the others as one number each.

    Rates count from the first request to the last byte. Goodput is there only with a limit, watts and
    answer tokens per joule only where energy was measured.
    """
    good = [s for s in samples if not s.error]
    values = {
        "ttft_s": [s.ttft_s for s in good],
        "itl_s": [gap for s in good for gap in s.gaps_s],
        "token_time_s": [s.token_time_s for s in good if s.token_time_s > 0],
        "latency_s": [s.ended_s for s in good],
        "request_tokens_per_s": [s.tokens_per_s for s in good if s.tokens_per_s > 0],
    }
    found: dict[str, Any] = {name: rounded(asdict(spread(values[name]))) for name in SPREADS}
    found["tokens_per_s"] = sum(s.tokens for s in good) / wall_s
    found["requests_per_s"] = len(good) / wall_s
    if limit is not None and limit != Limit():
        kept = sum(limit.holds(s) for s in samples)
        found["goodput_per_s"] = kept / wall_s
        found["goodput_share"] = kept / len(samples)
    found["engine_prompt_per_s"] = median([s.engine_prompt_per_s for s in good if s.engine_prompt_per_s])
    found["engine_tokens_per_s"] = median([s.engine_tokens_per_s for s in good if s.engine_tokens_per_s])
    found |= {
        "requests": len(samples),
        "errors": len(samples) - len(good),
        "error": next((s.error for s in samples if s.error), ""),
        "prompt_tokens": median([float(s.prompt_tokens) for s in good]),
        "cached_tokens": median([float(s.cached_tokens) for s in good]),
        "answer_tokens": median([float(s.tokens) for s in good]),
        "wall_s": wall_s,
    }
    found |= figures(energy, sum(s.tokens for s in good))
    return rounded(found)


def number(summary: Mapping[str, Any], figure: str) -> float:
    """The figure's number that comparisons use: its p50, or itself; NaN where it is absent."""
    value = summary.get(figure)
    if isinstance(value, Mapping):
        value = value.get("p50")
    return float(value) if value is not None else math.nan


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Floats with six digits; NaN, which JSON lacks, as None."""
    return {k: _rounded(v) if isinstance(v, float) else v for k, v in values.items()}


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.6g}")
