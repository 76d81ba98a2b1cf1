"""The end of a response's sandbox, where it is cancelled at the worst moment: no thread is free for it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from nemotron_ops.agent.tools.code import Code
from nemotron_ops.sandbox.limits import Limits
from nemotron_ops.sandbox.outcome import Outcome


class Recorded:
    """A sandbox that notes its end."""

    limits, tag, backend, over = Limits(), "", "recorded", False

    def __init__(self) -> None:
        self.ended = False

    def run(self, lang: str, code: str, *, call_s: float | None = None) -> Outcome:
        return Outcome(stdout="1", backend="recorded")

    def put(self, name: str, content: bytes) -> None: ...

    def kill(self) -> None: ...

    def end(self) -> None:
        self.ended = True


def test_a_cancelled_end_still_ends_the_session() -> None:
    sandbox, free = Recorded(), threading.Event()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        code = Code(lambda: sandbox)
        await code.run("1")
        blocker = loop.run_in_executor(None, free.wait)
        closing = asyncio.ensure_future(code.close())
        for _ in range(3):
            await asyncio.sleep(0)  # until the end waits for a thread
        closing.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        free.set()
        await asyncio.wait((closing, blocker))
        assert closing.cancelled()

    asyncio.run(scenario())
    assert sandbox.ended
