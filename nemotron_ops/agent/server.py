"""Takes requests from the gateway over a unix socket; ends when idle. asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import traceback
from collections.abc import Callable

from nemotron_ops.agent import responses
from nemotron_ops.agent.code import Code
from nemotron_ops.agent.run import Run
from nemotron_ops.agent.turns import Turns
from nemotron_ops.agent.wire import LINE_BYTES, Answer, Asked, read_request
from nemotron_ops.sandbox.session import Sandbox

POLL_S = 0.5


class Server:
    """All requests of the process. `refusal` says why code is not run now, or is empty."""

    def __init__(self, turns: Turns, open_session: Callable[[], Sandbox], refusal: Callable[[], str]) -> None:
        self._turns, self._open, self._refusal = turns, open_session, refusal
        self._running = 0
        self._idle_since = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, fd: int, *, idle_s: float, stop: asyncio.Event) -> None:
        """Serve the listening socket `fd` until `stop`, or until nothing was asked for `idle_s`."""
        loop = asyncio.get_running_loop()
        self._idle_since = loop.time()
        server = await asyncio.start_unix_server(self._connected, sock=socket.socket(fileno=fd), limit=LINE_BYTES)
        while not stop.is_set() and (self._running or loop.time() - self._idle_since < idle_s):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), POLL_S)
        server.close()  # later clients wait in the backlog: the supervisor holds the socket
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._turns.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: asyncio.Task[None] | None = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._running += 1
        try:
            await self._one(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the gateway is gone, or the process ends; the connection closes without its last frame
        finally:
            self._running -= 1
            self._idle_since = asyncio.get_running_loop().time()
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await read_request(reader)
        if asked is None:
            return
        answer = Answer(writer)
        work = asyncio.ensure_future(self._answered(asked, answer))
        gone = asyncio.ensure_future(reader.read(1))  # ends when the gateway closes: its client has left
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            work.cancel()
            await asyncio.wait((work,))
        if not work.cancelled() and (exc := work.exception()) and not isinstance(exc, OSError):
            traceback.print_exception(exc, file=sys.stderr)  # a bug: into the log of the process

    async def _answered(self, asked: Asked, answer: Answer) -> None:
        code = Code(self._open)
        try:
            if refusal := await asyncio.to_thread(self._refusal):
                raise responses.InvalidError(refusal, "tools_not_enabled")
            await Run(asked, answer, self._turns, code).go()
        except responses.InvalidError as exc:
            answer.begin(400, stream=False)
            await answer.send(responses.error_body(str(exc), exc.code))
            await answer.end()
        finally:
            await code.close()
