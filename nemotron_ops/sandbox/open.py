"""Chooses a backend that has held its attacks on this machine, and opens a session on it. Processes, disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from nemotron_ops.errors import HostError, UsageError
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Report, remark, silent
from nemotron_ops.sandbox import choose, interpreter, launch, probe, selftest, toolbox
from nemotron_ops.sandbox.choose import Backend, Candidate, Facts
from nemotron_ops.sandbox.limits import Limits
from nemotron_ops.sandbox.monty import MontySession
from nemotron_ops.sandbox.selftest import Verdict
from nemotron_ops.sandbox.session import Sandbox, Session

VERDICTS = "held.json"


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One backend of this machine, and what its self-test gave; None: it cannot be tried."""

    candidate: Candidate
    verdict: Verdict | None

    @property
    def works(self) -> bool:
        return self.verdict is not None and self.verdict.passed

    @property
    def reason(self) -> str:
        """Why it is not offered, or ""."""
        if self.verdict is None:
            return self.candidate.reason
        return "; ".join(self.verdict.wrong)


@dataclass(frozen=True, kw_only=True)
class Room:
    """The sandboxes of one installation."""

    layout: Layout
    env: Mapping[str, str]
    report: Report = silent

    @cached_property
    def facts(self) -> Facts:
        return probe.look(self.env)

    @property
    def verdicts(self) -> Path:
        return self.layout.state / "sandbox" / VERDICTS

    @property
    def scratch(self) -> Path:
        """Work folders of walls without a tmpfs. As root, where only root can make it and any user can enter."""
        if os.geteuid() == 0:
            return Path("/var/lib/nemotron-ops-sandbox")
        return self.layout.runtime / "sandbox"

    @property
    def toolboxes(self) -> Path:
        return self.layout.data / "toolboxes"

    def tried(self, *, anew: bool = False, every: bool = False, only: str | None = None) -> tuple[Tried, ...]:
        """Backends in order with their verdicts, up to the first that works; `every` tries them all."""
        found: list[Tried] = []
        for candidate in choose.candidates(self.facts):
            if only not in (None, candidate.backend):
                continue
            found.append(self._try(candidate, anew=anew))
            if found[-1].works and not every:
                break
        return tuple(found)

    def backend(self, only: str | None = None) -> Candidate:
        """The strongest backend that holds. Raises HostError with each reason if there is none."""
        tried = self.tried(only=only)
        if not tried:
            raise UsageError(f"cannot run code: there is no backend {only!r}")
        if tried[-1].works:
            return tried[-1].candidate
        text, hint = choose.refusal(tuple(replace(t.candidate, reason=t.reason) for t in tried))
        raise HostError(text, hint=hint or None)

    def open(self, limits: Limits | None = None, *, only: str | None = None) -> Sandbox:
        """A session on the strongest backend. Raises HostError if no wall works here."""
        launch.sweep(self.scratch)
        return self.open_on(self.backend(only), limits or Limits())

    def open_on(self, candidate: Candidate, limits: Limits) -> Sandbox:
        """A session on a given backend, which must have passed its self-test before it gets code."""
        if candidate.backend is Backend.MONTY:
            return MontySession(limits)
        order = launch.Order(
            candidate=candidate, interpreter=self._interpreter(candidate), limits=limits, scratch=self.scratch
        )
        return Session(order)

    def _interpreter(self, candidate: Candidate) -> interpreter.Interpreter:
        """The toolbox's Python if there is a toolbox that the sandbox's user can read, else the present one."""
        by_path = candidate.backend is Backend.LANDLOCK and self.facts.root
        inside = interpreter.present(open_to_all=by_path)
        found = toolbox.current(self.toolboxes, inside.python)
        if found is None or (by_path and not interpreter.readable_by_all(found)):
            return inside
        return toolbox.with_packages(inside, found)

    def _try(self, candidate: Candidate, *, anew: bool) -> Tried:
        if not candidate.usable:
            return Tried(candidate=candidate, verdict=None)
        verdict = selftest.verdict(
            candidate, lambda limits: self.open_on(candidate, limits), self.facts, self.verdicts, anew=anew
        )
        if not verdict.passed:
            remark(self.report, f"{candidate.backend} is not used: {'; '.join(verdict.wrong)}")
        return Tried(candidate=candidate, verdict=verdict)


def kept_summary(layout: Layout) -> dict[str, object] | None:
    """What code runs in here, as it was last found out since this boot; reads one file and starts nothing."""
    found = selftest.last_kept(layout.state / "sandbox" / VERDICTS, probe.boot_id())
    if found is None:
        return None
    return {"backend": found.backend, "attacks_held": found.held, "attacks": found.of}


def summary(room: Room) -> dict[str, object]:
    """The state of code execution for pages and lists: backend, attacks held, or the reason why there is none."""
    tried = room.tried()
    if tried[-1].works and (found := tried[-1].verdict):
        return {"backend": str(tried[-1].candidate.backend), "attacks_held": found.held, "attacks": found.of}
    return {"backend": None, "reasons": {str(t.candidate.backend): t.reason for t in tried}}
