"""What `models search` shows: repositories, their quants, what fits. Prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nemotron_ops.errors import NemotronOpsError

if TYPE_CHECKING:
    from nemotron_ops.cli.app import App
    from nemotron_ops.memory.table import Row
    from nemotron_ops.models.search import Found

Fits = Mapping[str, Mapping[str, str]]  # repository -> quant -> what of it fits this machine
MOST_QUANTS = 8  # of one repository, shown to people


def fits(found: Sequence[Found], app: App) -> Fits:
    """What fits this machine, in words; a repository whose headers cannot be read has none."""
    from nemotron_ops.cli.plan import PlanOptions, resolved_model, table_of

    wanted = PlanOptions(quants=(), contexts=())
    result: dict[str, dict[str, str]] = {}
    for one in found:
        if not one.quants:
            continue
        try:
            rows = table_of(app, resolved_model(app, one.repo, wanted), wanted).rows
        except NemotronOpsError as exc:
            app.ui.warn(f"{one.repo}: {exc.message}")
            continue
        result[one.repo] = {row.quant: _word(row) for row in rows}
    return result


def _word(row: Row) -> str:
    from nemotron_ops.cli.plan_view import cell_word

    if row.unknown:
        return "unknown"
    fitting = [c for c in row.cells if c.placement]
    return f"{cell_word(fitting[-1])}, up to {row.largest_context:,} tokens" if fitting else "no"


def value(found: Sequence[Found], fits: Fits) -> list[dict[str, Any]]:
    """The result for `--json`; a quant's `fits` is there where it was asked for and is known."""
    return [
        asdict(one)
        | {
            "quants": [
                {"quant": quant, "size_bytes": size}
                | ({"fits": fits[one.repo][quant]} if quant in fits.get(one.repo, {}) else {})
                for quant, size in one.quants
            ]
        }
        for one in found
    ]


def show(found: Sequence[Found], fits: Fits, app: App) -> None:
    """One table: a line per repository, and under it one per quant."""
    from nemotron_ops.ui import size

    if not found:
        app.ui.say("nothing was found; fewer or shorter words find more")
        return
    rows: list[tuple[str, ...]] = []
    for one in found:
        state = "gated" if one.gated else ""
        rows.append((one.repo, "", "", f"{one.downloads:,}", one.changed, one.why or state))
        rows += [("", q, size(n), "", "", fits.get(one.repo, {}).get(q, "")) for q, n in one.quants[:MOST_QUANTS]]
        if more := len(one.quants) - MOST_QUANTS:
            rows += [("", f"and {more} more", "", "", "", "")] if more > 0 else []
    app.ui.table(("repository", "quant", "size", "downloads", "changed", ""), rows)
    app.ui.say(f"what fits: nemotron-ops plan {found[0].repo}")
