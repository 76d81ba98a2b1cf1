"""Asks one instance for a whole response, outside the queue. asyncio."""

from __future__ import annotations

from nemotron_ops.gateway.client.heads import upstream_head
from nemotron_ops.gateway.upstream.attempt import Attempt, Whole
from nemotron_ops.gateway.upstream.connection import Upstream


async def ask_whole(upstream: Upstream, path: str, body: bytes = b"", *, method: str = "POST") -> Whole | None:
    """The instance's response of any status, or None if none came."""
    head = upstream_head(path, key=upstream.key, length=len(body), content_type=b"", method=method)
    outcome = await Attempt(upstream).ask(head, body)
    return outcome if isinstance(outcome, Whole) else None
