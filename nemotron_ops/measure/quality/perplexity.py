"""Perplexity of a text, and KL divergence from another model, by llama.cpp's own llama-perplexity. Subprocess, disk.

The program is compiled on demand from the build's own source. KL divergence takes two runs over the same text: the
reference writes its logits to a temporary file (two bytes per token of the vocabulary and position), the other model is
compared with it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from nemotron_ops import proc
from nemotron_ops.errors import EngineError
from nemotron_ops.progress import Report, Step, remark

T = TypeVar("T")
FINAL = re.compile(r"Final estimate: PPL = ([\d.]+) \+/- ([\d.]+)")
CHUNK = re.compile(r"\[(\d+)\][\d.]+,")
TOTAL = re.compile(r"(?:calculating perplexity over|computing over) (\d+) chunks")
MEAN = re.compile(r"^(Mean|Median|Maximum|[\d.]+%)\s+KLD:\s+(-?[\d.]+)", re.MULTILINE)
RATIO = re.compile(r"^Mean PPL\(Q\)/PPL\(base\)\s*:\s*(-?[\d.]+)\s*±\s*([\d.]+)", re.MULTILINE)
SAME_TOP = re.compile(r"^Same top p:\s+([\d.]+)\s*±\s*([\d.]+) %", re.MULTILINE)
STALL_S = 3600.0
# llama-perplexity ends with 0 before its log's thread has written the last lines, in a third of short runs on a busy
# machine (seen at v0.5.0): its log is not flushed at the end. Another run finds the same numbers, and costs only time.
ATTEMPTS = 10


class LostEnd(EngineError):
    """The output of llama-perplexity lacks its result."""


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Perplexity with its standard error."""

    value: float
    error: float

    def as_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """How far a model's next-token distributions are from the reference's, in nats; shares in [0, 1]."""

    mean: float
    median: float
    p99: float
    largest: float
    ratio: float  # of perplexities: model / reference
    ratio_error: float
    same_top: float  # share of positions at which both have the same likeliest token
    same_top_error: float

    def as_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model file with the program of its build, and flags such as threads and GPU layers."""

    program: Path
    model: Path
    flags: Sequence[str] = ()


def perplexity(subject: Subject, text: Path, *, chunks: int, context: int, env: Mapping[str, str],
               report: Report) -> Perplexity:  # fmt: skip
    """The perplexity of `text`, over `chunks` pieces of `context` tokens. Raises EngineError."""
    words = ["--chunks", str(chunks), "-c", str(context)]
    return _read(subject, text, words, env, report, "perplexity", read_perplexity)


def divergence(subject: Subject, reference: Subject, text: Path, *, chunks: int, context: int,
               env: Mapping[str, str], report: Report) -> Divergence:  # fmt: skip
    """How far `subject` is from `reference` on `text`. Raises EngineError."""
    with tempfile.TemporaryDirectory(prefix="nemotron-ops-kl-") as folder:
        logits = ["--kl-divergence-base", f"{folder}/logits"]
        cut = ["--chunks", str(chunks), "-c", str(context)]
        _run(reference, text, [*cut, *logits], env, report, "reference")
        words = [*cut, *logits, "--kl-divergence"]
        return _read(subject, text, words, env, report, "KL divergence", read_divergence)


def read_perplexity(output: str) -> Perplexity:
    """The result in llama-perplexity's output. Raises EngineError."""
    if (found := FINAL.search(output)) is None:
        raise LostEnd("cannot read the perplexity: llama-perplexity printed none", log_tail=_tail(output))
    return Perplexity(value=float(found[1]), error=float(found[2]))


def read_divergence(output: str) -> Divergence:
    """The result in the output of a run with `--kl-divergence`. Raises EngineError."""
    kl = {name: float(value) for name, value in MEAN.findall(output)}
    ratio, top = RATIO.search(output), SAME_TOP.search(output)
    if ratio is None or top is None or not {"Mean", "Median", "Maximum", "99.0%"} <= kl.keys():
        raise LostEnd("cannot read the KL divergence: llama-perplexity printed none", log_tail=_tail(output))
    return Divergence(
        mean=kl["Mean"], median=kl["Median"], p99=kl["99.0%"], largest=kl["Maximum"],
        ratio=float(ratio[1]), ratio_error=float(ratio[2]),
        same_top=float(top[1]) / 100, same_top_error=float(top[2]) / 100,
    )  # fmt: skip


def _read(subject: Subject, text: Path, words: Sequence[str], env: Mapping[str, str], report: Report, what: str,
             read: Callable[[str], T]) -> T:  # fmt: skip
    """What `read` finds in the output of a run; the run is repeated while its last lines are missing."""
    for _ in range(ATTEMPTS - 1):
        try:
            return read(_run(subject, text, words, env, report, what))
        except LostEnd:
            remark(report, f"llama-perplexity lost the end of its log; measuring {subject.model.name} again")
    return read(_run(subject, text, words, env, report, what))


def _run(subject: Subject, text: Path, words: Sequence[str], env: Mapping[str, str], report: Report, what: str) -> str:
    argv = [str(subject.program), "-m", str(subject.model), "-f", str(text), *subject.flags, *words]
    total: list[int] = []

    def on_line(line: str) -> None:
        if found := TOTAL.search(line):
            total.append(int(found[1]))
        if (chunks := CHUNK.findall(line)) and total:
            report(Step(what=what, done=min(int(chunks[-1]), total[0]), total=total[0]))

    done = proc.run_lines(argv, on_line=on_line, env=dict(env), stall_s=STALL_S)
    if not done.ok:
        raise EngineError(
            f"cannot measure {subject.model.name}: llama-perplexity ended with {done.returncode}",
            log_tail=_tail(done.stdout + done.stderr),
        )
    return done.stdout + "\n" + done.stderr


def _tail(output: str) -> tuple[str, ...]:
    return tuple(output.strip().splitlines()[-12:])
