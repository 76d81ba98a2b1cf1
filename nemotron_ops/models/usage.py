"""Which models are in use by a process. Processes."""

from __future__ import annotations

from collections.abc import Iterable

from nemotron_ops.models.store import StoredModel


def in_use(models: Iterable[StoredModel]) -> set[str]:
    """Ids of models whose files are on the command line of any running process."""
    import psutil

    words: set[str] = set()
    for process in psutil.process_iter(["cmdline"]):
        words.update(process.info["cmdline"] or ())
    return {m.id for m in models if any(f.path in words for f in m.files)}
