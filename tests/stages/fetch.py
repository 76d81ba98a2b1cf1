"""What tests of fetching share: a hub with one small real model, and fast impatience."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nemotron_ops.models.fetch import Means, fetch
from nemotron_ops.models.ref import Ref
from nemotron_ops.models.store import StoredModel
from nemotron_ops.models.transfer import Speed
from nemotron_ops.models.web import Patience
from nemotron_ops.paths import Layout
from nemotron_ops.progress import Step
from tests.fakes.hub import Hub

REPO, NAME = "owner/Tiny-GGUF", "Tiny-Q8_0.gguf"
QUICK = Patience(connect_s=10, stall_s=15, tries=3, backoff_s=0.01, backoff_max_s=0.05)
HASTY = replace(QUICK, stall_s=1.0)  # for servers that stall on purpose
SMALL = Speed(segment_bytes=1 << 18, run_segments=3, connections=1, grow_s=0.05)


@dataclass(kw_only=True)
class FetchStage:
    """A hub, a store, and the file that is on the one and should get into the other."""

    hub: Hub
    layout: Layout
    content: bytes
    steps: list[Step] = field(default_factory=list)

    def means(self, **changes: Any) -> Means:
        given: dict[str, Any] = {
            "layout": self.layout, "env": self.hub.env, "report": self.steps.append, "now": 1e9,
            "patience": QUICK, "speed": SMALL,
        }  # fmt: skip
        return Means(**(given | changes))

    def fetch(
        self, *, env: Mapping[str, str] | None = None, speed: Speed = SMALL, patience: Patience = QUICK, **how: Any
    ) -> StoredModel:
        means = self.means(env=self.hub.env | dict(env or {}), speed=speed, patience=patience)
        return fetch(Ref(repo=REPO, quant="Q8_0"), means, **how)

    @property
    def notes(self) -> list[str]:
        return [s.note for s in self.steps if s.note]

    @property
    def target(self) -> Path:
        """Where the file belongs."""
        return self.layout.models / "owner--Tiny-GGUF" / self.hub.commit[:12] / NAME

    def is_right(self) -> bool:
        return self.target.is_file() and self.target.read_bytes() == self.content
