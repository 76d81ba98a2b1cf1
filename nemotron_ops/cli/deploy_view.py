"""Shows the plan of a deploy and its outcome on each target. Terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from nemotron_ops.cli.app import App
from nemotron_ops.errors import NemotronOpsError

if TYPE_CHECKING:
    from nemotron_ops.deploy.remote.fleet import Outcome
    from nemotron_ops.deploy.remote.prepare import PreparedTarget


def show_plan(app: App, readies: list[PreparedTarget], *, scripts: bool, as_json: bool) -> None:
    """The plan, before anything is done."""
    if as_json:
        if scripts:
            app.ui.json([plan_json(r) for r in readies])
        return
    for ready in readies:
        for note in ready.notes:
            app.ui.say(note)
        from_ = ready.facts.current or "nothing"
        app.ui.say(f"{ready.connection.target}: {from_} -> {ready.plan.release}")
        for step in ready.plan.steps:
            app.ui.say(f"  {step.name}: {step.about}")
            if scripts:
                app.ui.data("\n".join(f"    {line}" for line in step.script.rstrip().splitlines()))


def plan_json(ready: PreparedTarget) -> dict[str, Any]:
    """The plan of one target, for `--json`."""
    facts = asdict(replace(ready.facts, cpu_features=frozenset()))
    steps = [asdict(s) for s in ready.plan.steps]
    return {"target": ready.connection.target, "release": ready.plan.release, "facts": facts, "steps": steps}


def show_outcomes(app: App, outcomes: Sequence[Outcome], errors: Sequence[NemotronOpsError], *, as_json: bool) -> None:
    """The result on each target. Raises the errors that occurred."""
    rows = [[o.target, o.release or "-", o.result] for o in outcomes]
    app.ui.json([asdict(o) for o in outcomes]) if as_json else app.ui.table(["TARGET", "RELEASE", "RESULT"], rows)
    if errors:
        raise ExceptionGroup("deploy", list(errors)) if len(errors) > 1 else errors[0]
