"""The control socket, asked from threads: status, logs, events, verbs. Unix socket."""

from __future__ import annotations

import asyncio
from typing import Any

from nemotron_ops.errors import ControlError
from nemotron_ops.paths import Layout
from nemotron_ops.supervisor.control import client

VERBS = frozenset({"status", "start", "stop", "restart", "drain", "reload", "logs", "events", "rollback"})


class Supervisor:
    """The running supervisor."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    async def ask(self, verb: str, **args: Any) -> dict[str, Any]:
        """The answer to one verb. Raises ControlError."""
        if verb not in VERBS:
            raise ControlError(f"cannot {verb}: no such verb here")
        return await asyncio.to_thread(client.request, self._layout, verb, **args)

    async def status(self) -> dict[str, Any]:
        """What runs; `{"error": …}` where no supervisor answers."""
        try:
            return await self.ask("status")
        except ControlError as exc:
            return {"error": exc.message, "instances": [], "models": []}
