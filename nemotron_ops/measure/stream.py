"""From the bytes of one streamed chat answer, with their arrival times, to its timings. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec

TEXTS = ("content", "reasoning_content", "reasoning", "tool_calls")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One request as its client saw it. Times in seconds; `at_s` counts from the start of the load.

    `ttft_s` is the time to the first token: from the moment the request was due (open loop) or written (closed loop).
    `gaps_s` are the times between events that bring text, which is one per token unless the engine sends several
    at once. `error` is "" for a complete answer; only `at_s`, `ended_s` and the error count for any other.
    """

    at_s: float
    ttft_s: float = 0.0
    ended_s: float = 0.0  # from the same moment as `ttft_s` to the end of the stream
    gaps_s: tuple[float, ...] = ()
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    engine_prompt_per_s: float | None = None  # llama-server's own timings, None where it sends none
    engine_tokens_per_s: float | None = None
    text: str = field(default="", repr=False)
    error: str = ""

    @property
    def token_time_s(self) -> float:
        """Mean time per token after the first (TPOT); 0 for an answer of one token."""
        return sum(self.gaps_s) / (self.tokens - 1) if self.tokens > 1 else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second after the first token, of this request alone; 0 for an answer of one token."""
        return 1 / self.token_time_s if self.token_time_s > 0 else 0.0


def sample_of(chunks: Sequence[tuple[float, bytes]], *, at_s: float, start: float) -> Sample:
    """The sample of a stream. `chunks` are its bytes, each with its arrival; latencies count from `start`.

    A stream that ends without `[DONE]`, with an error event or without a token is an error.
    """
    times: list[float] = []
    texts: list[str] = []
    usage: Mapping[str, Any] = {}
    timings: Mapping[str, Any] = {}
    done, error = False, ""
    for when, line in _lines(chunks):
        if line == b"data: [DONE]":
            done = True
        if not line.startswith(b"data: {"):
            continue
        try:
            event = msgspec.json.decode(line[6:])
        except msgspec.DecodeError:
            error = "an event is no JSON"
            break
        if event.get("error"):
            error = str(_text_of_error(event["error"]))
            break
        usage, timings = event.get("usage") or usage, event.get("timings") or timings
        found = [c["delta"][k] for c in event.get("choices") or () for k in TEXTS if (c.get("delta") or {}).get(k)]
        if found:
            times.append(when)
            texts += [f for f in found if isinstance(f, str)]
    ended = chunks[-1][0] - start if chunks else 0.0
    error = error or ("" if done else "the stream ended early") or ("" if times else "the answer has no token")
    if error:
        return Sample(at_s=at_s, ended_s=ended, prompt_tokens=int(usage.get("prompt_tokens") or 0), error=error)
    return Sample(
        at_s=at_s,
        ttft_s=times[0] - start,
        ended_s=ended,
        gaps_s=tuple(b - a for a, b in pairwise(times)),
        tokens=int(usage.get("completion_tokens") or timings.get("predicted_n") or len(times)),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        cached_tokens=int(
            (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or timings.get("cache_n") or 0
        ),
        engine_prompt_per_s=timings.get("prompt_per_second"),
        engine_tokens_per_s=timings.get("predicted_per_second"),
        text="".join(texts),
    )


def _lines(chunks: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """The lines of the body, each with the arrival of its last byte."""
    rest = b""
    for when, data in chunks:
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield when, line.rstrip(b"\r")


def _text_of_error(value: object) -> object:
    return value.get("message", value) if isinstance(value, dict) else value
