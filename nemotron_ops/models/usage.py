"""Which models some process is using right now. Processes."""

from __future__ import annotations

from collections.abc import Iterable

from nemotron_ops.models.store import StoredModel


def in_use(models: Iterable[StoredModel]) -> set[str]:
    """Ids of models whose files are named on a running process's command line, whoever started it."""
    import psutil

    words: set[str] = set()
    for process in psutil.process_iter(["cmdline"]):
        words.update(process.info["cmdline"] or ())
    return {m.id for m in models if any(f.path in words for f in m.files)}
