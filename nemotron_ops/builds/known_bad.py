"""llama.cpp builds that are known to fail with Nemotron. Reads its own data file, `data/known_bad.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from nemotron_ops.builds.spec import Backend, Fix
from nemotron_ops.host.facts import Facts


@dataclass(frozen=True, kw_only=True)
class KnownBug:
    """One known failure: the builds and machines that have it, and the remedy."""

    issue: str
    what: str
    remedy: str
    first: int
    last: int | None = None
    backends: tuple[Backend, ...] = ()
    archs: tuple[str, ...] = ()  # of models; empty: all of Nemotron 3
    cpu_flags: frozenset[str] = frozenset()
    gcc_below: int | None = None
    refuse: bool = False
    fix: Fix | None = None

    @property
    def line(self) -> str:
        return f"{self.about}; {self.remedy}"

    @property
    def about(self) -> str:
        """What fails, for which models where it is not all, and where it is reported."""
        models = f", models of architecture {' and '.join(self.archs)} only" if self.archs else ""
        return f"{self.what} ({self.issue}{models})"


@cache
def shipped() -> tuple[KnownBug, ...]:
    """The list that comes with this release."""
    return parse(files("nemotron_ops.builds").joinpath("data/known_bad.toml").read_text())


def parse(text: str) -> tuple[KnownBug, ...]:
    """The list in the data file's text. Raises TypeError for an unknown key."""
    return tuple(
        KnownBug(
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
    entries: tuple[KnownBug, ...],
    *,
    number: int,
    backend: Backend,
    facts: Facts,
    fixes: frozenset[Fix],
    compiler: str = "",
) -> tuple[KnownBug, ...]:
    """The known bugs of llama.cpp `number` for `backend` on `facts` with `fixes`.

    `compiler` is the one used, such as "gcc 12.2.0"; empty for the machine's own. A source of unknown number (0) counts
    as newest: only bugs without a fixed version apply.
    """
    cxx = facts.tools.get("cxx")
    by = compiler or (f"{cxx.kind} {'.'.join(str(n) for n in cxx.version)}" if cxx else "")
    return tuple(bad for bad in entries if _applies(bad, number, backend, facts, fixes, by))


def against_build(entries: tuple[KnownBug, ...], manifest: Mapping[str, Any], facts: Facts) -> tuple[KnownBug, ...]:
    """The known bugs of the build of `manifest` on `facts`."""
    plan = manifest["plan"]
    return matching(
        entries,
        number=plan["source"]["number"],
        backend=Backend(plan["backend"]),
        facts=facts,
        fixes=frozenset(Fix(name) for name in plan["fixes"]),
        compiler=plan["compiler"],
    )


def _applies(bad: KnownBug, number: int, backend: Backend, facts: Facts, fixes: frozenset[Fix], compiler: str) -> bool:
    gcc = re.fullmatch(r"gcc (\d+)\b.*", compiler)
    return (
        (bad.last is None if number == 0 else bad.first <= number <= (bad.last or number))
        and (bad.gcc_below is None or (gcc is not None and int(gcc[1]) < bad.gcc_below))
        and (not bad.backends or backend in bad.backends)
        and (not bad.cpu_flags or bool(bad.cpu_flags & facts.cpu_flags))
        and (bad.fix is None or bad.fix not in fixes)
    )
