"""Events in order: a ring for people and programs, and a log of JSON lines. Disk.

Events never hold a prompt, a key or a request: only names, states, pids, causes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

KEPT = 1000
LOG_LIMIT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One event. `kind` is a fixed word ("ready", "exited"); `level` is info, warning or error."""

    serial: int
    time_s: float  # Unix time
    kind: str
    instance: str = ""
    message: str = ""
    level: str = "info"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Journal:
    """Keeps the last events, writes each to `path`, and puts each into the queues of followers."""

    def __init__(self, path: Path, on_entry: Callable[[Entry], None] | None = None) -> None:
        self._path, self._on_entry = path, on_entry
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._serial = 0
        self._followers: set[asyncio.Queue[Entry]] = set()
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, kind: str, message: str = "", *, instance: str = "", level: str = "info") -> None:
        self._serial += 1
        entry = Entry(
            serial=self._serial,
            time_s=round(time.time(), 3),
            kind=kind,
            instance=instance,
            message=message,
            level=level,
        )
        self._entries.append(entry)
        self._write(entry)
        for queue in self._followers:
            if not queue.full():
                queue.put_nowait(entry)
        if self._on_entry:
            self._on_entry(entry)

    def last(self, count: int) -> list[Entry]:
        return list(self._entries)[-count:] if count > 0 else []

    def follow(self) -> asyncio.Queue[Entry]:
        """A queue of every event from now on; a full one loses events, so that memory stays bounded."""
        queue: asyncio.Queue[Entry] = asyncio.Queue(maxsize=KEPT)
        self._followers.add(queue)
        return queue

    def unfollow(self, queue: asyncio.Queue[Entry]) -> None:
        self._followers.discard(queue)

    async def guard(self, work: Callable[[], Coroutine[Any, Any, None]], instance: str) -> bool:
        """Runs `work()` and logs a bug in it, for a task that no other task awaits; False if there was one.

        The coroutine is made in here: a task that is cancelled before its first step then leaves none unawaited.
        """
        try:
            await work()
            return True
        except Exception as exc:  # noqa: BLE001 - the last line of defence
            self.add("bug", f"{type(exc).__name__}: {exc}", instance=instance, level="error")
            return False

    def _write(self, entry: Entry) -> None:
        try:
            if self._path.exists() and self._path.stat().st_size > LOG_LIMIT_BYTES:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            with self._path.open("a", encoding="utf-8") as f:
                f.write(json.dumps(entry.to_json()) + "\n")
        except OSError:
            return  # a full disk must not end the supervisor; the ring still has the event
