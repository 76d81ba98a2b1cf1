"""`optimize`: finds llama-server's flags for this machine by measuring, and writes them into a user recipe. Prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, dry_run_option, json_option
from nemotron_ops.cli.bench_view import plain
from nemotron_ops.cli.options import option, options_of
from nemotron_ops.errors import UsageError

if TYPE_CHECKING:
    from nemotron_ops.measure.tuning.optimize import Outcome, Wanted


@dataclass(frozen=True, kw_only=True)
class OptimizeOptions:
    """What `optimize` was asked for, besides the recipe."""

    use: str = option(
        "chat: one person; batch: many requests at once; long: long prompts.", "--for", default="chat",
        type=click.Choice(["chat", "batch", "long"]), show_default=True,
    )  # fmt: skip
    minutes: float = option("Time for it, about.", default=30.0, type=click.FloatRange(0.1), show_default=True)
    more: tuple[str, ...] = option("Also try these values of a flag: cache_type_k=q8_0", "--try", metavar="KEY=V,…")
    most: int = option("Most candidates.", default=32, type=click.IntRange(2, 500))
    undo: bool = option("Put the recipe back as it was before `optimize`.")
    no_write: bool = option("Show what was found, and write nothing.")

    def wanted(self, recipe: str) -> Wanted:
        from nemotron_ops.measure.tuning.optimize import Wanted
        from nemotron_ops.measure.tuning.space import Use

        return Wanted(recipe=recipe, use=Use(self.use), minutes=self.minutes, more=tried(self.more), most=self.most)


@click.command()
@click.argument("recipe", metavar="RECIPE")
@options_of(OptimizeOptions)
@dry_run_option
@json_option
def optimize(recipe: str, wanted: OptimizeOptions, dry_run: bool, as_json: bool) -> None:
    """Find llama-server's flags for this machine by measuring; write them into a user recipe.

    Tries threads, batch sizes, flash attention, and with GPUs how many experts stay in host memory, inside the memory
    plan; the recipe as it is counts as the first candidate and is replaced only by what is faster beyond the noise.
    Stop what else is running first: it would be measured, too.
    """
    with App() as app:
        from nemotron_ops.measure.tuning import optimize as optimising
        from nemotron_ops.measure.tuning import written
        from nemotron_ops.measure.tuning.trial import said

        here = app.installation
        if wanted.undo:
            path = written.undo(recipe, app.layout)
            app.ui.json({"recipe": recipe, "path": str(path or "")}) if as_json else app.ui.data(
                f"{recipe} is as it was before" + (f": {path}" if path else ": the shipped recipe")
            )
            return
        words = wanted.wanted(recipe)
        if dry_run:
            ready = optimising.prepare(words, here)
            names = [said(c) for c in ready.candidates]
            app.ui.json([dict(c) for c in ready.candidates]) if as_json else app.ui.data("\n".join(names))
            return
        outcome = optimising.optimize(words, here)
        path = None if wanted.no_write else optimising.write(words, outcome, here)
        if as_json:
            app.ui.json(value_of(outcome) | {"path": str(path or "")})
            return
        _show(app, outcome)
        if path:
            app.ui.say(f"written to {path}; `nemotron-ops optimize {recipe} --undo` takes it back")


def tried(words: Sequence[str]) -> dict[str, list[Any]]:
    """The values in `KEY=V,V` words: numbers as numbers. Raises UsageError for a key that is no flag."""
    from nemotron_ops.recipes.schema import Server

    found: dict[str, list[Any]] = {}
    for word in words:
        key, _, values = word.partition("=")
        key = key.replace("-", "_")
        if key not in Server.__dataclass_fields__ or not values:
            raise UsageError(
                f"cannot try {word!r}: it is no flag with values", hint="for example --try ubatch_size=64,256"
            )
        found[key] = [_value(v) for v in values.split(",")]
    return found


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float | bool) else text


def value_of(outcome: Outcome) -> dict[str, Any]:
    """The outcome for `--json`."""
    found = outcome.found
    return {
        "chosen": dict(outcome.chosen), "gain": found.gain, "p": found.p,
        "final": [{"candidate": dict(outcome.candidates[c]), "scores": s} for c, s in found.scores.items()],
        "trials": list(outcome.log), "kept": str(outcome.kept),
    }  # fmt: skip


def _show(app: App, outcome: Outcome) -> None:
    from nemotron_ops.measure.figures import median
    from nemotron_ops.measure.tuning.trial import said

    found = outcome.found
    base = median(found.scores[0])
    rows = []
    for candidate, scores in found.scores.items():
        if scores:
            mark, gain = "*" if candidate == found.chosen else "", f"{median(scores) / base - 1:+.1%}"
            rows.append((mark, said(outcome.candidates[candidate]), plain(median(scores)), gain))
    app.ui.table(("", "finalist", "score", "gain"), rows)
    if outcome.chosen:
        app.ui.data(f"{said(outcome.chosen)}: {found.gain:+.1%}, p {found.p:.2g}")
    else:
        app.ui.data("nothing is faster than the recipe as it is, beyond the noise")
