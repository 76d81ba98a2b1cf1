"""The stream of a tab: one JSON object a line. Starlette."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from nemotron_ops.studio.handlers.asked import Refusal, shared


async def feed(request: Request) -> Response:
    """Lines of the chat in `chats`, `id:since`, until the tab goes; with `once` what there is, without waiting."""
    here = shared(request)
    wanted = request.query_params.get("chats", "").split(",")[:8]
    try:
        since = {chat: int(at) for chat, _, at in (one.partition(":") for one in wanted if one)}
    except ValueError as exc:
        raise Refusal(400, "chats: expected id:number") from exc
    if len(since) != 1:
        raise Refusal(400, "chats: expected one")
    ((chat, at),) = since.items()

    if request.query_params.get("once"):
        found = [msgspec.json.encode(line) + b"\n" for line in here.feed.since(chat, at)]
        return Response(b"".join(found), media_type="application/x-ndjson")

    async def lines() -> AsyncIterator[bytes]:
        async for line in here.feed.follow(chat, at):
            yield msgspec.json.encode(line) + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson", headers={"X-Accel-Buffering": "no"})
