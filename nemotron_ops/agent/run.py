"""One request: turns, tools, events, until it ends. asyncio."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable
from dataclasses import replace
from typing import TypeVar

from nemotron_ops.agent.apis.face import Face, History, Turn, TurnFailedError
from nemotron_ops.agent.asking import DENIED, Asking
from nemotron_ops.agent.loop import Budgets, Progress, after_turn
from nemotron_ops.agent.tools.context import Context
from nemotron_ops.agent.tools.kinds import hosted
from nemotron_ops.agent.tools.tool import Call, Ran, Tool
from nemotron_ops.agent.turns import TurnError, Turns
from nemotron_ops.agent.wire import Answer

KEEP_ALIVE = b": keep-alive\n\n"
T = TypeVar("T")


class Run:
    """One answer with hosted tools."""

    def __init__(self, face: Face, answer: Answer, turns: Turns, key: str, context: Context, asking: Asking) -> None:
        self._face, self._answer, self._turns, self._key = face, answer, turns, key
        self._context, self._asking = context, asking
        self._tools: dict[str, Tool] = {}
        self._used: Counter[str] = Counter()
        self._ran: dict[tuple[str, str], Ran] = {}  # the same call again is not run again

    async def go(self, budgets: Budgets) -> None:
        """Answer the request. Raises InvalidError if it cannot be run, OSError if the gateway is gone."""
        if self._face.most_calls:
            budgets = replace(budgets, calls=min(budgets.calls, self._face.most_calls))
        try:
            async with asyncio.timeout(budgets.total_s):
                reason = await self._loop(await self._offer(), budgets)
        except TimeoutError:
            reason = "timeout"
        except TurnError as exc:
            await self._fail(exc)
            return
        if self._face.stream:
            await self._send(self._face.finished(reason))
        else:
            self._answer.begin(200, stream=False)
            await self._answer.send(self._face.whole(reason))
        await self._answer.end()

    async def _offer(self) -> History:
        """Make the hosted tools that the request asks for; returns what its history leaves."""
        made: list[Tool] = []
        for place, given in self._face.asked_for():
            row = hosted(self._face.name, given)
            assert row is not None
            made += await row.make(given, place, self._context)
        self._tools = {tool.name: tool for tool in made}
        history = self._face.offer(made, self._context.web)
        web = self._context.web
        for text in history.texts:
            web.know_text(text)
        web.know(history.urls)
        web.tainted = history.tainted
        return history

    async def _loop(self, history: History, budgets: Budgets) -> str:
        """All turns; returns why the answer is incomplete, or an empty text."""
        for call in history.refused:
            self._face.told(call, DENIED)
        progress = Progress(calls=len(history.waiting))
        for call in history.waiting:
            await self._call(call, approved=True)
        while True:
            turn = await self._turn()
            progress, step = after_turn(progress, turn.said, budgets)
            asked = False
            for call in turn.calls if step.reason and not step.run and not turn.said.cut else ():
                await self._send(self._face.left(call, self._tools[call.name]))
            for call in turn.calls if step.run else ():
                asked |= not await self._call(call)
            if asked:
                return ""  # the client answers, and sends all of it back
            if not step.ask:
                return step.reason

    async def _turn(self) -> Turn:
        try:
            async for event in self._turns.events(self._face.path, self._face.turn_body(), self._key):
                await self._send(self._face.passed(event))
        except TurnFailedError as exc:
            raise TurnError(502, self._face.failure(exc.error)) from exc
        if (turn := self._face.turn_said()) is None:
            raise TurnError(502, self._face.refusal("the turn ended without its last event", "internal"))
        return turn

    async def _call(self, call: Call, *, approved: bool = False) -> bool:
        """Run one call; its result goes into the next turn. False if the client is asked to approve it first."""
        tool = self._tools.get(call.name)
        if tool is None:
            self._face.told(call, f"there is no tool {call.name[:100]!r} in this request")
            return True
        refusal = ""
        if approved:
            await self._asking.keep(tool)
        elif await self._asking.needed(tool, tainted=self._context.web.tainted):
            if (asked := self._face.approval(call, tool)) is not None:
                await self._send(asked)
                return False
            refusal = await self._while_silent(self._asking.wait(call, tool))
        await self._send(self._face.began(call, tool))
        ran = Ran(text=refusal, error="denied") if refusal else await self._result(call, tool)
        await self._send(self._face.ended(call, tool, ran))
        return True

    async def _result(self, call: Call, tool: Tool) -> Ran:
        if tool.most and self._used[tool.name] >= tool.most:
            return Ran(text="this tool may not be used again in this answer", error="max_uses_exceeded")
        same = (call.name, json.dumps(call.given, sort_keys=True))
        if (before := self._ran.get(same)) is not None:
            return replace(before, text=f"this very call has run already; its result was:\n{before.text}")
        self._used[tool.name] += 1
        ran = await self._while_silent(tool.run(call))
        if not ran.error:
            self._ran[same] = ran
        return ran

    async def _while_silent(self, work: Awaitable[T]) -> T:
        """The result of `work`; comments keep proxies from closing the stream meanwhile."""
        job = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait((job,), timeout=self._turns.keep_alive_s))[0]:
                await self._send(KEEP_ALIVE)
        except BaseException:
            job.cancel()
            await asyncio.wait((job,))
            raise
        return job.result()

    async def _send(self, data: bytes) -> None:
        if not self._face.stream or not data:
            return
        if not self._answer.began:
            self._answer.begin(200, stream=True)
        await self._answer.send(data)

    async def _fail(self, exc: TurnError) -> None:
        if not self._answer.began:
            self._answer.begin(exc.status, stream=False)
            await self._answer.send(exc.body)
        else:
            try:
                error = json.loads(exc.body)["error"]
            except (ValueError, KeyError, TypeError):
                error = {"code": "server_error", "message": "the turn failed"}
            await self._answer.send(self._face.failed(error))
        await self._answer.end()
