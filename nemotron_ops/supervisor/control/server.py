"""Serves the control socket, by which the command line and the gateway ask the supervisor. asyncio, unix socket.

One request per connection, one line of JSON each way; only `follow`, and `events` with `follow`, stay open. The socket
is for its owner only: mode 0600 in a folder of mode 0700, and the peer's user is checked as well.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from nemotron_ops.errors import ControlError, NemotronOpsError
from nemotron_ops.paths import Layout
from nemotron_ops.supervisor import snapshot as snapshots
from nemotron_ops.supervisor.records.lock import make_private
from nemotron_ops.supervisor.snapshot import Snapshot, State

LINE_BYTES = 1 << 20
CONNECTIONS = 256
Answer = dict[str, Any]
Verb = Callable[[dict[str, Any]], Awaitable[Answer] | AsyncIterator[Answer]]


class ControlServer:
    """Listens, checks the peer, and calls verbs. Keeps the requests in flight that followers report."""

    def __init__(self, layout: Layout, *, changed: Callable[[], None]) -> None:
        self._layout, self._changed = layout, changed
        self._verbs: Mapping[str, Verb] = {}
        self._server: asyncio.Server | None = None
        self._snapshot: Snapshot | None = None
        self._followers: dict[int, asyncio.Event] = {}
        self._inflight: dict[int, dict[str, int]] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._number = 0
        self._file: tuple[int, int] | None = None  # device and inode of the socket's file
        self._resting: dict[str, int] = {}  # instance -> serial of the snapshot that took it out of traffic
        self._seen: dict[int, int] = {}  # gateway -> serial of the last snapshot that it acknowledged

    async def start(self, verbs: Mapping[str, Verb]) -> None:
        """Listen. Needs the lock of the state directory: then an existing socket file is a stale one."""
        self._verbs = verbs
        await self._listen()

    async def restore(self) -> bool:
        """Listen again if the socket's file was removed or replaced; True if so. Open connections stay."""
        if self._server is None or _file(self._layout.control_socket) == self._file:
            return False
        old = self._server
        await self._listen()
        old.close()
        return True

    async def _listen(self) -> None:
        path = self._layout.control_socket
        make_private(self._layout)
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            raise ControlError(f"cannot replace {path}: {exc.strerror}", hint="move it away and try again") from exc
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(path))
        path.chmod(0o600)
        self._file = _file(path)
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=LINE_BYTES)

    async def close(self, *, unlink: bool) -> None:
        if self._server:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if unlink:
            self._layout.control_socket.unlink(missing_ok=True)

    def publish(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        rest = [i.name for i in snapshot.instances if i.state is not State.READY or i.draining]
        self._resting = {name: self._resting.get(name, snapshot.serial) for name in rest}
        for news in self._followers.values():
            news.set()

    @property
    def following(self) -> int:
        """The number of connections that follow snapshots: gateways and attached commands."""
        return len(self._followers)

    def inflight(self, instance: str) -> int | None:
        """Requests that gateways have at `instance`; None while no gateway has reported."""
        if not self._inflight:
            return None
        return sum(counts.get(instance, 0) for counts in self._inflight.values())

    def acknowledged(self, instance: str) -> bool:
        """Whether every gateway that reports has seen a snapshot in which `instance` takes no requests."""
        since = self._resting.get(instance)
        return since is not None and bool(self._inflight) and all(
            self._seen.get(number, -1) >= since for number in self._inflight
        )  # fmt: skip

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        try:
            if len(self._connections) > CONNECTIONS:
                raise ControlError("cannot answer: too many connections")
            check_peer(writer.get_extra_info("socket"))
            await self._answer(reader, writer)
        except NemotronOpsError as exc:
            await _write(writer, {"error": {"message": exc.message, "hint": exc.hint}})
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the peer has closed, or this server stops
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(30):
            args = parse(await _line(reader))
        verb = str(args.pop("verb", ""))
        if verb == "follow":
            await self._follow(reader, writer)
            return
        if verb not in self._verbs:
            raise ControlError(f"cannot do {verb!r}: unknown verb", hint=f"verbs: {', '.join(sorted(self._verbs))}")
        answer = self._verbs[verb](args)
        if isinstance(answer, AsyncIterator):
            async for part in answer:
                await _write(writer, part)
        else:
            await _write(writer, await answer)

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Sends every new snapshot to the follower, and reads its counts of requests in flight."""
        self._number += 1
        number, news = self._number, asyncio.Event()
        self._followers[number] = news
        news.set()
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send_news(news, writer))
                await self._take_reports(number, reader)
                sending.cancel()
        except* ConnectionError:
            pass  # the follower has closed
        finally:
            del self._followers[number]
            self._inflight.pop(number, None)
            self._seen.pop(number, None)
            self._changed()

    async def _send_news(self, news: asyncio.Event, writer: asyncio.StreamWriter) -> None:
        while True:
            await news.wait()
            news.clear()
            if self._snapshot is not None:
                await _write(writer, {"snapshot": snapshots.to_json(self._snapshot)})

    async def _take_reports(self, number: int, reader: asyncio.StreamReader) -> None:
        while line := await _line(reader):
            report = parse(line)
            counts, seen = report.get("inflight"), report.get("seen")
            if isinstance(counts, dict):
                before = self._inflight.get(number)
                self._inflight[number] = {str(k): int(v) for k, v in counts.items()}
                if self._inflight[number] != before:
                    self._changed()
            if isinstance(seen, int):
                self._seen[number] = seen


def _file(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_peer(sock: Any) -> None:
    """Raises ControlError unless the peer is the same user or root."""
    if not sys.platform.startswith("linux"):
        return  # only the folder's mode protects the socket there
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    if uid not in (os.geteuid(), 0):
        raise ControlError(f"cannot answer user {uid}: this supervisor belongs to user {os.geteuid()}")


def parse(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as exc:
        raise ControlError("cannot read the request: not JSON") from exc
    if not isinstance(value, dict):
        raise ControlError("cannot read the request: not an object")
    return value


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError as exc:
        raise ControlError(f"cannot read the request: longer than {LINE_BYTES} bytes") from exc


async def _write(writer: asyncio.StreamWriter, value: Answer) -> None:
    writer.write(json.dumps(value).encode() + b"\n")
    await writer.drain()
