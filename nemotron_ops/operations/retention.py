"""Finds the builds that are needed here, and removes old ones by the rule of settings.toml. Processes, disk."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from nemotron_ops.errors import ControlError
from nemotron_ops.paths import Layout

if TYPE_CHECKING:
    from nemotron_ops.builds.store.pruning import Removed
    from nemotron_ops.builds.store.retention import Needs
    from nemotron_ops.builds.store.store import Build


def prune_old(layout: Layout, *, keep: int | None = None) -> Removed:
    """Remove builds that the retention rule no longer keeps. `keep` overrides settings.toml."""
    from nemotron_ops.builds.store import pruning

    return pruning.prune(layout, old_builds(layout, keep=keep))


def old_builds(layout: Layout, *, keep: int | None = None) -> tuple[Build, ...]:
    """Builds that the retention rule no longer keeps."""
    from nemotron_ops.builds.store import store
    from nemotron_ops.builds.store.retention import prunable
    from nemotron_ops.recipes.load import load_settings

    found = store.listed(layout)
    kept = load_settings(layout).keep_builds if keep is None else keep
    return prunable(found, needs(layout, [b.id for b in found]), keep=kept)


def needs(layout: Layout, ids: list[str]) -> Needs:
    """The reasons for which builds among `ids` stay."""
    from nemotron_ops.builds.store import pruning, store
    from nemotron_ops.builds.store.retention import Needs

    now, before = store.current(layout), store.previous(layout)
    return Needs(
        current=now.id if now else "",
        previous=before.id if before else "",
        pinned=pruning.pinned(layout),
        in_use=frozenset([*running(layout, ids), *supervised(layout)]),
    )


def running(layout: Layout, ids: list[str]) -> list[str]:
    """Builds of which a program runs, by its executable or, where another user's is hidden, its command line.

    The kernel names programs by their real paths, so links to the builds are resolved.
    """
    import psutil

    folders = {i: layout.builds / i for i in ids}
    places = {i: (f"{folder}/", f"{folder.resolve()}/") for i, folder in folders.items()}
    programs = [
        word
        for p in psutil.process_iter(["exe", "cmdline"])
        for word in (p.info["exe"] or "", *(p.info["cmdline"] or [])[:1])
    ]
    return [i for i in ids if any(word.startswith(places[i]) for word in programs)]


def supervised(layout: Layout) -> list[str]:
    """Builds of a supervisor's instances, those that are down at the moment included."""
    from nemotron_ops.files import read_json
    from nemotron_ops.supervisor.control import client

    records = [read_json(p) for p in sorted((layout.state / "instances").glob("*.json"))]
    found = [r["spec"]["build"] for r in records if isinstance(r, dict) and r.get("spec")]
    with suppress(ControlError):  # without a supervisor that answers, records and processes are enough
        found += [i["build"] for i in client.request(layout, "status")["instances"]]
    return found
