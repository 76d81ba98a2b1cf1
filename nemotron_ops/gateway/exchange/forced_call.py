"""Begins an answer with the call that its client requires. asyncio.

The opening is written as Nemotron 3 writes calls. Whether a model's template asks for that format is asked once, with a
tool in a prompt; a model with another format gets only the tools that may be called, and a call is required of it.
"""

from __future__ import annotations

from functools import partial

import msgspec

from nemotron_ops.gateway.api.routes import Api
from nemotron_ops.gateway.continuation.plan import continuation
from nemotron_ops.gateway.continuation.transcript import Transcript
from nemotron_ops.gateway.exchange.ask_whole import ask_whole
from nemotron_ops.gateway.request.json_fields import Fields, read_fields
from nemotron_ops.gateway.request.tool_choice import (
    Forced,
    may_be_opened,
    narrowed,
    opened,
    opening,
    with_brace,
    writes_so,
)
from nemotron_ops.gateway.streams.relay import Relay
from nemotron_ops.gateway.toolcalls.reask import Kept
from nemotron_ops.gateway.upstream.connection import Upstream

CHOICE = {Api.CHAT: b'"required"', Api.MESSAGES: b'{"type":"any"}'}
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
    if not await writes_calls(upstream, known) or not may_be_opened(fields):
        return narrowed(api, fields, forced)
    if relay is not None and forced.name and api is Api.CHAT:
        relay.rewrite_first(partial(with_brace, forced.name))
    return opened(api, fields, forced)


async def writes_calls(upstream: Upstream, known: dict[str, bool]) -> bool:
    """Whether the instance's template has the format of calls that can be begun for it; `known` keeps the answers."""
    if upstream.name not in known:
        answer = await ask_whole(upstream, "/apply-template", PROBE)
        if answer is None or answer.status != 200:
            return False
        known[upstream.name] = writes_so(answer.body)
    return known[upstream.name]


def call_behind(api: Api, fields: Fields, kept: Kept) -> bytes | None:
    """The body that asks for a call behind what is kept; None if no continuation would be right."""
    if api not in CHOICE:
        return None
    asked = {**fields, "tool_choice": msgspec.Raw(CHOICE[api])}
    transcript = Transcript(reasoning=kept.reasoning, content=f"{kept.content}\n" if kept.content else "")
    plan = continuation(api, asked, transcript, call=opening(Forced("", ())), closed=True)
    return None if plan is None or plan.replays else plan.body
