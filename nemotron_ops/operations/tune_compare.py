"""Base and tune side by side, and a published adapter as a file. Processes, disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_ops.engine.client import Client
from nemotron_ops.engine.once import started
from nemotron_ops.errors import HostError, UsageError
from nemotron_ops.files import read_json, write_atomic, write_json
from nemotron_ops.installation import Installation
from nemotron_ops.operations.tokens import SETTINGS
from nemotron_ops.operations.tuning import base_of, samples_in
from nemotron_ops.tune import jobs

PROMPTS = 5
MOST_TOKENS = 256
SPARE_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer, greedy."""

    reasoning: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A question and both answers."""

    prompt: str
    base: Answer
    tune: Answer


def compare(name: str, prompts: Sequence[str], here: Installation) -> list[Pair]:
    """Answers of base and tune to `prompts`, else to questions of the job's data. UsageError without an adapter."""
    job = jobs.read(here.layout.state, name)
    adapter = _adapter(name, here)
    base = base_of(job.asked, here)
    asked = list(prompts) or _questions(job.asked.tests or job.asked.data)
    log = jobs.folder_of(here.layout.state, name) / "engine"
    with started(
        binary=base.binary, model=base.files.path, workdir=log, settings=SETTINGS, adapters=(adapter,)
    ) as engine:
        return [Pair(prompt=p, base=_answer(engine, p, 0.0), tune=_answer(engine, p, 1.0)) for p in asked]


def export(name: str, to: Path, here: Installation) -> dict[str, Any]:
    """Write the job's adapter to `to` and its card beside it; returns the card. Raises HostError for a full disk."""
    adapter, card = proven_adapter(name, here)
    folder = to.absolute().parent
    try:
        free, needed = shutil.disk_usage(folder).free, adapter.stat().st_size + SPARE_BYTES
        if free < needed:
            raise HostError(f"cannot write {to}: {free / 1e6:.0f} MB are free, {needed / 1e6:.0f} are needed")
        write_json(to.with_suffix(".card.json"), card)
        write_atomic(to, adapter.read_bytes())
    except OSError as exc:
        raise HostError(f"cannot write {to}: {exc.strerror or exc}") from exc
    return card


def proven_adapter(name: str, here: Installation) -> tuple[Path, dict[str, Any]]:
    """The job's adapter and its card. Raises UsageError where it is not proven, or failed its proof."""
    adapter = _adapter(name, here)
    card = read_json(adapter.with_name("card.json"))
    if not isinstance(card, dict):
        raise UsageError(f"cannot export {name}: it is not proven yet", hint=f"nemotron-ops tune resume {name}")
    if faults := card["proof"]["faults"]:
        raise UsageError(f"cannot export {name}: {'; '.join(faults)}", hint=f"it is kept: {adapter}")
    return adapter, card


def _adapter(name: str, here: Installation) -> Path:
    job = jobs.read(here.layout.state, name)
    path = jobs.folder_of(here.layout.state, name) / "adapter.gguf"
    if not path.is_file():
        raise UsageError(f"cannot use {name}: it is {job.state}, and has no adapter yet")
    return path


def _questions(paths: tuple[str, ...]) -> list[str]:
    """The last questions of the first rows, each once."""
    samples = samples_in(paths)
    asked = [m.content for s in samples for m in [m for m in s.messages if m.role == "user"][-1:]]
    return list(dict.fromkeys(asked))[:PROMPTS]


def _answer(engine: Client, prompt: str, scale: float) -> Answer:
    body = {
        "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": MOST_TOKENS,
        "lora": [{"id": 0, "scale": scale}],
    }  # fmt: skip
    message = engine.ask("/v1/chat/completions", body)["choices"][0]["message"]
    return Answer(reasoning=(message.get("reasoning_content") or "").strip(), content=message.get("content") or "")
