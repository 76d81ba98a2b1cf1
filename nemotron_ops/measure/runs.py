"""Keeps what was measured, one line of JSON for each load of a run, in `state/measure/bench.jsonl`. Disk.

A line is whole in itself: run, time, load, numbers of each repeat, and what made them (machine, build, model, flags,
versions). A kill while a line is written leaves an unfinished last line, which readers skip and the next line ends.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotron_ops.errors import UsageError
from nemotron_ops.files import locked
from nemotron_ops.paths import Layout


@dataclass(frozen=True, kw_only=True)
class Result:
    """One load of one run. `repeats` has a summary each; `summary` is over all their samples together."""

    run: str
    at_s: float  # Unix time
    label: str  # what was measured, for people: recipe, or URL
    load: Mapping[str, Any]
    load_name: str
    limit: Mapping[str, float]
    summary: Mapping[str, Any]
    repeats: tuple[Mapping[str, Any], ...]
    made_by: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run:
    """The results of one run, by load's name."""

    id: str
    results: tuple[Result, ...]

    @property
    def at_s(self) -> float:
        return self.results[0].at_s

    @property
    def label(self) -> str:
        return self.results[0].label

    @property
    def made_by(self) -> Mapping[str, Any]:
        return self.results[0].made_by

    @property
    def repeats(self) -> dict[str, tuple[Mapping[str, Any], ...]]:
        """The summaries of each load's repeats, as `compare` takes them."""
        return {r.load_name: r.repeats for r in self.results}


def file_of(layout: Layout) -> Path:
    return layout.state / "measure" / "bench.jsonl"


def new_id(label: str, at_s: float, taken: Sequence[str]) -> str:
    """A name for a run: its time and what was measured; a number at its end if that is taken."""
    letters = "".join(c if c.isalnum() else "-" for c in label.lower()).strip("-")[:24]
    name = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(at_s))}-{letters}"
    n = 1
    while name in taken:
        n += 1
        name = f"{name.rsplit('.', 1)[0]}.{n}"
    return name


def append(layout: Layout, result: Result) -> None:
    """Add one line, on disk when this returns."""
    path = file_of(layout)
    line = json.dumps(vars(result), separators=(",", ":"), allow_nan=False).encode() + b"\n"
    with locked(path.with_suffix(".lock")):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = b"\n" + line
            while line:
                line = line[os.write(fd, line) :]
            os.fsync(fd)
        finally:
            os.close(fd)


def read(layout: Layout) -> tuple[Run, ...]:
    """All runs, oldest first. Lines that are unfinished or of another form are skipped."""
    try:
        lines = file_of(layout).read_bytes().splitlines()
    except FileNotFoundError:
        return ()
    found: dict[str, list[Result]] = {}
    for line in lines:
        if (result := _result(line)) is not None:
            found.setdefault(result.run, []).append(result)
    return tuple(Run(id=name, results=tuple(results)) for name, results in found.items())


def find(layout: Layout, name: str) -> Run:
    """The run whose id starts with `name`; `last` is the newest, `last~1` the one before. Raises UsageError."""
    runs = read(layout)
    word, _, back = name.partition("~")
    if word == "last" and (not back or back.isdigit()):
        if len(runs) > int(back or 0):
            return runs[-1 - int(back or 0)]
        raise UsageError(f"cannot find the run {name}: {len(runs)} are kept", hint="`nemotron-ops bench list`")
    found = [r for r in runs if r.id == name] or [r for r in runs if r.id.startswith(name)]
    if len(found) != 1:
        cause = "its name fits several" if found else "there is none of that name"
        raise UsageError(f"cannot find the run {name}: {cause}", hint="`nemotron-ops bench list`")
    return found[0]


def _result(line: bytes) -> Result | None:
    try:
        value = json.loads(line)
        return Result(**{**value, "repeats": tuple(value["repeats"])})
    except (ValueError, TypeError, KeyError):
        return None
