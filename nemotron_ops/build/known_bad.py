"""llama.cpp builds that are known to fail with Nemotron. Reads its own data file, `data/known_bad.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from nemotron_ops.build.spec import Backend, Fix
from nemotron_ops.host.facts import Facts


@dataclass(frozen=True, kw_only=True)
class Bad:
    """One known failure: which builds, where, and what to do."""

    issue: str
    what: str
    remedy: str
    first: int
    last: int | None = None
    backends: tuple[Backend, ...] = ()
    archs: tuple[str, ...] = ()
    cpu_flags: frozenset[str] = frozenset()
    gcc_below: int | None = None
    refuse: bool = False
    fix: Fix | None = None

    @property
    def line(self) -> str:
        return f"{self.what} ({self.issue}); {self.remedy}"


@cache
def shipped() -> tuple[Bad, ...]:
    """The list that comes with this release."""
    return parse(files("nemotron_ops.build").joinpath("data/known_bad.toml").read_text())


def parse(text: str) -> tuple[Bad, ...]:
    """The list in the data file's text. Raises TypeError for a key that is none."""
    return tuple(
        Bad(
            **{
                **entry,
                "backends": tuple(Backend(b) for b in entry.get("backends", [])),
                "archs": tuple(entry.get("archs", [])),
                "cpu_flags": frozenset(entry.get("cpu_flags", [])),
                "fix": Fix(entry["fix"]) if "fix" in entry else None,
            }
        )
        for entry in tomllib.loads(text)["bad"]
    )


def matching(
    entries: tuple[Bad, ...], *, number: int, backend: Backend, facts: Facts, fixes: frozenset[Fix]
) -> tuple[Bad, ...]:
    """What is known against building `number` for `backend` on `facts` with `fixes`.

    A source whose number is unknown (0) counts as newer than all: only what no fix is known for applies.
    """
    return tuple(bad for bad in entries if _applies(bad, number, backend, facts, fixes))


def _applies(bad: Bad, number: int, backend: Backend, facts: Facts, fixes: frozenset[Fix]) -> bool:
    cxx = facts.tools.get("cxx")
    in_range = bad.last is None if number == 0 else bad.first <= number <= (bad.last or number)
    compiled = bad.gcc_below is None or bool(
        cxx and cxx.kind == "gcc" and cxx.version and cxx.version[0] < bad.gcc_below
    )
    return (
        in_range
        and compiled
        and (not bad.backends or backend in bad.backends)
        and (not bad.cpu_flags or bool(bad.cpu_flags & facts.cpu_flags))
        and (bad.fix is None or bad.fix not in fixes)
    )
