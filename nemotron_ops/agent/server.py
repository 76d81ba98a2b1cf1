"""Takes requests from the gateway over a unix socket; ends when idle. asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import traceback
from functools import partial

from nemotron_ops.agent.apis import messages
from nemotron_ops.agent.apis.faces import FACES, api_of
from nemotron_ops.agent.apis.responses import error_body
from nemotron_ops.agent.asking import Asking
from nemotron_ops.agent.here import Here
from nemotron_ops.agent.mcp.remote import connected
from nemotron_ops.agent.run import Run
from nemotron_ops.agent.tools.code import Code
from nemotron_ops.agent.tools.context import Context
from nemotron_ops.agent.tools.kinds import hosted
from nemotron_ops.agent.tools.tool import InvalidError
from nemotron_ops.agent.tools.web import Web
from nemotron_ops.agent.turns import Turns
from nemotron_ops.agent.wire import LINE_BYTES, Answer, Asked, read_request
from nemotron_ops.errors import NemotronOpsError

POLL_S = 0.5
RESULT_LETTERS = 16_000  # of one result, where the context is not known
LEAST_LETTERS = 400
LETTERS_PER_TOKEN = 3
REFUSALS = {"responses": error_body, "chat": error_body, "messages": messages.error_body}


class Server:
    """All requests of the process."""

    def __init__(self, turns: Turns, here: Here) -> None:
        self._turns, self._here = turns, here
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
        code = Code(self._here.open_session)
        refusal = REFUSALS[api_of(asked.path)]
        try:
            usable = await asyncio.to_thread(self._here.usable)
            face = FACES[api_of(asked.path)](asked, code.container, usable)
            refusal = face.refusal
            needs = {row.needs for _, tool in face.asked_for() if (row := hosted(face.name, tool))}
            if why := await asyncio.to_thread(self._here.refusal, needs):
                raise InvalidError(why, "tools_not_enabled")
            settings = await asyncio.to_thread(self._here.settings)
            letters = letters_of(asked.ctx_tokens, settings.budgets.result_share)
            web = Web(self._here.web, asked.key_id, letters)
            connect = partial(connected, self._here)
            context = Context(api=face.name, code=code, web=web, letters=letters, connect=connect)
            asking = Asking(settings, self._here.approvals, asked.key_id)
            try:
                await Run(face, answer, self._turns, asked.key, context, asking).go(settings.budgets)
            finally:
                await context.close()
        except InvalidError as exc:
            await _refuse(answer, refusal(str(exc), exc.code))
        except NemotronOpsError as exc:  # a file of the operator's is wrong
            if answer.began:
                raise
            await _refuse(answer, refusal(exc.message, "tools_not_enabled"))
        finally:
            await code.close()


async def _refuse(answer: Answer, body: bytes) -> None:
    answer.begin(400, stream=False)
    await answer.send(body)
    await answer.end()


def letters_of(ctx_tokens: int, share: float) -> int:
    """The most letters of one result, for a context of so many tokens; 0: not known."""
    if not ctx_tokens:
        return RESULT_LETTERS
    return max(LEAST_LETTERS, min(RESULT_LETTERS, int(ctx_tokens * share * LETTERS_PER_TOKEN)))
