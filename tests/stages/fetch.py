"""What tests of fetching share: a hub with one small real model, and short timeouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nemotron_ops.installation import Installation
from nemotron_ops.models.fetch import FetchPlan, FetchRequest, fetch, prepare
from nemotron_ops.models.ref import Ref
from nemotron_ops.models.store import StoredModel
from nemotron_ops.models.transfer import Speed, Tuning
from nemotron_ops.models.web import Patience
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Report, Step
from tests.fakes.hub import Hub
from tests.fakes.machines import LAPTOP

REPO, NAME = "owner/Tiny-GGUF", "Tiny-Q8_0.gguf"
QUICK = Patience(connect_s=10, stall_s=15, tries=3, backoff_s=0.01, backoff_max_s=0.05)
HASTY = replace(QUICK, stall_s=1.0)  # for servers that stall on purpose
SMALL = Speed(segment_bytes=1 << 18, run_segments=3, connections=1, grow_s=0.05)
TUNING = Tuning(patience=QUICK, speed=SMALL)
REF = Ref(repo=REPO, quant="Q8_0")


@dataclass(kw_only=True)
class FetchStage:
    """A hub with one file, and the store that the file is fetched into."""

    hub: Hub
    layout: Layout
    content: bytes
    steps: list[Step] = field(default_factory=list)

    def installation(self, *, env: Mapping[str, str] | None = None, report: Report | None = None) -> Installation:
        """The store, with the hub's environment; `env` is added to it."""
        return Installation(
            layout=self.layout, env=self.hub.env | dict(env or {}), report=report or self.steps.append, known=LAPTOP
        )

    def fetch(
        self,
        *,
        ref: Ref = REF,
        env: Mapping[str, str] | None = None,
        report: Report | None = None,
        tuning: Tuning = TUNING,
        **how: Any,
    ) -> StoredModel:
        return fetch(FetchRequest(ref=ref, **how), self.installation(env=env, report=report), tuning=tuning)

    def prepare(self, *, env: Mapping[str, str] | None = None) -> FetchPlan:
        return prepare(FetchRequest(ref=REF), self.installation(env=env), tuning=TUNING)

    @property
    def notes(self) -> list[str]:
        return [s.note for s in self.steps if s.note]

    @property
    def target(self) -> Path:
        """The path of the fetched file."""
        return self.layout.models / "owner--Tiny-GGUF" / self.hub.commit[:12] / NAME

    def is_right(self) -> bool:
        return self.target.is_file() and self.target.read_bytes() == self.content
