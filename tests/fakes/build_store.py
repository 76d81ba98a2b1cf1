"""Builds that are put into a store without being compiled, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemotron_ops.builds.plan import plan, plan_json
from nemotron_ops.builds.spec import Backend, BuildOptions, Origin, Source, SourceKind
from nemotron_ops.builds.store import store
from nemotron_ops.builds.store.store import Build
from nemotron_ops.paths import Layout
from tests.fakes.machines import LAPTOP

SOURCE = Source(origin=Origin(kind=SourceKind.GIT, place="u", ref="v0.5.0"), label="v0.5.0", commit="a" * 40)


def manifest(build_id: str, *, made_at: float = 0.0, source: Source = SOURCE, **options: Any) -> dict[str, Any]:
    asked = BuildOptions(backend=Backend.CPU, **options)
    planned = plan(asked, facts=LAPTOP, source=source, toolchains=Path("/t"), env={})
    return {"id": build_id, "made_at": made_at, "version": "0.5.0", "plan": plan_json(planned)}


def put(layout: Layout, build_id: str, *, made_at: float = 0.0, **more: Any) -> Build:
    """A published build whose only file holds its id; `more` is added to its manifest."""
    folder = store.new_dir(layout, build_id)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/llama-server").write_text(build_id)
    return store.publish(layout, build_id, {**manifest(build_id, made_at=made_at), **more})


def put_unproven(layout: Layout, build_id: str) -> Build:
    """A build that was tested on the CPU only, because its device was not there."""
    return put(layout, build_id, selftest={"whole": False, "on": "cpu", "passed": [], "tokens_per_s": {}})
