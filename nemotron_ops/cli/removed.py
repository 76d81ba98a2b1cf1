"""How commands tell of removed builds: a line on the terminal, and the value for `--json`. Terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nemotron_ops.cli.app import App

if TYPE_CHECKING:
    from nemotron_ops.builds.store.pruning import Removed


def prune_old(app: App, *, keep: int | None = None) -> Removed:
    """Remove builds that the retention rule no longer keeps, and say so in one line."""
    from nemotron_ops.operations import retention

    removed = retention.prune_old(app.layout, keep=keep)
    if removed.builds:
        app.ui.say(f"removed old builds {', '.join(removed.builds)}: {freed(removed)} freed")
    return removed


def freed(removed: Removed) -> str:
    """The disk space that was freed, for people."""
    from nemotron_ops.ui import size

    return size(removed.freed_bytes)


def removed_json(removed: Removed) -> dict[str, Any]:
    """What was removed, for `--json`."""
    return {
        "removed": list(removed.builds),
        "leftovers": list(removed.leftovers),
        "freed_bytes": removed.freed_bytes,
    }
