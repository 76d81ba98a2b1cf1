"""`bench …`: how fast an endpoint is, kept and compared. Prints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.cli.bench_view import show_alarm, show_changes, show_run, write_pictures
from nemotron_ops.cli.options import option, options_of
from nemotron_ops.cli.remote import SSH_FILE, SSH_FLAGS, SSH_HELP
from nemotron_ops.errors import HostError, UsageError

if TYPE_CHECKING:
    from nemotron_ops.measure.bench import Asked
    from nemotron_ops.measure.load import Load
    from nemotron_ops.measure.runs import Run

SLOWER = 1  # exit code of a comparison that found something slower


class BenchGroup(click.Group):
    """`bench tiny` is `bench run tiny`: the first word is a recipe unless it is one of the verbs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "-h")):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=BenchGroup)
def bench() -> None:
    """Measure how fast an endpoint is; keep and compare the numbers.

    `bench RECIPE...` is short for `bench run RECIPE...`.
    """


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What `bench run` was asked for, besides the recipes."""

    url: str = option("Base URL of an endpoint, ending in /v1.")
    remote: str = option("Measure the endpoint of another machine, through ssh.", "--target", metavar="TARGET")
    remote_port: int = option("Port of its endpoint.", default=8001, type=click.IntRange(1, 65535), show_default=True)
    ssh_config: Path | None = option(SSH_HELP, *SSH_FLAGS, type=SSH_FILE)
    model: str = option("Model at --url, at --target or at the running supervisor.")
    api_key_file: Path | None = option("File with the key to send.", type=click.Path(path_type=Path, dir_okay=False))
    builds: tuple[str, ...] = option("Build to serve the recipe with; repeat it to compare builds.", "--build")
    concurrency: str = option("Closed loop: requests at once; a list is one load each.", default="1", metavar="N,…")
    rate: str = option("Open loop: requests per second; a list is one load each.", metavar="R,…")
    prompt: str = option("Tokens of a prompt; a list is one load each.", default="256", metavar="N,…")
    answer: int = option("Tokens of an answer.", default=64, type=click.IntRange(2))
    prefix: int = option("Tokens at the start that all prompts share.", default=0, type=click.IntRange(0))
    thinking: bool | None = option("Reasoning on or off [default: the model's].", "--thinking/--no-thinking")
    warm: bool = option("Repeat prompts that were sent before: what the prompt cache is worth.")
    requests: int = option("Requests of each load in each repeat.", default=16, type=click.IntRange(1))
    repeat: int = option("Repeats of each load.", default=5, type=click.IntRange(1))
    limit: str = option("What counts as goodput: ttft=500ms,tpot=50ms; also itl, latency.")
    llama_bench: bool = option("Also llama.cpp's own llama-bench with RECIPE's flags, before the load.")
    seed: int = option("Seed of prompts and arrivals.", default=1)

    @property
    def loads(self) -> tuple[Load, ...]:
        """Every combination of the lists. Raises UsageError."""
        from nemotron_ops.measure.load import Load

        rates = numbers(self.rate, "--rate", float) if self.rate else [0.0]
        at_once = [1] if self.rate else numbers(self.concurrency, "--concurrency", int)
        return tuple(
            Load(
                requests=self.requests, concurrency=int(n), rate_per_s=rate, prompt_tokens=int(length),
                answer_tokens=self.answer, prefix_tokens=self.prefix, thinking=self.thinking, warm=self.warm,
                seed=self.seed,
            )
            for length in numbers(self.prompt, "--prompt", int)
            for rate in rates
            for n in at_once
        )  # fmt: skip

    def asked(self, recipes: tuple[str, ...], env: Mapping[str, str]) -> Asked:
        from nemotron_ops.measure.bench import Asked
        from nemotron_ops.measure.summary import read_limit

        return Asked(
            recipes=recipes, builds=self.builds, url=self.url.rstrip("/"), at=self.remote,
            ssh_config=self.ssh_config, model=self.model,
            api_key=key_of(self.api_key_file, env), loads=self.loads, repeats=self.repeat,
            limit=read_limit(self.limit), llama_bench=self.llama_bench,
        )  # fmt: skip


@bench.command()
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
@options_of(BenchOptions)
@dry_run_option
@json_option
def run(recipes: tuple[str, ...], wanted: BenchOptions, dry_run: bool, as_json: bool) -> int:
    """Put load on an endpoint: one started for RECIPE, one at --url, or the running one.

    Time to the first token, time between tokens, tokens per second, as a client sees them. Several recipes or builds
    are measured in turns, repeat by repeat. The endpoint that is started for RECIPE is separate from a running one.
    Says what is slower than the kept baseline beyond the noise; ends with 1 if that was set by `bench baseline`.
    """
    with App() as app:
        asked = wanted.asked(recipes, app.env)
        if asked.at and (asked.url or recipes):
            raise UsageError("cannot measure recipes or --url at --target: name the model with --model")
        if dry_run:
            _show_plan(app, asked, as_json=as_json)
            return 0
        from nemotron_ops.measure.baseline import held

        found = _measured(app, asked, wanted.remote_port)
        against = [held(app.layout, one, beside=found) for one in found]
        if as_json:
            values = [
                value_of(r) | {"baseline": h.as_json() if h else None} for r, h in zip(found, against, strict=True)
            ]
            app.ui.json(values)
        else:
            for one in found:
                show_run(app, one)
            app.ui.say(f"kept as {', '.join(r.id for r in found)}; see `nemotron-ops bench list`")
            if len(found) > 1:
                show_changes(app, found[0], found[1])
        for one, its in zip(found, against, strict=True):
            show_alarm(app, one, its)
        return SLOWER if any(h.is_set and h.slower for h in against if h) else 0


@bench.command("list")
@json_option
def list_runs(as_json: bool) -> None:
    """List the runs that were kept, oldest first."""
    with App() as app:
        from nemotron_ops.measure import runs

        found = runs.read(app.layout)
        if as_json:
            app.ui.json([{"id": r.id, "at_s": r.at_s, "label": r.label, "loads": list(r.repeats)} for r in found])
            return
        rows = [
            (
                r.id, time.strftime("%Y-%m-%d %H:%M", time.localtime(r.at_s)), r.label,
                r.made_by.get("build", {}).get("id", ""), len(r.results),
            )
            for r in found
        ]  # fmt: skip
        app.ui.table(("run", "at", "what", "build", "loads"), rows)
        if not found:
            app.ui.say("no runs yet; make one with: nemotron-ops bench tiny")


@bench.command()
@click.argument("name", metavar="RUN", default="last")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show the numbers of a run, and what made them. `last` is the newest run, `last~1` the one before."""
    with App() as app:
        from nemotron_ops.measure import runs

        found = runs.find(app.layout, name)
        app.ui.json(value_of(found)) if as_json else show_run(app, found)


@bench.command("baseline")
@click.argument("name", metavar="[RUN]", required=False)
@click.option("--off", is_flag=True, help="RUN is no longer the baseline.")
@json_option
def baseline_of(name: str | None, off: bool, as_json: bool) -> None:
    """Make RUN what later runs of the same model on this machine are held against; without RUN, list these runs.

    `bench` and `upgrade --canary bench` then say what is slower beyond the noise.
    """
    with App() as app:
        from nemotron_ops.measure import baseline, runs

        if name:
            run = runs.find(app.layout, name)
            baseline.forget(app.layout, run) if off else baseline.set_baseline(app.layout, run)
        found = baseline.set_runs(app.layout)
        if as_json:
            app.ui.json([{"id": r.id, "at_s": r.at_s, "label": r.label} for r in found])
            return
        app.ui.table(("baseline", "what"), [(r.id, r.label) for r in found])


@bench.command()
@click.argument("before", metavar="BEFORE")
@click.argument("after", metavar="AFTER", default="last")
@json_option
def compare(before: str, after: str, as_json: bool) -> int:
    """Compare two runs by a rank test over their repeats. Ends with 1 if AFTER is slower beyond the noise."""
    with App() as app:
        from nemotron_ops.measure import compare as comparing
        from nemotron_ops.measure import runs

        a, b = runs.find(app.layout, before), runs.find(app.layout, after)
        changes = comparing.compare(a.repeats, b.repeats)
        if not changes:
            raise UsageError(f"cannot compare {a.id} and {b.id}: they have no load in common")
        if as_json:
            app.ui.json({"before": a.id, "after": b.id, "changes": [asdict(c) for c in changes]})
        else:
            show_changes(app, a, b)
        return SLOWER if comparing.slower(changes) else 0


@bench.command()
@click.argument("names", metavar="[RUN]...", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the pictures.")
@click.option("--format", "kinds", type=click.Choice(["png", "svg"]), multiple=True, help="[default: png and svg]")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="One page with tables and pictures.")
@json_option
def plot(names: tuple[str, ...], out: Path | None, kinds: tuple[str, ...], html: Path | None, as_json: bool) -> None:
    """Draw runs: latency and throughput against load, speed against context, builds over time.

    Draws the charts for which the runs have two points or more: several values of --concurrency, --rate or --prompt,
    or several runs of the same. RUN is the newest one if none is named. Needs the extra [plots].
    """
    with App() as app:
        from nemotron_ops.measure import runs

        found = [runs.find(app.layout, name) for name in names or ("last",)]
        folder = out or (None if html else Path())
        written = write_pictures(found, runs.read(app.layout), folder, kinds or ("png", "svg"), html)
        if not written:
            raise UsageError(
                "cannot draw: no chart has two points",
                hint="measure several loads: nemotron-ops bench tiny --concurrency 1,2,4",
            )
        if as_json:
            app.ui.json([str(p) for p in written])
        for path in () if as_json else written:
            app.ui.data(str(path))


def numbers(text: str, flag: str, kind: type[int] | type[float]) -> list[float]:
    """The positive numbers of a list such as `1,2,4`. Raises UsageError."""
    try:
        found: list[float] = [kind(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or any(not 0 < n < 1e9 for n in found):
        raise UsageError(f"cannot read {flag} {text!r}: positive numbers are needed", hint=f"for example {flag} 1,2,4")
    return found


def key_of(file: Path | None, env: Mapping[str, str]) -> str:
    """The key to show: from the file, or from NEMOTRON_OPS_API_KEY."""
    if file is None:
        return env.get("NEMOTRON_OPS_API_KEY", "")
    try:
        return file.read_text().strip()
    except OSError as exc:
        raise HostError(f"cannot read {file}: {exc.strerror or exc}") from exc


def value_of(found: Run) -> dict[str, Any]:
    """A run for `--json`."""
    results = [vars(r) for r in found.results]
    return {"id": found.id, "label": found.label, "made_by": dict(found.made_by), "results": results}


def _measured(app: App, asked: Asked, remote_port: int) -> tuple[Run, ...]:
    from nemotron_ops.cli.tunnel import through
    from nemotron_ops.measure.bench import bench as measure

    if not asked.at:
        return measure(asked, app.installation)
    with through(app, asked.at, config=asked.ssh_config, remote_port=remote_port) as url:
        return measure(replace(asked, url=url), app.installation)


def _show_plan(app: App, asked: Asked, *, as_json: bool) -> None:
    what = asked.recipes or (asked.at or asked.url or "the running endpoint",)
    if as_json:
        app.ui.json({"what": what, "loads": [x.as_json() for x in asked.loads], "repeats": asked.repeats})
        return
    total = len(asked.loads) * asked.repeats * asked.loads[0].requests * max(1, len(what)) * max(1, len(asked.builds))
    app.ui.data(f"measure {', '.join(what)}: {total} requests")
    for load in asked.loads:
        app.ui.data(f"  {load.name}: {load.requests} requests, {asked.repeats} times")
