"""Puts a load on an endpoint, as a closed or an open loop, and returns a sample of each request. asyncio."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import msgspec

from nemotron_ops.errors import EngineError
from nemotron_ops.measure import load as loads
from nemotron_ops.measure.load import Load, Tokenizer
from nemotron_ops.measure.power.energy import Energy
from nemotron_ops.measure.power.meter import Meter
from nemotron_ops.measure.request import Received, Target, head, send
from nemotron_ops.measure.stream import Sample, sample_of
from nemotron_ops.progress import Report, Step, silent

PROBE_WORDS = (len(loads.WORDS), 4 * len(loads.WORDS))  # each word equally often


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The samples of one load, in order of their requests, and how long it took from first to last byte."""

    samples: tuple[Sample, ...]
    wall_s: float
    energy: Energy | None = None  # None where it was not measured


@dataclass(kw_only=True)
class _Run:
    """One load while it runs."""

    target: Target
    bodies: tuple[bytes, ...]
    dues: tuple[float, ...]  # open loop: arrival of each request; empty for a closed one
    report: Report
    what: str
    started: float = 0.0
    done: int = 0

    async def one(self, number: int, due: float | None) -> tuple[Received, float]:
        """Send request `number`; returns what came back and the moment that latencies count from."""
        received = await send(self.target, self.bodies[number])
        self.done += 1
        self.report(Step(what=self.what, done=self.done, total=len(self.bodies)))
        return received, due if due is not None else received.sent


def measure(
    target: Target, load: Load, *, tokenizer: Tokenizer, salt: str = "", report: Report = silent, what: str = "",
    meter: Meter | None = None,
) -> Measured:  # fmt: skip
    """Put `load` on `target`; `meter` counts what it costs. Raises EngineError if no request at all was answered."""
    return asyncio.run(_measure(target, load, tokenizer, salt, report, what or load.name, meter or Meter()))


def calibrate(target: Target) -> Tokenizer:
    """How many tokens the model makes of our words, from two short requests. Raises EngineError if they fail."""
    few, many = (asyncio.run(_prompt_tokens(target, words)) for words in PROBE_WORDS)
    per_word = max(0.1, (many - few) / (PROBE_WORDS[1] - PROBE_WORDS[0]))
    return Tokenizer(of_template=few - PROBE_WORDS[0] * per_word, per_word=per_word)


async def _measure(
    target: Target, load: Load, tokenizer: Tokenizer, salt: str, report: Report, what: str, meter: Meter
) -> Measured:
    run = _Run(target=target, bodies=_bodies(target, load, tokenizer, salt), dues=(), report=report, what=what)
    head(target, b"")  # a URL that is none is refused before anything is sent
    if load.warm:
        for n in range(min(load.concurrency, load.requests)):
            await send(target, run.bodies[n])
    with _no_collection():
        meter.start()
        try:
            run.started = time.perf_counter()
            if load.rate_per_s:
                found = await _open(run, loads.arrivals_s(load))
            else:
                found = await _closed(run, load.concurrency)
        finally:
            energy = meter.stop()
    samples = tuple(_sample(received, start, run.started) for received, start in found)
    if all(s.error for s in samples):
        raise EngineError(f"cannot measure {target.model}: {samples[0].error}", hint="see `nemotron-ops status`")
    ends = [r.chunks[-1][0] for r, _ in found if r.chunks]
    return Measured(samples=samples, wall_s=max(ends) - run.started, energy=energy)


async def _closed(run: _Run, concurrency: int) -> list[tuple[Received, float]]:
    found: dict[int, tuple[Received, float]] = {}
    numbers = iter(range(len(run.bodies)))

    async def client() -> None:
        for number in numbers:
            found[number] = await run.one(number, None)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(client())
    return [found[n] for n in sorted(found)]


async def _open(run: _Run, arrivals_s: tuple[float, ...]) -> list[tuple[Received, float]]:
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number, at in enumerate(arrivals_s):
            due = run.started + at
            await asyncio.sleep(due - time.perf_counter())
            tasks.append(group.create_task(run.one(number, due)))
    return [task.result() for task in tasks]


async def _prompt_tokens(target: Target, words: int) -> int:
    text = loads.prompt(Load(prompt_tokens=words), 0, Tokenizer(of_template=0, per_word=1))
    body = loads.body(Load(answer_tokens=1), target.model, text)
    received = await send(target, msgspec.json.encode(body))
    sample = _sample(received, received.sent, received.sent)
    if sample.error and not (sample.error == "the answer has no token"):
        raise EngineError(f"cannot measure {target.model}: {sample.error}", hint="see `nemotron-ops status`")
    return sample.prompt_tokens or words


def _bodies(target: Target, load: Load, tokenizer: Tokenizer, salt: str) -> tuple[bytes, ...]:
    texts = (loads.prompt(load, n, tokenizer, salt) for n in range(load.requests))
    return tuple(msgspec.json.encode(loads.body(load, target.model, text)) for text in texts)


def _sample(received: Received, start: float, began: float) -> Sample:
    found = sample_of(received.chunks, at_s=start - began, start=start)
    return replace(found, error=received.error) if received.error else found


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection during a load: a pause of 10 ms would be measured as the endpoint's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
