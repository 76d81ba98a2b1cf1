"""A load: which requests arrive when. Prompts and arrival times are random numbers that follow from its seed.

Closed loop: `concurrency` clients, each sends its next request when its last one has ended; the endpoint sets the pace.
Open loop: requests arrive at `rate_per_s` whether or not earlier ones have ended (Poisson), as independent people's
requests do, and latency counts from the arrival: a generator that waits would hide the queue ("coordinated omission").
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

WORDS = (
    *("river", "stone", "lamp", "garden", "letter", "winter", "bridge", "copper", "window", "paper", "morning"),
    *("engine", "harbour", "silver", "forest", "market", "candle", "mountain", "signal", "meadow", "thunder"),
    *("basket", "ladder", "orchard", "compass", "village", "feather", "mirror", "anchor", "saddle"),
)


@dataclass(frozen=True, kw_only=True)
class Load:
    """One load. `rate_per_s` 0 is a closed loop; lengths are in tokens; `thinking` None is the model's default."""

    requests: int = 32
    concurrency: int = 1
    rate_per_s: float = 0.0
    prompt_tokens: int = 256
    answer_tokens: int = 64
    prefix_tokens: int = 0  # the first tokens of a prompt, shared by all of them
    thinking: bool | None = None
    warm: bool = False  # prompts repeat, and each was sent once before
    seed: int = 1

    @property
    def name(self) -> str:
        """The load in a few words, the same for the same load: `closed 4 · 256+64`."""
        pace = f"open {self.rate_per_s:g}/s" if self.rate_per_s else f"closed {self.concurrency}"
        parts = [pace, f"{self.prompt_tokens}+{self.answer_tokens}"]
        parts += [f"prefix {self.prefix_tokens}"] if self.prefix_tokens else []
        parts += [{True: "thinking", False: "no thinking"}[self.thinking]] if self.thinking is not None else []
        return " · ".join([*parts, *(["warm"] if self.warm else [])])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Tokens of a prompt: `of_template` for none of our words, `per_word` for each. Measured at the endpoint."""

    of_template: float = 16.0
    per_word: float = 1.4

    def words_for(self, tokens: int) -> int:
        """How many words make a prompt of about `tokens` tokens, at least one."""
        return max(1, round((tokens - self.of_template) / self.per_word))


def arrivals_s(load: Load) -> tuple[float, ...]:
    """Arrival of each request of an open loop, in seconds from the start: exponential gaps."""
    random_of = random.Random(f"{load.seed} arrivals")
    found, at = [], 0.0
    for _ in range(load.requests):
        found.append(at)
        at += random_of.expovariate(load.rate_per_s)
    return tuple(found)


def prompt(load: Load, number: int, tokenizer: Tokenizer, salt: str = "") -> str:
    """The text of request `number`. Prompts share their prefix and nothing else; warm ones repeat.

    `salt` differs between repeats, so that a cold prompt is in no cache of an earlier repeat.
    """
    if load.warm:
        number, salt = number % load.concurrency, ""
    shared = tokenizer.words_for(load.prefix_tokens) if load.prefix_tokens else 0
    whole = tokenizer.words_for(load.prompt_tokens)
    shared = min(shared, whole - 1)
    prefix = _words(f"{load.seed} prefix", shared)
    own = _words(f"{load.seed} {salt} {number}", whole - shared)
    return " ".join([*prefix, *own])


def body(load: Load, model: str, text: str) -> dict[str, Any]:
    """A chat request whose answer has `answer_tokens` tokens wherever the engine obeys `ignore_eos`."""
    fields: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": load.answer_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if load.thinking is not None:
        fields["chat_template_kwargs"] = {"enable_thinking": load.thinking}
    return fields


def _words(seed: str, count: int) -> list[str]:
    """All words in one order after another, so that prompts of one length have nearly the same number of tokens."""
    draws, found = random.Random(seed), list[str]()
    while len(found) < count:
        found += draws.sample(WORDS, len(WORDS))
    return found[:count]
