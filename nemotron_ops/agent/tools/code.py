"""One sandbox session, used from the event loop; a cancelled call kills it. Threads."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from nemotron_ops.errors import NemotronOpsError
from nemotron_ops.sandbox.outcome import Outcome
from nemotron_ops.sandbox.session import Sandbox


class Code:
    """The sandbox of one response, opened at its first call."""

    def __init__(self, open_session: Callable[[], Sandbox]) -> None:
        self.container = f"cntr_{secrets.token_hex(16)}"
        self._open = open_session
        self._session: Sandbox | None = None
        self._job: asyncio.Future[Outcome] | None = None

    async def run(self, code: str, language: str = "python") -> Outcome:
        """Run code. A sandbox that cannot be opened or run is an outcome without a backend, which says why."""
        self._job = asyncio.ensure_future(asyncio.to_thread(self._run, code, language))
        try:
            return await asyncio.shield(self._job)
        except NemotronOpsError as exc:
            return Outcome(stderr=exc.message, exit_code=1)

    def _run(self, code: str, language: str) -> Outcome:
        if self._session is None or self._session.over:
            self._session = self._open()
        return self._session.run(language, code)

    async def close(self) -> None:
        """Kill what runs, and end the session: nothing of it remains when this returns.

        A cancellation does not shorten it: the end of a session that waits for a thread would be cancelled with it.
        """
        ending = asyncio.ensure_future(self._end())
        cancelled = False
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                cancelled = True
        ending.result()
        if cancelled:
            raise asyncio.CancelledError

    async def _end(self) -> None:
        job = self._job
        while job is not None and not job.done():
            if self._session is not None:
                self._session.kill()
            await asyncio.wait((job,), timeout=0.05)  # the session may still be opening
        if self._session is not None:
            await asyncio.to_thread(self._session.end)
        if job is not None and not job.cancelled():
            job.exception()  # read, so that it is not reported as lost
