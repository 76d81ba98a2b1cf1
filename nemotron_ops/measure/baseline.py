"""The kept baseline of a run: what its numbers are held against, so that a slower build or release is noticed. Disk.

A run that was set with `bench baseline RUN` is the baseline of all later runs of the same model on the same machine,
whatever build, driver or release made them. Without one it is the newest earlier run: a loss that comes in small steps
needs a run that was set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.files import locked, read_json, write_json
from nemotron_ops.measure import runs
from nemotron_ops.measure.compare import Change, compare, slower
from nemotron_ops.measure.runs import Run
from nemotron_ops.paths import Layout


@dataclass(frozen=True, kw_only=True)
class Held:
    """A run held against its baseline. `is_set`: it was set by hand, rather than being the newest earlier run."""

    baseline: Run
    is_set: bool
    changes: tuple[Change, ...]

    @property
    def slower(self) -> tuple[Change, ...]:
        return slower(self.changes)

    def as_json(self) -> dict[str, Any]:
        changes = [asdict(c) for c in self.changes]
        return {"run": self.baseline.id, "is_set": self.is_set, "changes": changes}


def held(layout: Layout, run: Run, *, beside: Sequence[Run] = ()) -> Held | None:
    """`run` compared with its baseline; None where no kept run measured the same.

    Runs `beside` it were made by the same command, and are no baseline of it.
    """
    others = {run.id, *(r.id for r in beside)}
    kept = [r for r in runs.read(layout) if r.id not in others and subject_of(r) == subject_of(run)]
    kept = [r for r in kept if r.repeats.keys() & run.repeats.keys()]
    chosen = _read(layout)
    by_hand = [r for r in kept if r.id in chosen]
    earlier = [r for r in kept if r.at_s < run.at_s]
    found = by_hand[-1:] or earlier[-1:]
    if not found:
        return None
    changes = compare(found[0].repeats, run.repeats)
    return Held(baseline=found[0], is_set=bool(by_hand), changes=changes)


def set_baseline(layout: Layout, run: Run) -> None:
    """Make `run` the baseline of what it measured, in place of another one."""
    _change(layout, run, [run.id])


def forget(layout: Layout, run: Run) -> None:
    """No run is the baseline, set by hand, of what `run` measured."""
    _change(layout, run, [])


def set_runs(layout: Layout) -> tuple[Run, ...]:
    """The runs that were set, oldest first."""
    chosen = _read(layout)
    return tuple(r for r in runs.read(layout) if r.id in chosen)


def subject_of(run: Run) -> tuple[object, ...]:
    """What was measured and where, without what may change from release to release: build, flags, driver, versions."""
    made = run.made_by
    machine = made.get("machine") or made.get("client") or {}
    model = made.get("model", {})
    files = tuple(sorted(f.get("name", "") for f in model.get("files", ())))
    gpus = tuple(g.get("name") for g in machine.get("gpus", ()))
    return (
        made.get("target") or made.get("url", ""),
        model.get("name"),
        files,
        machine.get("cpu"),
        machine.get("cores"),
        gpus,
    )


def _change(layout: Layout, run: Run, added: Sequence[str]) -> None:
    path = _path(layout)
    with locked(path.with_suffix(".lock")):
        same = {r.id for r in runs.read(layout) if subject_of(r) == subject_of(run)}
        write_json(path, {"version": 1, "runs": [*(n for n in _read(layout) if n not in same), *added]}, mode=0o600)


def _read(layout: Layout) -> list[str]:
    """Ids of the runs that were set; a file that cannot be read has none."""
    try:
        found = (read_json(_path(layout)) or {})["runs"]
    except (NemotronOpsError, OSError, ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in found] if isinstance(found, list) else []


def _path(layout: Layout) -> Path:
    return layout.state / "measure" / "baselines.json"
