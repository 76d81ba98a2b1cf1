"""Proves a converted file: its header and size against the plan, and an answer of the engine. Processes, disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_ops.engine.once import started
from nemotron_ops.errors import EngineError, ModelError
from nemotron_ops.models.gguf import Header
from nemotron_ops.models.local import read_header
from nemotron_ops.models.store import StoredFile

QUESTION = "What is 2 + 2?"
TOKENS = 48
SETTINGS = {"ctx_size": 1024, "parallel": 1, "cache_ram_mib": 0}
READY_S = 120.0
LOAD_BYTES_S = 50e6  # a slow disk
STUCK_TOKENS = 16  # an answer of so many tokens has more than two different ones


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the engine said to `QUESTION`. `checked` is false where the model was not loaded, for want of memory."""

    text: str = ""
    checked: bool = False


def check_file(path: Path, *, most_bytes: int, like: Header | None = None) -> Header:
    """The header of a converted file. Raises ModelError if it differs from the plan, or from the unquantised file."""
    header, size = read_header(path), path.stat().st_size
    if size > most_bytes:
        raise ModelError(f"cannot use {path.name}: it has {size:,} bytes, the plan says {most_bytes:,} at most")
    if not header.arch or not header.tensors:
        raise ModelError(f"cannot use {path.name}: its header names no model")
    if like is not None and {t.name: t.dims for t in like.tensors} != {t.name: t.dims for t in header.tensors}:
        raise ModelError(f"cannot use {path.name}: it has other tensors than the file that it was quantised from")
    return header


def ask_model(binary: Path, model: Path, workdir: Path) -> Answer:
    """Load the model and ask it one question. Raises ModelError if it does not load or answers nonsense."""
    wait_s = max(READY_S, model.stat().st_size / LOAD_BYTES_S)
    try:
        with started(binary=binary, model=model, workdir=workdir, settings=SETTINGS, ready_timeout_s=wait_s) as engine:
            answer = engine.chat(
                [{"role": "user", "content": QUESTION}], temperature=0, max_tokens=TOKENS, logprobs=True, timeout_s=None
            )
    except EngineError as exc:
        raise ModelError(
            f"cannot use {model.name}: llama-server does not run it: {exc.message}", log_tail=exc.log_tail
        ) from exc
    choice = dict(answer["choices"][0])
    message, said = choice["message"], list((choice.get("logprobs") or {}).get("content") or ())
    if fault := fault_of(said):
        raise ModelError(
            f"cannot use {model.name}: {fault}",
            hint="try another quant, or BF16; if that is wrong, too, the converter does not know this model well",
        )
    text = " ".join(str(message.get(part) or "").strip() for part in ("reasoning_content", "content"))
    return Answer(text=" ".join(text.split()), checked=True)


def fault_of(said: list[dict[str, Any]]) -> str:
    """What is wrong with an answer, by its tokens and their log-probabilities; "" if nothing is."""
    if not said:
        return "it says nothing"
    if not all(isinstance(t.get("logprob"), int | float) and math.isfinite(t["logprob"]) for t in said):
        return "its probabilities are no numbers"
    if len(said) >= STUCK_TOKENS and len({str(t.get("token")) for t in said}) <= 2:
        return f"it repeats {said[-1].get('token')!r}"
    return ""


def stored_file(name: str, path: Path, sha256: str) -> StoredFile:
    """The record of a converted file in the store."""
    stat = path.stat()
    return StoredFile(name=name, path=str(path), size_bytes=stat.st_size, sha256=sha256, mtime_ns=stat.st_mtime_ns)
