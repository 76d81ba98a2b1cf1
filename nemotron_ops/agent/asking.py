"""Whether a call may run: the operator's policy, what the key was allowed before, the taint rule, the person. asyncio.

policy never           runs
once, allowed before   runs
else                   the client is asked in its own API; where that has no such thing, a request is written to
                       the state, and the call waits for its answer
"""

from __future__ import annotations

import asyncio

from nemotron_ops.agent.approvals import NO, WAITS, YES, Approvals
from nemotron_ops.agent.settings import Settings
from nemotron_ops.agent.tools.tool import Call, Tool

POLL_S = 0.3
DENIED = "the person refused this call; go on without it"
LATE = "nobody approved this call in time; say that it waits for `nemotron-ops tools approvals`, and go on without it"


class Asking:
    """Approvals of one request. `key` is the id of the client's key."""

    def __init__(self, settings: Settings, approvals: Approvals, key: str) -> None:
        self._settings, self._approvals, self._key = settings, approvals, key

    async def needed(self, tool: Tool, *, tainted: bool) -> bool:
        """Whether a call of `tool` must be approved. After a text of the web, one that sends always must."""
        policy = self._policy(tool)
        if tool.sends and tainted:
            policy = "always"
        if policy == "never":
            return False
        return policy == "always" or not await asyncio.to_thread(self._approvals.is_allowed, self._key, tool.name)

    async def keep(self, tool: Tool) -> None:
        """The client approved a call: a tool that asks once does not ask again."""
        if self._policy(tool) == "once":
            await asyncio.to_thread(self._approvals.allow, self._key, tool.name)

    def _policy(self, tool: Tool) -> str:
        policy = self._settings.policy(tool.name)
        if tool.approval and policy == "never":
            return tool.approval  # the request and mcp.toml may ask for more, never for less
        return policy

    async def wait(self, call: Call, tool: Tool) -> str:
        """Write a request and wait for its answer; returns why the call may not run, or an empty text."""
        asked = await asyncio.to_thread(self._approvals.ask, self._key, tool.name, call.arguments)
        try:
            async with asyncio.timeout(self._settings.budgets.approval_s):
                answer = await self._answer(asked)
        except TimeoutError:
            return LATE
        finally:
            await asyncio.shield(asyncio.to_thread(self._approvals.drop, asked))
        if answer == NO:
            return DENIED
        assert answer == YES
        await self.keep(tool)
        return ""

    async def _answer(self, asked: str) -> str:
        """The answer to a request, once another process has written it to the file."""
        while True:
            if (answer := await asyncio.to_thread(self._approvals.answer_to, asked)) != WAITS:
                return answer
            await asyncio.sleep(POLL_S)
