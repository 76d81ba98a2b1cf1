"""`tune MODEL --data FILE`: trains a LoRA, proves and publishes it; `tune resume`. Prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option, progress_option
from nemotron_ops.errors import UsageError

if TYPE_CHECKING:
    from nemotron_ops.installation import Installation
    from nemotron_ops.tune.jobs import Asked, Job

DETACH_HELP = "Go on in the background; `tune show JOB --follow` watches."
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--data", multiple=True, required=True, type=FILE, help="Rows to learn from. Repeatable.")
@click.option("--test", "tests", multiple=True, type=FILE, help="Held-out rows: the proof is made with them.")
@click.option("--name", default="", help="Name of job and adapter; default: the first file's.")
@click.option("--checkpoint", default="", type=click.Path(file_okay=False), help="Folder of the 16-bit checkpoint.")
@click.option("--experts", is_flag=True, help="Train the routed experts too.")
@click.option("--steps", default=0, type=click.IntRange(0), help="Updates; default: the recipe's, or three passes.")
@click.option("--rank", default=0, type=click.IntRange(0, 1024), help="Rank of the adapter; default: the recipe's.")
@click.option("--rate", default=0.0, type=click.FloatRange(0, 1), help="Learning rate; default: the recipe's.")
@click.option("--max-length", default=0, type=click.IntRange(0), metavar="TOKENS", help="Longest sample.")
@click.option("--seed", default=0, type=click.IntRange(0), help="Of the order of samples and the first weights.")
@click.option(
    "--while-busy",
    default=None,
    type=click.Choice(["wait", "hold", "stop"]),
    help="While models are served: wait for room, hold their requests, or stop them. They are always put back.",
)
@click.option("--detach", is_flag=True, help=DETACH_HELP)
@dry_run_option
@progress_option
@json_option
def train(
    model: str, data: tuple[Path, ...], name: str, dry_run: bool, detach: bool, as_json: bool, **more: Any
) -> None:
    """Train a LoRA on your data, prove it in llama-server, and publish it as MODEL:NAME.

    Checks the data, makes the training environment on the first run (torch, transformers, peft), trains, writes the
    adapter as GGUF, and compares it with its base in the engine. Ctrl-C saves, and leaves a job that
    `tune resume` continues; where this command is killed, the trainer goes on, and `tune resume` adopts it.
    """
    with App() as app:
        from nemotron_ops.operations import tuning
        from nemotron_ops.recipes.load import slug
        from nemotron_ops.tune.jobs import Asked

        tests = tuple(str(p.absolute()) for p in more.pop("tests"))
        checkpoint, busy = more.pop("checkpoint"), more.pop("while_busy") or ""
        asked = Asked(
            target=model, data=tuple(str(p.absolute()) for p in data), tests=tests,
            checkpoint=str(Path(checkpoint).absolute()) if checkpoint else "", while_busy=busy,
            **more,
        )  # fmt: skip
        name = name or slug(data[0].name.split(".")[0]).replace(".", "-")
        here = app.installation
        checked = tuning.checked_data(asked, here)
        if checked.errors:
            raise UsageError(
                f"cannot train on this data: {checked.errors} findings",
                hint=f"nemotron-ops tune check {' '.join(map(str, data))}",
            )
        if dry_run:
            _dry_run(app, asked, here, as_json=as_json)
            return
        tuning.new_job(name, asked, here)
        if detach:
            _detach(app, name, as_json=as_json)
        else:
            _finish(app, tuning.run(name, here), as_json=as_json)


@click.command()
@click.argument("job")
@click.option("--detach", is_flag=True, help=DETACH_HELP)
@progress_option
@json_option
def resume(job: str, detach: bool, as_json: bool) -> None:
    """Go on with a job that was paused, killed or failed, from its newest whole checkpoint.

    A trainer that has outlived the command that started it is watched to its end; its adapter is proven and published.
    """
    with App() as app:
        from nemotron_ops.operations import tuning

        if detach:
            _detach(app, job, as_json=as_json)
            return
        _finish(app, tuning.run(job, app.installation), as_json=as_json)


def _detach(app: App, name: str, *, as_json: bool) -> None:
    from nemotron_ops.operations.tune_detach import go_on_detached

    found = go_on_detached(name, app.installation)
    app.ui.end_bars()
    if as_json:
        app.ui.json({"job": name, "pid": found.pid, "log": str(found.log)})
        return
    app.ui.say(f"{name} goes on in the background (pid {found.pid}); its log: {found.log}")
    app.ui.say(f"next: nemotron-ops tune show {name} --follow")


def _finish(app: App, job: Job, *, as_json: bool) -> None:
    app.ui.end_bars()
    if as_json:
        app.ui.json(asdict(job))
    elif job.state == "done":
        proof = job.about["proof"]
        app.ui.say(
            f"{job.recipe}:{job.name} is published: {job.about['trained_parameters']:,} of {job.about['parameters']:,} "
            f"parameters trained; log-probability of a right token {proof['base_logprob']} -> {proof['tune_logprob']}"
            + ("" if proof["held_out"] else " (on the data itself: pass --test for held-out rows)")
        )
        app.ui.say(f"next: nemotron-ops serve {job.recipe} --adapter {job.name}")
    else:
        app.ui.say(f"{job.name} is {job.state}; go on with: nemotron-ops tune resume {job.name}")


def _dry_run(app: App, asked: Asked, here: Installation, *, as_json: bool) -> None:
    """Samples, memory, and the first sample with what of it is learnt."""
    from nemotron_ops.operations import tuning
    from nemotron_ops.operations.tokens import tokenized
    from nemotron_ops.tune.jobs import Job

    base = tuning.base_of(asked, here)
    samples = tokenized(tuning.samples_in(asked.data), base.files.path, base.binary, here.layout.cache / "tune")
    plan, about = tuning.plan_of(Job(name="", recipe=base.plan.name, asked=asked), base, samples)
    first = samples[0].text
    app.ui.end_bars()
    if as_json:
        app.ui.json({**about, "plan": plan, "first": {"prompt": first.prompt, "learnt": first.completion}})
        return
    for key, value in about.items():
        app.ui.data(f"{key:20} {value:,}" if isinstance(value, int) else f"{key:20} {value}")
    app.ui.data(f"\nthe first sample, its prompt:\n{first.prompt}\n\nand what is learnt:\n{first.completion}")
