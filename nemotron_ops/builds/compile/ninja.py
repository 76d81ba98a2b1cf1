"""Parses ninja's output and log: progress, remaining time, failures. Pure.

ninja counts steps, but a step may take 0.1 s or 30 s. So the remaining time is the sum of the recorded seconds of the
pending steps (by output file, from `.ninja_log`), scaled by this machine's speed so far.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

STATUS = "[%f/%t] "  # for NINJA_STATUS
UNKNOWN_STEP_S = 3.0  # a step without a record


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One line of ninja's progress: `[12/230] Building CXX object x.cpp.o`."""

    done: int
    total: int
    output: str


def parse_tick(line: str) -> Tick | None:
    """The progress in `line`, if it is such a line."""
    found = re.match(r"\[(\d+)/(\d+)\] (.*)", line)
    return Tick(done=int(found[1]), total=int(found[2]), output=output_of(found[3])) if found else None


def output_of(description: str) -> str:
    """What a step makes, as ninja's log names it: the last word of `Building CXX object a/b.cpp.o`."""
    description = description.partition(" && ")[0].strip()
    return description.rpartition(" ")[2]


def parse_log(text: str) -> dict[str, float]:
    """Seconds per output from `.ninja_log` (columns: start ms, end ms, mtime, output, hash).

    Outputs outside the build folder are left out: their names are of this machine alone.
    """
    seconds: dict[str, float] = {}
    for line in text.splitlines():
        cells = line.split("\t")
        if len(cells) == 5 and cells[0].isdigit() and cells[1].isdigit() and not cells[3].startswith("/"):
            seconds[cells[3]] = (int(cells[1]) - int(cells[0])) / 1000
    return seconds


@dataclass(kw_only=True)
class Estimate:
    """The remaining time. `outputs` are the pending steps, `seconds` the recorded times of all steps."""

    outputs: Sequence[str]
    seconds: Mapping[str, float]
    jobs: int
    spent_s: float = 0.0  # recorded seconds of the steps done so far
    _left: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        usual = usual_seconds(self.seconds)
        self._left = {o: self.seconds.get(o, usual.get(kind_of(o), UNKNOWN_STEP_S)) for o in self.outputs}

    def finish(self, output: str) -> None:
        """Count a step as done."""
        self.spent_s += self._left.pop(output, 0.0)

    def left_s(self, elapsed_s: float) -> float:
        """Remaining seconds after `elapsed_s`: by the recorded pace at first, increasingly by the observed one."""
        left = sum(self._left.values())
        planned = left / self.jobs
        total = self.spent_s + left
        if self.spent_s <= 0 or total <= 0:
            return planned
        observed = left * elapsed_s / self.spent_s
        trust = min(1.0, 4 * self.spent_s / total)  # from a quarter on, only the observed pace counts
        return trust * observed + (1 - trust) * planned


def usual_seconds(seconds: Mapping[str, float]) -> dict[str, float]:
    """The median seconds by kind of step: a CUDA file takes ten times as long as a C++ file."""
    by_kind: dict[str, list[float]] = {}
    for output, took in seconds.items():
        by_kind.setdefault(kind_of(output), []).append(took)
    return {kind: median(times) for kind, times in by_kind.items()}


def kind_of(output: str) -> str:
    """`cu.o` for `x/y.cu.o`, empty for `bin/llama-server`."""
    return output.rpartition("/")[2].partition(".")[2]


def failure_lines(lines: Iterable[str], *, most: int = 30) -> tuple[str, ...]:
    """The relevant part of a failed build's output: compiler errors, or the last lines."""
    kept = list(lines)
    failed = next((i for i, line in enumerate(kept) if line.startswith("FAILED:")), None)
    if failed is not None:
        block = [kept[failed]]
        for line in kept[failed + 1 :]:
            if parse_tick(line) or line.startswith("ninja: build stopped"):
                break
            block.append(line)
        errors = [line for line in block if re.search(r"\b(error|fatal|undefined reference|Killed)\b", line)]
        return tuple(shorten(line) for line in ([block[0], *errors] if errors else block)[:most])
    start = next((i for i, line in enumerate(kept) if line.startswith("CMake Error")), None)
    return tuple(shorten(line) for line in (kept[start:] if start is not None else kept[-most:])[:most])


OUT_OF_MEMORY = re.compile(r"Killed signal terminated program|out of memory|cannot allocate memory", re.IGNORECASE)


def out_of_memory(lines: Iterable[str]) -> bool:
    """Whether the compiler ran out of memory."""
    return any(OUT_OF_MEMORY.search(line) for line in lines)


def shorten(line: str, most: int = 400) -> str:
    return line if len(line) <= most else line[:most] + " …"


def cmake_warnings(text: str) -> tuple[str, ...]:
    """Options that this source does not use: cmake only warns about an unknown `-D`."""
    found = re.search(r"Manually-specified variables were not used by the project:\s*\n((?:\s*\n|\s+\S+\n?)+)", text)
    return tuple(found.group(1).split()) if found else ()
