"""`nemotron-ops doctor`: what this machine has, lacks, and how to fix it. Prints."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from nemotron_ops.cli.app import App, json_option
from nemotron_ops.errors import HostError

if TYPE_CHECKING:
    from nemotron_ops.builds.doctor.diagnosis import Finding

MARKS = {"ok": "ok", "missing": "MISSING", "warning": "warning", "absent": "-"}


@click.command()
@click.option("--offline", is_flag=True, help="Do not try what can be reached over the network.")
@json_option
def doctor(offline: bool, as_json: bool) -> None:
    """Check this machine for everything that building and serving need.

    Looks at compilers, cmake, ninja, git, GPU and driver, CUDA, memory, disk, and whether llama.cpp's source, the
    package registry and the model hub can be reached; holds attacks on the sandbox for code. Ends with 4 if the main
    job cannot run.
    """
    with App() as app:
        from nemotron_ops.builds.doctor.diagnosis import can_run, diagnose
        from nemotron_ops.builds.doctor.network_check import surroundings

        findings = (
            *diagnose(app.installation.facts, surroundings(app.installation, offline=offline)),
            sandbox(app),
        )
        if as_json:
            app.ui.json({"ok": can_run(findings), "findings": [asdict(f) for f in findings]})
        else:
            width = max(len(f.what) for f in findings)
            for finding in findings:
                app.ui.data(f"{MARKS[finding.status].ljust(8)}{finding.what.ljust(width)}  {finding.found}")
                if finding.fix:
                    app.ui.data(f"{' ' * (10 + width)}{finding.why}")
                    app.ui.data(f"{' ' * (10 + width)}fix: {finding.fix}")
        if not can_run(findings):
            missing = ", ".join(f.what for f in findings if f.status == "missing")
            raise HostError(f"cannot run the main job on this machine: {missing} missing", hint="see the fixes above")


def sandbox(app: App) -> Finding:
    """The strongest wall for code that holds its attacks on this machine, or why there is none."""
    from nemotron_ops.builds.doctor.diagnosis import Finding, Status
    from nemotron_ops.sandbox import choose
    from nemotron_ops.sandbox.open import Room

    why = "walls in code that a model writes; without one, no code is run"
    tried = Room(layout=app.layout, env=app.env).tried()
    last = tried[-1]
    if last.works and last.verdict:
        found = f"{last.candidate.backend}: {last.verdict.held} of {last.verdict.of} attacks held"
        return Finding(what="sandbox", status=Status.OK, found=found, why=why)
    text, fix = choose.refusal(tuple(replace(t.candidate, reason=t.reason) for t in tried))
    return Finding(what="sandbox", status=Status.WARNING, found=text, why=why, fix=fix or "see docs/how-to/run-code.md")
