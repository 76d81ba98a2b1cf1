"""`eval`: how good a model answers, and whether another may take its place. Prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.cli.bench import key_of
from nemotron_ops.cli.options import option, options_of
from nemotron_ops.errors import UsageError

if TYPE_CHECKING:
    from nemotron_ops.measure.quality.evaluate import Evaluated
    from nemotron_ops.measure.quality.run import Outcome

WORSE = 1  # exit code where the recipe is worse than its reference


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """What `eval` was asked for, besides the recipe."""

    against: str = option("Reference: a recipe, or a build to serve the same recipe with.", metavar="RECIPE|BUILD")
    tasks: str = option("arithmetic, tool-use, instructions, needles [default: all].", metavar="TASK,…")
    items: int = option("Items of each task.", default=200, type=click.IntRange(1, 100_000))
    seed: int = option("Seed of the items.", default=1)
    context: int = option("Tokens of the texts of needles.", default=2000, type=click.IntRange(200))
    thinking: bool | None = option("Reasoning on or off [default: the model's].", "--thinking/--no-thinking")
    max_tokens: int = option("Most tokens of an answer, reasoning included.", default=2048, type=click.IntRange(1))
    concurrency: int = option("Requests at once.", default=4, type=click.IntRange(1, 256))
    margin: float = option("Loss of right answers, in percent, that is no loss.", default=3.0, type=click.FloatRange(0))
    perplexity: bool = option("Also perplexity, and KL divergence from the reference, by llama-perplexity.")
    text: Path | None = option("Text for --perplexity.", type=click.Path(path_type=Path, exists=True, dir_okay=False))
    chunks: int = option("Pieces of 512 tokens of the text.", default=8, type=click.IntRange(1))
    lm_eval: str = option("Also these tasks of lm-eval, in an environment of its own.", "--lm-eval", metavar="TASK,…")
    lm_eval_tasks: Path | None = option(
        "Folder with further tasks for lm-eval.", type=click.Path(path_type=Path, exists=True, file_okay=False)
    )
    url: str = option("Base URL of an endpoint, ending in /v1.")
    model: str = option("Model at --url or at the running supervisor.")
    api_key_file: Path | None = option("File with the key to send.", type=click.Path(path_type=Path, dir_okay=False))
    out: Path | None = option("Folder for a chart.", type=click.Path(path_type=Path, file_okay=False))
    html: Path | None = option("One page with tables and chart.", type=click.Path(path_type=Path, dir_okay=False))


@click.command("eval")
@click.argument("recipe", metavar="[RECIPE]", default="")
@options_of(EvalOptions)
@dry_run_option
@json_option
def evaluate(recipe: str, wanted: EvalOptions, dry_run: bool, as_json: bool) -> int:
    """Measure how good a model answers: arithmetic, tool calls, instructions, facts in long texts.

    The tasks are made by seed, so they need no network and are in no training data. With --against, both models answer
    the same items, and the command says whether RECIPE can take the other's place; ends with 1 if it is worse.
    """
    with App() as app:
        from nemotron_ops.measure.quality import run as running
        from nemotron_ops.measure.quality.evaluate import Asked
        from nemotron_ops.measure.quality.scores import Judgement
        from nemotron_ops.measure.quality.task_sets import chosen

        tasks = chosen([t.strip() for t in wanted.tasks.split(",") if t.strip()])
        asked = Asked(
            tasks=tasks, items=wanted.items, seed=wanted.seed, context_tokens=wanted.context,
            concurrency=wanted.concurrency, thinking=wanted.thinking, max_tokens=wanted.max_tokens,
        )  # fmt: skip
        words = running.Wanted(
            recipe=recipe, against=wanted.against, url=wanted.url.rstrip("/"), model=wanted.model,
            api_key=key_of(wanted.api_key_file, app.env), asked=asked, margin=wanted.margin / 100,
            perplexity=wanted.perplexity, text=wanted.text, chunks=wanted.chunks,
            harness=tuple(t.strip() for t in wanted.lm_eval.split(",") if t.strip()),
            harness_include=wanted.lm_eval_tasks.absolute() if wanted.lm_eval_tasks else None,
        )  # fmt: skip
        if recipe and wanted.url:
            raise UsageError("cannot measure a recipe at --url: name the model with --model")
        if dry_run:
            models = [recipe or wanted.url or "the running endpoint", *filter(None, [wanted.against])]
            if as_json:
                app.ui.json({"models": models, "tasks": list(tasks), "items": wanted.items})
            else:
                app.ui.data(f"ask {' and '.join(models)} {wanted.items} items of each: {', '.join(tasks)}")
            return 0
        outcome = running.run(words, app.installation)
        app.ui.json(value_of(outcome)) if as_json else _show(app, outcome)
        for path in _pictures(outcome, wanted.out, wanted.html):
            app.ui.say(f"wrote {path}")
        return WORSE if any(d.judgement is Judgement.WORSE for d in outcome.differences) else 0


def value_of(outcome: Outcome) -> dict[str, Any]:
    """The outcome for `--json`."""
    from nemotron_ops.measure.quality import evaluate as evaluating

    return {
        "models": [evaluating.value_of(m) for m in outcome.models],
        "differences": [asdict(d) for d in outcome.differences],
        "perplexity": [p.as_json() for p in outcome.perplexities],
        "divergence": outcome.divergence.as_json() if outcome.divergence else None,
        "lm_eval": [[asdict(s) for s in found] for found in outcome.harness],
        "recommendation": outcome.recommendation,
        "kept": str(outcome.kept),
    }


def _show(app: App, outcome: Outcome) -> None:
    header, rows = _table(outcome.models)
    app.ui.table(header, rows)
    if outcome.differences:
        app.ui.table(("task", "difference", "95 % interval", "p", "verdict"), _differences(outcome))
    for model, text in zip(outcome.models, outcome.perplexities, strict=False):
        app.ui.data(f"perplexity of {model.label}: {text.value:.6g} ± {text.error:.3g}")
    if d := outcome.divergence:
        app.ui.data(f"KL divergence: mean {d.mean:.6f}, median {d.median:.6f}, p99 {d.p99:.6f}")
        app.ui.data(f"ratio of perplexities {d.ratio:.6g} ± {d.ratio_error:.3g}")
        app.ui.data(f"same likeliest token: {d.same_top:.2%} ± {d.same_top_error:.2%}")
    for model, found in zip(outcome.models, outcome.harness, strict=False):
        for score in found:
            error = "" if score.error is None else f" ± {score.error:.3f}"
            app.ui.data(f"lm-eval, {model.label}: {score.task} {score.metric} {score.value:.3f}{error}")
    if outcome.recommendation:
        app.ui.data(outcome.recommendation)
    app.ui.say(f"kept in {outcome.kept}")


def _table(models: tuple[Evaluated, ...]) -> tuple[tuple[str, ...], list[list[str]]]:
    rows = []
    for model in models:
        for score in model.scores:
            low, high = score.interval
            share = f"{score.share:.1%}"
            interval = f"{low:.1%} to {high:.1%}"
            rows.append([model.label, score.task, share, interval, f"{score.right}/{score.asked}", str(score.errors)])
    return ("model", "task", "right", "95 % interval", "items", "errors"), rows


def _differences(outcome: Outcome) -> list[list[str]]:
    return [
        [d.task, f"{d.difference:+.1%}", f"{d.low:+.1%} to {d.high:+.1%}", f"{d.p:.2g}", str(d.judgement)]
        for d in outcome.differences
    ]


def _pictures(outcome: Outcome, out: Path | None, html: Path | None) -> tuple[Path, ...]:
    """The chart in `out`, and the page; returns what was written."""
    if out is None and html is None:
        return ()
    from nemotron_ops.files import write_atomic
    from nemotron_ops.measure.pictures import drawing
    from nemotron_ops.measure.pictures.page import Table, page
    from nemotron_ops.measure.quality.run import chart

    drawn = chart(outcome.models)
    written = drawing.write([drawn], out, ("png", "svg")) if out else ()
    if html is None:
        return written
    header, rows = _table(outcome.models)
    tables = [Table(title="Right answers", header=header, rows=tuple(map(tuple, rows)))]
    if outcome.differences:
        header = ("task", "difference", "95 % interval", "p", "verdict")
        cells = tuple(map(tuple, _differences(outcome)))
        tables.append(Table(title="Difference", header=header, rows=cells, note=outcome.recommendation))
    title = f"Quality of {', '.join(m.label for m in outcome.models)}"
    write_atomic(html, page(title, tables, [(drawn.title, drawing.draw(drawn))]))
    return (*written, html)
