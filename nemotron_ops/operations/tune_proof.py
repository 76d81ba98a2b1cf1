"""Proves an adapter in the engine that will serve it, before it is published. Processes.

    learnt     the right completions of samples are likelier with the adapter than without it
    thinking   answers that should reason close their reasoning as often as the base's do
    canaries   the base's own answers to other questions do not become impossible

An adapter that fails one is kept in its job, and not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nemotron_ops.engine.client import Client
from nemotron_ops.engine.once import started
from nemotron_ops.operations.tokens import SETTINGS, Tokens

SAMPLES = 6
TOKENS = 24  # of each completion
CANARIES = ("What is the capital of France?", "Write one short sentence.", "Count from one to five.")
CANARY_TOKENS = 12
MOST_LOSS = 6.0  # nats a token that the base's own answers may lose
TOP = 5000  # tokens whose probabilities are asked for
FLOOR = -20.0  # log-probability of a token below all of them


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What the engine said. Log-probabilities are means of a token; `held_out` says whether the samples were."""

    held_out: bool
    base_logprob: float
    tune_logprob: float
    base_thinking: float
    tune_thinking: float
    canary_loss: float

    @property
    def faults(self) -> list[str]:
        """Why the adapter must not be published; empty if it may."""
        found = []
        if not self.tune_logprob > self.base_logprob:
            found.append(f"its answers are no likelier than the base's ({self.tune_logprob} and {self.base_logprob})")
        if self.tune_thinking < self.base_thinking:
            found.append(f"it reasons less than the base ({self.tune_thinking:.0%} and {self.base_thinking:.0%})")
        if self.canary_loss > MOST_LOSS:
            found.append(f"the base's own answers lose {self.canary_loss} nats a token")
        return found

    @property
    def value(self) -> dict[str, Any]:
        return {**asdict(self), "faults": self.faults}


def prove(samples: Sequence[Tokens], *, held_out: bool, model: Path, adapter: Path, binary: Path, log: Path) -> Proof:
    """Ask the engine with the adapter at scale 0 and at scale 1. Raises EngineError if it does not load."""
    with started(binary=binary, model=model, workdir=log, settings=SETTINGS, adapters=(adapter,)) as engine:
        some = spread(samples, SAMPLES)
        base, tune = (logprob(engine, some, scale) for scale in (0.0, 1.0))
        reasoning = [s for s in some if s.text.thinking]
        before, after = (_closes(engine, reasoning, scale) for scale in (0.0, 1.0))
        lost = [_canary(engine, question) for question in CANARIES]
    return Proof(
        held_out=held_out, base_logprob=round(base, 4), tune_logprob=round(tune, 4), base_thinking=before,
        tune_thinking=after, canary_loss=round(sum(lost) / len(lost), 4),
    )  # fmt: skip


def spread(samples: Sequence[Tokens], count: int) -> list[Tokens]:
    """At most `count` samples, from all over the list."""
    step = max(1, len(samples) // count)
    return list(samples[::step])[:count]


def logprob(engine: Client, samples: Sequence[Tokens], scale: float) -> float:
    """The mean log-probability of the right tokens, each after the right ones before it."""
    found = [_token(engine, s.ids[:at], s.ids[at], scale) for s in samples for at in _learnt(s)]
    return sum(found) / max(1, len(found))


def _learnt(sample: Tokens) -> range:
    return range(sample.asked, min(len(sample.ids), sample.asked + TOKENS))


def _token(engine: Client, before: Sequence[int], token: int, scale: float) -> float:
    top = complete(engine, list(before), scale, n_predict=1, n_probs=TOP)["completion_probabilities"]
    return next((float(t["logprob"]) for t in top[0]["top_logprobs"] if t["id"] == token), FLOOR) if top else FLOOR


def _closes(engine: Client, samples: Sequence[Tokens], scale: float) -> float:
    """The share of answers whose reasoning ends."""
    end = engine.ask("/tokenize", {"content": "</think>", "parse_special": True})["tokens"]
    said = [
        complete(engine, list(s.ids[: s.asked]), scale, n_predict=len(s.ids) - s.asked + 64, return_tokens=True)
        for s in samples
    ]
    return sum(set(end) <= set(answer["tokens"]) for answer in said) / len(said) if said else 1.0


def _canary(engine: Client, question: str) -> float:
    """Nats a token that the base's own answer loses with the adapter."""
    message = {"role": "user", "content": question}
    body = {"messages": [message], "chat_template_kwargs": {"enable_thinking": False}}
    text = engine.ask("/apply-template", body)["prompt"]
    prompt = list(engine.ask("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"])
    answer = list(complete(engine, prompt, 0.0, n_predict=CANARY_TOKENS, return_tokens=True)["tokens"])
    ids = [*prompt, *answer]
    both = [
        sum(max(FLOOR, _token(engine, ids[:at], ids[at], scale)) for at in range(len(prompt), len(ids)))
        for scale in (0.0, 1.0)
    ]
    return (both[0] - both[1]) / max(1, len(answer))


def complete(engine: Client, prompt: list[int], scale: float, **fields: Any) -> dict[str, Any]:
    """One greedy completion of tokens."""
    body = {"prompt": prompt, "temperature": 0, "lora": [{"id": 0, "scale": scale}], "seed": 1}
    return engine.ask("/completion", body | fields)
