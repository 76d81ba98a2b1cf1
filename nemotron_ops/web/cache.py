"""Answers and pages on disk for a while, one folder per API key, within bounds. Disk.

A cache may be lost at any time: a file that cannot be read counts as absent, one that cannot be written is left out.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemotron_ops.files import write_json

MOST_BYTES = 64 << 20


class Cache:
    """JSON values by name, each with the time at which it was kept."""

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._clock = clock

    def get(self, key: str, name: str) -> tuple[Any, float] | None:
        """The value kept under `name` for API key `key`, and its age in seconds."""
        try:
            kept = json.loads(self._path(key, name).read_bytes())
            return kept["value"], max(0.0, self._clock() - float(kept["at"]))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def put(self, key: str, name: str, value: Any) -> None:
        """Keep `value`, and remove the oldest files while all of them are larger than the bound."""
        path = self._path(key, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_json(path, {"at": self._clock(), "value": value}, mode=0o600)
            self._trim()
        except OSError:
            return

    def _path(self, key: str, name: str) -> Path:
        whose, what = (hashlib.sha256(t.encode("utf-8", "surrogatepass")).hexdigest()[:32] for t in (key, name))
        return self._folder / whose / f"{what}.json"

    def _trim(self) -> None:
        stats = [(path, path.stat()) for path in self._folder.glob("*/*.json")]
        kept = sorted((stat.st_mtime, stat.st_size, path) for path, stat in stats)
        size = sum(s for _, s, _ in kept)
        for _, bytes_of, path in kept:
            if size <= self._most_bytes:
                return
            path.unlink(missing_ok=True)
            size -= bytes_of
