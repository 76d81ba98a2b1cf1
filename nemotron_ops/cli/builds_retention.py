"""Which builds are needed on this machine, and old ones removed by the rule of settings.toml. Prints, processes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from nemotron_ops.cli.app import App
from nemotron_ops.errors import ControlError

if TYPE_CHECKING:
    from nemotron_ops.builds.store.pruning import Removed
    from nemotron_ops.builds.store.retention import Needs
    from nemotron_ops.builds.store.store import Build


def prune_old(app: App, *, keep: int | None = None) -> Removed:
    """Remove builds that the retention rule gives up, and say so in one line. `keep` overrides settings.toml."""
    from nemotron_ops.builds.store import pruning

    removed = pruning.prune(app.layout, old_builds(app, keep=keep))
    if removed.builds:
        app.ui.say(f"removed old builds {', '.join(removed.builds)}: {told_size(removed)} freed")
    return removed


def old_builds(app: App, *, keep: int | None = None) -> tuple[Build, ...]:
    """Builds that the retention rule gives up."""
    from nemotron_ops.builds.store import store
    from nemotron_ops.builds.store.retention import prunable
    from nemotron_ops.recipes.load import load_settings

    found = store.listed(app.layout)
    kept = load_settings(app.layout).keep_builds if keep is None else keep
    return prunable(found, needs(app, [b.id for b in found]), keep=kept)


def needs(app: App, ids: list[str]) -> Needs:
    """What needs which of the builds `ids`."""
    from nemotron_ops.builds.store import pruning, store
    from nemotron_ops.builds.store.retention import Needs

    now, before = store.current(app.layout), store.previous(app.layout)
    return Needs(
        current=now.id if now else "",
        previous=before.id if before else "",
        pinned=pruning.pinned(app.layout),
        in_use=frozenset([*running(app, ids), *supervised(app)]),
    )


def running(app: App, ids: list[str]) -> list[str]:
    """Builds out of which some process runs, by its program or, where another user's is hidden, its command line.

    The kernel names programs by their real paths, whatever links lead to the builds.
    """
    import psutil

    folders = {i: app.layout.builds / i for i in ids}
    places = {i: (f"{folder}/", f"{folder.resolve()}/") for i, folder in folders.items()}
    programs = [
        word
        for p in psutil.process_iter(["exe", "cmdline"])
        for word in (p.info["exe"] or "", *(p.info["cmdline"] or [])[:1])
    ]
    return [i for i in ids if any(word.startswith(places[i]) for word in programs)]


def supervised(app: App) -> list[str]:
    """Builds that a supervisor starts instances from, those that are down at the moment too."""
    from nemotron_ops.files import read_json
    from nemotron_ops.supervisor.control import client

    records = [read_json(p) for p in sorted((app.layout.state / "instances").glob("*.json"))]
    found = [r["spec"]["build"] for r in records if isinstance(r, dict) and r.get("spec")]
    with suppress(ControlError):  # none runs, or it cannot answer: its records and processes were counted
        found += [i["build"] for i in client.request(app.layout, "status")["instances"]]
    return found


def told_size(removed: Removed) -> str:
    from nemotron_ops.ui import size

    return size(removed.freed_bytes)


def removed_json(removed: Removed) -> dict[str, Any]:
    return {
        "removed": list(removed.builds),
        "leftovers": list(removed.leftovers),
        "freed_bytes": removed.freed_bytes,
    }
