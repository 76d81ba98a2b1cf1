"""What the tools of one request share: the sandbox's session, what was read of the web, whose key it is. Pure.

Each part ends with the request; `close` ends what it holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from nemotron_ops.agent.tools.code import Code
from nemotron_ops.agent.tools.web import Web


@dataclass(kw_only=True)
class Context:
    """One request's tools. `letters` bounds the text of one result for the model."""

    api: str  # responses, messages or chat
    code: Code
    web: Web
    letters: int
    closers: list[Callable[[], Awaitable[None]]] = field(default_factory=list)  # of further kinds

    async def close(self) -> None:
        """End all that runs. A cancellation does not shorten it."""
        try:
            for closer in reversed(self.closers):
                await closer()
        finally:
            await self.code.close()
