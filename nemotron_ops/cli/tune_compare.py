"""`tune compare`, `tune export`: base and tune side by side, and the adapter as a file. Prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from nemotron_ops.cli.app import App, json_option, progress_option


@click.command()
@click.argument("job")
@click.option("--prompt", "prompts", multiple=True, help="A question; default: some of the job's data. Repeatable.")
@json_option
def compare(job: str, prompts: tuple[str, ...], as_json: bool) -> None:
    """Show the answers of base and tune side by side, in llama-server, the likeliest token at each step."""
    with App() as app:
        from nemotron_ops.operations.tune_compare import compare as both

        pairs = both(job, prompts, app.installation)
        app.ui.end_bars()
        if as_json:
            app.ui.json([asdict(pair) for pair in pairs])
            return
        rows = [[p.prompt, p.base.content, p.tune.content] for p in pairs]
        app.ui.table(("question", "base", job), rows)


@click.command()
@click.argument("job")
@click.option("--to", type=click.Path(path_type=Path, dir_okay=False), help="File to write; default: JOB.gguf here.")
@click.option(
    "--merge", "quant", default="", metavar="QUANT", help="Write base and adapter as one GGUF: Q4_K_M, Q8_0 …"
)
@progress_option
@json_option
def export(job: str, to: Path | None, quant: str, as_json: bool) -> None:
    """Write a job's adapter as GGUF, with its card beside it, for other machines and programs.

    With --merge, base and adapter as one model, by llama-export-lora (compiled once, when first wanted) and
    llama-quantize. It is written only where the merged model still gives the answers that were learnt.
    """
    with App() as app:
        target = to or Path(f"{job}-{quant.upper()}.gguf" if quant else f"{job}.gguf")
        if quant:
            from nemotron_ops.operations.tune_merge import merge

            card = merge(job, quant, target, app.installation)
        else:
            from nemotron_ops.operations.tune_compare import export as write

            card = write(job, target, app.installation)
        app.ui.end_bars()
        app.ui.json({"file": str(target), **card}) if as_json else app.ui.say(f"wrote {target}")
