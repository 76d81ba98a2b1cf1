"""Follows the supervisor over the control socket: receives snapshots, reports requests in flight. asyncio.

While the supervisor is away, the last snapshot stays in force and the connection is retried.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from nemotron_ops.supervisor.snapshot import Snapshot, from_json

RETRY_S = 0.05
MAX_RETRY_S = 1.0
REPORT_PERIOD_S = 0.1
LINE_BYTES = 16 << 20


class Follower:
    """Calls `on_snapshot` with each snapshot, and `count` for the requests in flight."""

    def __init__(
        self, path: str, on_snapshot: Callable[[Snapshot], None], count: Callable[[], dict[str, int]]
    ) -> None:  # fmt: skip
        self.path = path
        self.on_snapshot = on_snapshot
        self.connected = False
        self._count = count
        self._changed = asyncio.Event()
        self._sent: dict[str, int] | None = None  # the last counts on this connection
        self._requests: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Follow until cancelled."""
        delay = RETRY_S
        while True:
            with contextlib.suppress(OSError, msgspec.DecodeError, ValueError, KeyError, TypeError):
                if await self._follow_once():
                    delay = RETRY_S
            self.connected = False
            await asyncio.sleep(delay)
            delay = min(MAX_RETRY_S, delay * 2)

    def report(self) -> None:
        """The requests in flight may have changed: count them soon, and send them if so."""
        if not self._changed.is_set():
            self._changed.set()

    def want(self, model: str) -> None:
        """Ask the supervisor to start an on-demand model. Errors are ignored: the caller asks again."""
        task = asyncio.get_running_loop().create_task(self._want(model))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _want(self, model: str) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_unix_connection(self.path)
                try:
                    writer.write(msgspec.json.encode({"verb": "want", "model": model}) + b"\n")
                    await writer.drain()
                    await reader.readline()
                finally:
                    writer.close()

    async def _follow_once(self) -> bool:
        """Follow until the connection ends; returns whether a snapshot came."""
        reader, writer = await asyncio.open_unix_connection(self.path, limit=LINE_BYTES)
        reporter = asyncio.create_task(self._report(writer))
        came = False
        try:
            writer.write(b'{"verb": "follow"}\n')
            while line := await reader.readline():
                value = msgspec.json.decode(line)
                if isinstance(value, dict) and "snapshot" in value:
                    snapshot = from_json(value["snapshot"])
                    self.on_snapshot(snapshot)
                    self._acknowledge(writer, snapshot.serial)
                    came = self.connected = True
        finally:
            reporter.cancel()
            writer.close()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await reporter
        return came

    def _acknowledge(self, writer: asyncio.StreamWriter, serial: int) -> None:
        """Tell that the snapshot is in force, with the requests in flight: a drain ends by them."""
        self._sent = {k: v for k, v in self._count().items() if v}
        writer.write(msgspec.json.encode({"inflight": self._sent, "seen": serial}) + b"\n")

    async def _report(self, writer: asyncio.StreamWriter) -> None:
        self._sent = None
        while True:
            self._changed.clear()
            counts = {k: v for k, v in self._count().items() if v}
            if counts != self._sent:
                writer.write(msgspec.json.encode({"inflight": counts}) + b"\n")
                self._sent = counts
                await writer.drain()
            await asyncio.sleep(REPORT_PERIOD_S)
            await self._changed.wait()
