"""`tune list`, `show`, `pause`, `rm`: training jobs. Prints."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, json_option

if TYPE_CHECKING:
    from nemotron_ops.tune.jobs import Job

BARS = "▁▂▃▄▅▆▇█"
CURVE = 60  # letters
POLL_S = 0.5


@click.command("list")
@json_option
def list_jobs(as_json: bool) -> None:
    """Show all training jobs, the newest first."""
    with App() as app:
        from nemotron_ops.tune import jobs

        state = app.layout.state
        values = [_value(job, jobs.progress(state, job.name)) for job in jobs.jobs(state)]
        if as_json:
            app.ui.json(values)
            return
        rows = [
            [v["name"], v["recipe"], v["state"], f"{v['step']}/{v['steps'] or '?'}", v["loss"] or ""] for v in values
        ]
        app.ui.table(("job", "model", "state", "steps", "loss"), [[str(c) for c in row] for row in rows])


@click.command()
@click.argument("job")
@click.option("--follow", "-f", is_flag=True, help="Show each step until the job ends; with --json a line each.")
@json_option
def show(job: str, follow: bool, as_json: bool) -> None:
    """Show a job: its state, its loss as a curve, its memory and its proof.

    With --follow and --json: a line for each step, and the job as the last line.
    """
    with App() as app:
        from nemotron_ops.tune import jobs

        state = app.layout.state
        if follow:
            _follow(app, job, as_json=as_json)
        value = _value(jobs.read(state, job), steps := jobs.progress(state, job))
        if as_json:
            if follow:
                app.ui.data(json.dumps(value, default=str))
            else:
                app.ui.json({**value, "losses": [s["loss"] for s in steps]})
            return
        for key, one in value.items():
            if one not in ("", None, []):
                app.ui.data(f"{key:20} {one}")
        if steps:
            app.ui.data(f"{'curve':20} {curve([s['loss'] for s in steps])}")


def _follow(app: App, job: str, *, as_json: bool) -> None:
    """Show each step and each new state until nothing works on the job. Ctrl-C ends the watching alone."""
    from nemotron_ops.tune import jobs

    state, seen, last = app.layout.state, 0, ""
    while True:
        found, steps = jobs.read(state, job), jobs.progress(state, job)
        if found.state != last and not as_json:
            app.ui.say(str(found.state))
        for one in steps[seen:]:
            app.ui.data(json.dumps(one)) if as_json else app.ui.say(f"step {one['step']}  loss {one['loss']}")
        seen, last = len(steps), found.state
        if found.state in (*jobs.ENDED, jobs.State.STOPPED):
            return
        time.sleep(POLL_S)


@click.command()
@click.argument("job")
@json_option
def pause(job: str, as_json: bool) -> None:
    """Save a checkpoint and stop; `tune resume` goes on from it."""
    with App() as app:
        from nemotron_ops.tune import jobs

        jobs.pause(app.layout.state, job)
        app.ui.json({"pausing": job}) if as_json else app.ui.say(f"{job} saves and stops")


@click.command()
@click.argument("job")
@json_option
def rm(job: str, as_json: bool) -> None:
    """Delete a job with its checkpoints. An adapter that it has published stays."""
    with App() as app:
        from nemotron_ops.tune import jobs

        jobs.remove(app.layout.state, job)
        app.ui.json({"removed": job}) if as_json else app.ui.say(f"removed {job}")


def curve(losses: list[float]) -> str:
    """Losses as a line of bars, the oldest first, each bar the mean of its share of the steps."""
    width = min(CURVE, len(losses))
    parts = [losses[i * len(losses) // width : (i + 1) * len(losses) // width] for i in range(width)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    return "".join(BARS[round((m - low) / (high - low) * 7) if high > low else 0] for m in means)


def _value(job: Job, steps: list[dict[str, Any]]) -> dict[str, Any]:
    value = {k: v for k, v in asdict(job).items() if k in ("name", "recipe", "state", "reason")}
    last = steps[-1] if steps else {}
    about = {k: v for k, v in job.about.items() if k != "steps"}
    return {
        **value, "step": last.get("step", 0), "steps": job.about.get("steps", 0), "loss": last.get("loss"),
        "data": list(job.asked.data), **about,
    }  # fmt: skip
