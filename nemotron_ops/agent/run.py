"""One request: turns, tools, events, until it ends. asyncio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any, TypeVar

from nemotron_ops.agent import responses
from nemotron_ops.agent.code import Code
from nemotron_ops.agent.events import KEEP_ALIVE, LAST, Events
from nemotron_ops.agent.loop import Budgets, Progress, Said, after_turn
from nemotron_ops.agent.turns import TurnError, Turns
from nemotron_ops.agent.wire import Answer, Asked
from nemotron_ops.sandbox.outcome import Outcome

KEEP_ALIVE_S = 10.0
T = TypeVar("T")


class Run:
    """One response with hosted tools."""

    def __init__(self, asked: Asked, answer: Answer, turns: Turns, code: Code) -> None:
        self._answer, self._turns, self._code, self._key = answer, turns, code, asked.key
        self._request = responses.checked(asked.body)
        self._stream = self._request.get("stream") is True
        self._outputs = responses.OUTPUTS in (self._request.get("include") or ())
        most = self._request.get("max_tool_calls")
        self._budgets = Budgets(calls=most) if most else Budgets()
        self._events = Events(self._request, {responses.CODE})
        self._items: list[dict[str, Any]] = []  # what was said and run, for the next turn
        self._ran: dict[str, str] = {}  # code -> result: the same call again is not run again

    async def go(self) -> None:
        """Answer the request. Raises OSError if the gateway is gone."""
        try:
            async with asyncio.timeout(self._budgets.total_s):
                reason = await self._loop()
        except TimeoutError:
            reason = "timeout"
        except TurnError as exc:
            await self._fail(exc)
            return
        if self._stream:
            await self._send(self._events.ended(reason))
        else:
            self._answer.begin(200, stream=False)
            await self._answer.send(json.dumps(self._events.response(reason), ensure_ascii=False).encode())
        await self._answer.end()

    async def _loop(self) -> str:
        """All turns; returns why the response is incomplete, or an empty text."""
        progress = Progress()
        while True:
            calls, said = await self._turn()
            progress, step = after_turn(progress, said, self._budgets)
            if step.run:
                for call in calls:
                    await self._call(call)
            if not step.ask:
                return step.reason

    async def _turn(self) -> tuple[list[dict[str, Any]], Said]:
        self._events.next_turn()
        last: dict[str, Any] | None = None
        async for event in self._turns.events(responses.turn_body(self._request, self._items), self._key):
            if event.get("type") == "error" or event.get("type") == "response.failed":
                error = event.get("response", event).get("error") or event
                raise TurnError(502, json.dumps({"error": error}).encode())
            last = event["response"] if event.get("type") in LAST else last
            await self._send(self._events.passed(event))
        if last is None:
            raise TurnError(502, responses.error_body("the turn ended without its last event", "internal"))
        self._items += last["output"]
        calls = [item for item in last["output"] if item.get("type") == "function_call"]
        hosted = [item for item in calls if self._events.is_hosted(item)]
        cut = (last.get("incomplete_details") or {}).get("reason", "") if last["status"] == "incomplete" else ""
        return hosted, Said(hosted=len(hosted), own=len(calls) - len(hosted), cut=str(cut))

    async def _call(self, call: dict[str, Any]) -> None:
        """Run one call; its result goes into the next turn, its item to the client."""
        code = responses.code_in(str(call.get("arguments", "")))
        if code is None:
            self._result(call, "the call has no text `code`; call it again with one")
            return
        call_id = "ci_" + str(call.get("call_id") or call.get("id"))
        item = responses.call_item(call_id, self._code.container, code, None, outputs=self._outputs)
        await self._send(self._events.code_began(item))
        if code in self._ran:
            outcome = Outcome(stdout=self._ran[code], backend="earlier")
            self._result(call, f"this very code has run already; its result was:\n{self._ran[code]}")
        else:
            outcome = await self._while_silent(self._code.run(code))
            self._ran[code] = responses.result_text(outcome)
            self._result(call, self._ran[code])
        done = responses.call_item(call_id, self._code.container, code, outcome, outputs=self._outputs)
        await self._send(self._events.code_ended(done))

    def _result(self, call: dict[str, Any], text: str) -> None:
        self._items.append({"type": "function_call_output", "call_id": call.get("call_id"), "output": text})

    async def _while_silent(self, work: Awaitable[T]) -> T:
        """The result of `work`; comments keep proxies from closing the stream meanwhile."""
        job = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait((job,), timeout=KEEP_ALIVE_S))[0]:
                if self._stream:
                    await self._send(KEEP_ALIVE)
        except asyncio.CancelledError:
            job.cancel()
            raise
        return job.result()

    async def _send(self, data: bytes) -> None:
        if not self._stream or not data:
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
            await self._answer.send(self._events.failed(error))
        await self._answer.end()
