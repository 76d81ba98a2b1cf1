"""Begins an answer with the call that its client requires. asyncio.

The opening is written as Nemotron 3 writes calls. Whether a model's template asks for that format is asked once, with a
tool in a prompt; a model with another format gets only the tools that may be called, and a call is required of it.
"""

from __future__ import annotations

from functools import partial

import msgspec

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.exchange.ask_whole import ask_whole
from nemotron_ops.gateway.request.json_fields import read_fields
from nemotron_ops.gateway.request.tool_choice import Forced, may_be_opened, narrowed, opened, with_brace, writes_so
from nemotron_ops.gateway.streams.relay import Relay
from nemotron_ops.gateway.upstream.connection import Upstream

PROBE = msgspec.json.encode(
    {
        "messages": [{"role": "user", "content": "-"}],
        "tools": [{"type": "function", "function": {"name": "probe", "parameters": {"type": "object"}}}],
    }
)


async def begin_call(
    forced: Forced, api: Api, body: bytes, upstream: Upstream, known: dict[str, bool], relay: Relay | None
) -> bytes:
    """What to send instead of `body` for a forced call; `known` says which instances' templates have the format."""
    fields = read_fields(body)
    if upstream.name not in known:
        answer = await ask_whole(upstream, "/apply-template", PROBE)
        if answer is None or answer.status != 200:
            return narrowed(api, fields, forced)
        known[upstream.name] = writes_so(answer.body)
    if not known[upstream.name] or not may_be_opened(fields):
        return narrowed(api, fields, forced)
    if relay is not None and forced.name and api is Api.CHAT:
        relay.rewrite_first(partial(with_brace, forced.name))
    return opened(api, fields, forced)
