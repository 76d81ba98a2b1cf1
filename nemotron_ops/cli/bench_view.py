"""How runs and their comparisons look: tables, pictures, a page. Prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotron_ops.cli.app import App

if TYPE_CHECKING:
    from nemotron_ops.measure.baseline import Held
    from nemotron_ops.measure.runs import Result, Run

HEADER = ("load", "TTFT p50", "p95", "p99", "ITL p50", "p95", "tokens/s each", "in all", "engine", "prompt", "errors")


def show_run(app: App, found: Run) -> None:
    """One run as a table, with what made it."""
    app.ui.data(f"{found.id}: {found.label}")
    app.ui.data(f"  {origin(found.made_by)}")
    if power := power_of(found.made_by):
        app.ui.data(f"  {power}")
    header, rows = table_of(found)
    app.ui.table(header, rows)
    for result in found.results:
        if result.summary["error"]:
            app.ui.warn(f"{result.load_name}: {result.summary['error']}")


def show_changes(app: App, a: Run, b: Run) -> None:
    """How the second run differs from the first."""
    from nemotron_ops.measure import compare as comparing

    changes = comparing.compare(a.repeats, b.repeats)
    app.ui.data(f"{a.id} → {b.id}")
    rows = [
        (c.load, c.figure, plain(c.before), plain(c.after), f"{c.ratio - 1:+.1%}", f"{c.p:.2g}", str(c.verdict))
        for c in changes
    ]
    app.ui.table(("load", "figure", "before", "after", "change", "p", "verdict"), rows)
    if any(c.verdict is comparing.Verdict.UNKNOWN for c in changes):
        needed = comparing.least_repeats(comparing.ALPHA, len({c.load for c in changes}))
        app.ui.say(f"a verdict on these loads needs {needed} repeats: --repeat {needed}")
    for part in sorted({*a.made_by, *b.made_by}):
        if a.made_by.get(part) != b.made_by.get(part):
            app.ui.say(f"differs: {part}")


def show_alarm(app: App, found: Run, held: Held | None) -> None:
    """What of a run is slower than its baseline beyond the noise."""
    if held is None:
        return
    for change in held.slower:
        app.ui.warn(
            f"{found.label} is slower than {held.baseline.id}: {change.figure} {change.ratio - 1:+.1%}"
            f" ({change.load}, p {change.p:.2g})"
        )


def write_pictures(runs: Sequence[Run], history: Sequence[Run], folder: Path | None, kinds: Sequence[str],
                   html: Path | None) -> tuple[Path, ...]:  # fmt: skip
    """The charts of `runs` as files in `folder`, and as one page; returns what was written."""
    from nemotron_ops.files import write_atomic
    from nemotron_ops.measure.pictures import drawing
    from nemotron_ops.measure.pictures.of_runs import charts_of
    from nemotron_ops.measure.pictures.page import Table, page

    charts = charts_of(runs, history)
    written = drawing.write(charts, folder, kinds) if folder else ()
    if html is None:
        return written
    tables = [
        Table(title=r.label, note=f"{r.id}: {origin(r.made_by)}", header=header, rows=tuple(map(tuple, rows)))
        for r in runs
        for header, rows in [table_of(r)]
    ]
    title = f"Speed of {', '.join(dict.fromkeys(r.label for r in runs))}"
    write_atomic(html, page(title, tables, [(c.title, drawing.draw(c)) for c in charts]))
    return (*written, html)


def origin(made_by: Mapping[str, Any]) -> str:
    """Source, build, processor and GPUs, as far as they are known."""
    machine = made_by.get("machine") or made_by.get("client") or {}
    build = made_by.get("build", {})
    parts = [build.get("source", ""), build.get("id", ""), machine.get("cpu", ""), f"{machine.get('cores', '?')} cores"]
    return ", ".join(p for p in (*parts, *(g["name"] for g in machine.get("gpus", ()))) if p)


def power_of(made_by: Mapping[str, Any]) -> str:
    """Whose power was measured, or why none was; "" for runs that were kept before it was."""
    power = made_by.get("power", {})
    if parts := power.get("measured"):
        return f"power of {', '.join(parts)}"
    return f"power not measured: {'; '.join(power['not measured'])}" if power.get("not measured") else ""


def table_of(found: Run) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and rows: one row per load."""
    goodput = any("goodput_per_s" in r.summary for r in found.results)
    power = any("watts" in r.summary for r in found.results)
    alone = any("llama_bench_tokens_per_s" in r.summary for r in found.results)
    header = (*HEADER, *(["goodput/s"] if goodput else []), *(["W", "tokens/J"] if power else []))
    header = (*header, *(["llama-bench", "its prompt"] if alone else []))
    return header, [_row(r, goodput=goodput, power=power, alone=alone) for r in found.results]


def _row(result: Result, *, goodput: bool, power: bool, alone: bool) -> list[str]:
    s = result.summary
    ttft, itl = s["ttft_s"], s["itl_s"]
    row = [result.load_name, ms(ttft["p50"]), ms(ttft["p95"]), ms(ttft["p99"]), ms(itl["p50"]), ms(itl["p95"])]
    row += [plain(s["request_tokens_per_s"]["p50"]), plain(s["tokens_per_s"])]
    row += [plain(s["engine_tokens_per_s"]), plain(s["engine_prompt_per_s"]), str(s["errors"])]
    row += [plain(s.get("goodput_per_s"))] if goodput else []
    row += [plain(s.get("watts")), plain(s.get("tokens_per_joule"))] if power else []
    row += [plain(s.get(f"llama_bench_{part}_per_s")) for part in ("tokens", "prompt")] if alone else []
    return row


def ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.3g} ms"


def plain(value: float | None) -> str:
    """Four digits, without an exponent."""
    return "-" if value is None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
