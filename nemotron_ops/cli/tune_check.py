"""`tune check`: what is wrong with training data, before anything is trained. Prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotron_ops.cli.app import App, json_option, progress_option

if TYPE_CHECKING:
    from nemotron_ops.tune.data_check import Checked

FOUND_ERRORS = 1  # exit code where a finding stops training


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option(
    "--test",
    "tests",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Held-out data: no question of it may be trained on. Repeatable.",
)
@click.option(
    "--max-length", default=0, type=click.IntRange(min=0), metavar="TOKENS", help="Longest row, with its answer."
)
@progress_option
@json_option
def check(files: tuple[Path, ...], tests: tuple[Path, ...], max_length: int, as_json: bool) -> int:
    """Check training data: shapes, answers, reasoning share, duplicates, test questions, secrets.

    Reads messages, ShareGPT, Alpaca, prompt and completion, and Gym rows, as JSON lines, JSON, CSV or parquet. Ends
    with 1 where a finding would stop training. Token counts are estimates, by the letters of English text.
    """
    with App() as app:
        from nemotron_ops.tune.data_check import Rules
        from nemotron_ops.tune.data_check import check as check_data

        checked = check_data(files, Rules(max_length=max_length, tests=tests), app.ui.report)
        if as_json:
            app.ui.json(value_of(checked))
        else:
            _show(app, checked)
        return FOUND_ERRORS if checked.errors else 0


def value_of(checked: Checked) -> dict[str, Any]:
    """What was found, for `--json`."""
    from nemotron_ops.tune.findings import KINDS

    findings = [{**asdict(f), "level": KINDS[f.name].level} for f in checked.findings.values()]
    counts = asdict(checked) | {"shapes": dict(checked.shapes), "reasoning_share": round(checked.reasoning_share, 4)}
    return counts | {"findings": findings, "errors": checked.errors, "tokens_are_estimates": True}


def _show(app: App, checked: Checked) -> None:
    from nemotron_ops.tune.findings import KINDS

    shapes = ", ".join(f"{count} {shape}" for shape, count in checked.shapes.most_common()) or "none"
    app.ui.data(f"{checked.rows} rows: {shapes}")
    app.ui.data(f"{checked.answers} answers to learn, {checked.reasoning_share:.0%} of them reason first")
    learnt = f"{checked.answer_tokens} of them answers"
    app.ui.data(f"about {checked.tokens} tokens, {learnt}; the longest row has about {checked.longest}")
    rows = []
    for found in sorted(checked.findings.values(), key=lambda f: (KINDS[f.name].level, -f.count)):
        kind = KINDS[found.name]
        where = ", ".join(map(str, found.rows)) + (" …" if found.count > len(found.rows) > 0 else "")
        rows.append((kind.level, found.name, found.file, where, found.said or kind.means, kind.remedy))
    if rows:
        app.ui.table(("level", "finding", "file", "rows", "what", "do"), rows)
    verdict = f"{checked.errors} findings stop training" if checked.errors else "nothing stops training"
    app.ui.say(verdict)
